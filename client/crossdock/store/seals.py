"""Seals in the store: where homes that go leave what was chosen, and who decides when all are gone.

{shuffle prefix}seal             a choice of winners; put if absent, never changed
{job prefix}homes/{worker id}    this home makes no seals any more, and has left its own
"""

import struct
from collections.abc import Sequence
from typing import Final

from crossdock.errors import DataCorrupt, SealLost
from crossdock.store.api import Store
from crossdock.store.errors import ObjectMissing
from crossdock.store.layout import ShuffleLayout, closed_homes
from crossdock.store.objects import read_whole
from crossdock.store.publishing import put_once
from crossdock.views import ShuffleKey
from crossdock.wire import crc, tables
from crossdock.wire.crc import BytesLike
from crossdock.wire.tables import Table

_CRC: Final = struct.Struct("<I")
"""CRC32C at its end: a choice of winners that reads wrong is worse than none."""


def encode(winners: Table) -> bytes:
    """Return a seal's bytes, on a worker's disk as in the store."""
    data = tables.encode(winners)
    return data + _CRC.pack(crc.extend(0, data))


def decode(stored: BytesLike, *, where: str) -> Table:
    """Read a seal: a table of `tables.ATTEMPT`; raises `DataCorrupt`."""
    whole = bytes(stored)
    data, own = whole[: -_CRC.size], whole[-_CRC.size :]
    if own != _CRC.pack(crc.extend(0, data)):
        raise DataCorrupt(
            f"{where} is damaged", hint="pass the winners; or run the job again under a new uid"
        )
    return tables.decode(tables.ATTEMPT, data, what=where)


class StoredSeals:
    """The seals of a cluster's jobs in a store. Thread-safe."""

    def __init__(self, store: Store, cluster: str) -> None:
        self._store = store
        self._cluster = cluster

    def read(self, key: ShuffleKey) -> Table | None:
        """Return the seal of a shuffle, if it is in the store."""
        where = ShuffleLayout.of(self._cluster, key).seal
        try:
            return decode(read_whole(self._store, where), where=where)
        except ObjectMissing:
            return None

    def leave(self, key: ShuffleKey, winners: Table) -> Table:
        """Put a seal that was made into the store; returns the one that holds there."""
        where = ShuffleLayout.of(self._cluster, key).seal
        there = put_once(self._store, where, encode(winners))
        return winners if there is None else decode(there, where=where)

    def decide(self, key: ShuffleKey, homes: Sequence[str], winners: Table) -> tuple[Table, bool]:
        """Seal a shuffle none of whose homes is left; returns what holds, and whether it is new.

        Raises:
            SealLost: a home went without leaving its seals, or the store cannot decide.
        """
        existing = self.read(key)
        if existing is not None:
            return existing, False
        left = set(self._store_closed(key.job))
        open_ = sorted(set(homes) - left)
        if not homes:
            raise SealLost(f"job {key.job} has no homes of seals: nobody may decide for them")
        if open_:
            raise SealLost(
                f"these homes of the seals of job {key.job} went without leaving them: "
                f"{', '.join(open_)}"
            )
        if not self._store.capabilities.conditional_put:
            raise SealLost(
                f"no home of the seals of job {key.job} is left, and {self._store.url} cannot "
                "decide between two writers"
            )
        held = self.leave(key, winners)
        return held, held is winners

    def close_home(self, job: str, worker: str) -> None:
        """Say that a worker has left all its seals of a job, and makes none any more."""
        self._store.put(f"{closed_homes(self._cluster, job)}{worker}", b"")

    def _store_closed(self, job: str) -> list[str]:
        prefix = closed_homes(self._cluster, job)
        return [info.key.removeprefix(prefix) for info in self._store.list(prefix)]
