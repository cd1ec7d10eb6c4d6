"""The store as the last place where frames of a shuffle are looked for, after all workers."""

import threading
from dataclasses import dataclass, field
from typing import Final

from crossdock.options import Options
from crossdock.pool import Pool
from crossdock.statistics import ReadMeter
from crossdock.store import manifest
from crossdock.store.access import Access
from crossdock.store.api import ObjectInfo, ReadableStore, StoreOptions
from crossdock.store.errors import ObjectDamaged, ObjectMissing, StoreUnavailable
from crossdock.store.frames import StoredFrames
from crossdock.store.layout import ShuffleLayout, run_of
from crossdock.store.logs import read_record
from crossdock.store.opening import open_store
from crossdock.store.records import Record
from crossdock.store.through import Workers, WorkerStore
from crossdock.views import STORE, ShuffleKey
from crossdock.wire.tables import Table

_LISTINGS: Final = 3
"""How often records are listed at most, while some go between the listing and their reading."""


@dataclass(slots=True)
class Holders:
    """What persist runs have of a shuffle."""

    frames: dict[str, Table] = field(default_factory=dict)
    """By the name of the holder: `tables.FRAME`s."""
    notes: list[str] = field(default_factory=list)
    """What is damaged, and holds nothing."""


class StoreTier:
    """What persist runs have brought into the store, by shuffle. Thread-safe.

    Nothing is asked of the store before a frame is nowhere else.
    """

    def __init__(
        self,
        options: Options,
        store_options: StoreOptions | None,
        *,
        pool: Pool,
        workers: Workers,
        meter: ReadMeter,
    ) -> None:
        """Make one; nothing is sent.

        Args:
            options: `store` "" means that workers read their store for us.
            store_options: of the store that `options` names.
            pool: connections to workers.
            workers: those that have a store.
            meter: is told what was read.
        """
        self._options = options
        self._store_options = store_options or StoreOptions()
        self._pool = pool
        self._workers = workers
        self._meter = meter
        self._lock = threading.Lock()
        self._access: Access | None = None

    def holders(self, key: ShuffleKey) -> Holders:
        """Return the frames of a shuffle that lie in the store.

        Raises:
            ConfigError: the store's extra is not installed, or its URL is wrong.
            StoreDenied: the credentials do not open it.
            StoreUnavailable: it does not answer until the deadline, or no worker reads it for us.
        """
        found = Holders()
        if not self._options.store and not self._workers(fresh=False):
            return found
        for _ in range(_LISTINGS):
            found = Holders()
            if self._read_all(key, found):
                break
        return found

    def _read_all(self, key: ShuffleKey, found: Holders) -> bool:
        """Read the records that are listed; return whether all of them were still there.

        One that went meanwhile was a log object, whose frames a longer run has, which the listing
        may not have had yet; or the shuffle is being released.
        """
        records = ShuffleLayout.of(self._options.store_cluster, key).records
        whole = True
        for info in self._opened().store.list(records):
            try:
                record = self._record(info)
            except ObjectMissing:
                whole = False
                continue
            except ObjectDamaged as error:
                found.notes.append(str(error))
                continue
            found.frames[f"{STORE}{record.run}"] = record.frames
        return whole

    def share(self, key: ShuffleKey, holder: str, frames: Table) -> tuple[StoredFrames, Table]:
        """Return how frames of a holder are read, and their `tables.STATISTICS`[P]."""
        record = self.record(key, holder)
        made = manifest.assemble(key, frames, record.statistics, [record])
        stored = StoredFrames(self._opened(), made)
        if len(frames) == len(record.frames):
            return stored, record.statistics
        return stored, stored.statistics()

    def record(self, key: ShuffleKey, holder: str) -> Record:
        """Return the record of a holder that `holders` has named."""
        access, run = self._opened(), holder.removeprefix(STORE)
        known = access.records.get(run)
        if known is not None:
            return known
        layout = ShuffleLayout.of(self._options.store_cluster, key)
        found = [i for i in access.store.list(layout.record(run)) if run_of(i.key) == run]
        if not found:
            raise StoreUnavailable(f"run {run} is gone: a longer one has its frames")
        return self._record(found[0])

    def _record(self, info: ObjectInfo) -> Record:
        access, run = self._opened(), run_of(info.key)
        known = access.records.get(run)
        if known is None:
            known = read_record(access.store, info)
            access.records.put(run, known, known.memory_bytes)
        return known

    def _opened(self) -> Access:
        with self._lock:
            if self._access is None:
                self._access = Access.to(self._store(), self._options, meter=self._meter)
            return self._access

    def _store(self) -> ReadableStore:
        if self._options.store:
            return open_store(self._options.store, self._store_options)
        return WorkerStore(self._pool, self._workers)

    def close(self) -> None:
        """End what is under way. Idempotent."""
        with self._lock:
            access, self._access = self._access, None
        if access is not None:
            access.close()
