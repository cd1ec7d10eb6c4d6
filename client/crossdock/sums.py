"""What a read must deliver and what it did, added up: array work per batch, never per block."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossdock.blocks import BlockBatch
from crossdock.errors import ProtocolError
from crossdock.wire.tables import Table

U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Promise:
    """What a read must deliver: bytes, rows and blocks of each partition, or of each map."""

    kind: str
    """"partition" or "map"."""
    keys: npt.NDArray[np.uint32]
    """The partitions, or the maps, rising."""
    bytes: U64
    rows: U64
    least_blocks: U64
    most_blocks: U64

    @classmethod
    def of_statistics(cls, shares: Sequence[Table], first: int, last: int) -> "Promise":
        """Add up what the workers said of partitions `first` to `last`, each of its share.

        A block may lie on several workers; then its partition's count of blocks is not exact.
        """
        stats = [share[first:last] for share in shares]
        none = np.zeros(last - first, np.uint64)
        return cls(
            "partition",
            np.arange(first, last, dtype=np.uint32),
            sum((s["bytes"] for s in stats), none),
            sum((s["rows"] for s in stats), none),
            np.maximum.reduce([none, *(s["blocks"].astype(np.uint64) for s in stats)]),
            sum((s["blocks"] for s in stats), none),
        )

    @classmethod
    def of_blocks(cls, sizes: Table, first: int, last: int) -> "Promise":
        """Add up `tables.BLOCK`s of partitions `first` to `last`."""
        made = cls.nothing("partition", np.arange(first, last, dtype=np.uint32))
        at = sizes["partition"] - np.uint32(first)
        np.add.at(made.bytes, at, sizes["bytes"])
        np.add.at(made.rows, at, sizes["rows"])
        np.add.at(made.least_blocks, at, np.uint64(1))
        made.most_blocks[:] = made.least_blocks
        return made

    @classmethod
    def of_frames(cls, frames: Table) -> "Promise":
        """Add up `tables.FRAME`s by map; they do not tell how many blocks there are."""
        maps, at = np.unique(frames["map"], return_inverse=True)
        made = cls.nothing("map", maps)
        np.add.at(made.bytes, at, frames["payload_bytes"])
        np.add.at(made.rows, at, frames["rows"])
        np.add.at(made.most_blocks, at, frames["pieces"].astype(np.uint64))
        return made

    @classmethod
    def nothing(cls, kind: str, keys: npt.NDArray[np.uint32]) -> "Promise":
        """Promise that nothing comes."""
        return cls(kind, keys, *(np.zeros(len(keys), np.uint64) for _ in range(4)))


class Delivered:
    """Adds up what comes of a promise."""

    def __init__(self, promise: Promise) -> None:
        self._promise = promise
        none = np.zeros(len(promise.keys), np.uint64)
        self._bytes, self._rows, self._blocks = none, none.copy(), none.copy()

    def add(self, batch: BlockBatch) -> None:
        """Count a batch; raises `ProtocolError` if it has what was not asked for."""
        if not len(batch):
            return
        promise = self._promise
        found = batch.partition if promise.kind == "partition" else batch.map_id
        new = np.flatnonzero(found[1:] != found[:-1]) + 1
        starts = np.concatenate((np.zeros(1, np.intp), new))
        heads = found[starts]
        at = np.minimum(np.searchsorted(promise.keys, heads), max(len(promise.keys) - 1, 0))
        if not len(promise.keys) or (promise.keys[at] != heads).any():
            raise ProtocolError(f"blocks came of a {promise.kind} that was not asked for")
        # Blocks come by (partition, map): a map may come again and again.
        np.add.at(self._bytes, at, np.add.reduceat(batch.lengths.astype(np.uint64), starts))
        np.add.at(self._rows, at, np.add.reduceat(batch.rows, starts))
        np.add.at(self._blocks, at, np.diff(starts, append=len(found)).astype(np.uint64))

    def check(self, where: str, keys: slice = slice(None)) -> None:
        """Raise `ProtocolError` unless all that was promised of these keys came, and no more."""
        promise = self._promise
        for what, least, most, got in (
            ("bytes", promise.bytes, promise.bytes, self._bytes),
            ("rows", promise.rows, promise.rows, self._rows),
            ("blocks", promise.least_blocks, promise.most_blocks, self._blocks),
        ):
            wrong = np.flatnonzero((got[keys] < least[keys]) | (got[keys] > most[keys]))
            if len(wrong):
                i = int(wrong[0])
                low, high = int(least[keys][i]), int(most[keys][i])
                expected = str(low) if low == high else f"{low} to {high}"
                raise ProtocolError(
                    f"{where}: {promise.kind} {promise.keys[keys][i]} has {expected} {what}, "
                    f"and {int(got[keys][i])} came"
                )
