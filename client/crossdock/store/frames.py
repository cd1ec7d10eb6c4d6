"""Frames that lie in a store, and how ranges of their partitions are read."""

from collections.abc import Iterator
from functools import partial
from operator import itemgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from crossdock.store.access import Access
from crossdock.store.manifest import Manifest
from crossdock.store.segment import overlapping
from crossdock.store.stream import RANGE_BYTES, Pick, RunStream, Segments, ranges_of
from crossdock.threads import result_of
from crossdock.wire import tables
from crossdock.wire.blocks import Cursor, PieceColumns
from crossdock.wire.crc import I64
from crossdock.wire.names import U32_MAX
from crossdock.wire.tables import Table

ALL_MAPS: Final = (0, U32_MAX + 1)


class StoredFrames:
    """The frames of a manifest. Thread-safe."""

    def __init__(self, access: Access, manifest: Manifest) -> None:
        self.manifest = manifest
        self._segments = Segments(access, manifest)
        self._ahead_bytes = access.options.read_ahead_bytes
        self._partial = _partial_runs(manifest)

    def streams(
        self, partitions: tuple[int, int], maps: tuple[int, int], cursor: Cursor | None = None
    ) -> list[RunStream]:
        """Return a stream of pieces for each run, from a cursor on."""
        first = partitions[0] if cursor is None else max(partitions[0], cursor.partition)
        partitions = (first, max(first, partitions[1]))
        batches, run_of = self._batches(partitions, maps)
        runs = np.unique(run_of).tolist()
        ahead = max(1, self._ahead_bytes // (RANGE_BYTES * max(1, len(runs))))
        return [
            RunStream(
                self._segments,
                ranges_of(batches[run_of == run]),
                self._pick(run, partitions, maps, cursor),
                ahead=ahead,
            )
            for run in runs
        ]

    def statistics(self) -> Table:
        """Return `tables.STATISTICS`[P] of the frames, by reading the index of every batch."""
        found = np.zeros(self.manifest.partitions, tables.STATISTICS)
        blocks = self.block_sizes((0, self.manifest.partitions))
        for field in ("bytes", "rows"):
            sums = np.zeros(len(found), np.uint64)
            np.add.at(sums, blocks["partition"], blocks[field])
            found[field] = sums
        found["blocks"] = np.bincount(blocks["partition"], minlength=len(found))
        return found

    def block_sizes(self, partitions: tuple[int, int]) -> Table:
        """Return `tables.BLOCK`s of a range, by (partition, map), from the index of batches."""
        parts = [np.empty(0, tables.BLOCK)]
        for columns in self._columns(partitions):
            part = np.empty(len(columns.length), tables.BLOCK)
            part["partition"], part["map"] = columns.partition, columns.map_id
            part["bytes"], part["rows"] = columns.length, columns.rows
            parts.append(part)
        return tables.joined_blocks(np.concatenate(parts))

    def first_piece(self, partition: int, map_id: int) -> tuple[Cursor, memoryview] | None:
        """Return the first piece of a block, and the cursor behind it; None if there is none."""
        found = []
        for stream in self.streams((partition, partition + 1), (map_id, map_id + 1)):
            try:
                while not stream.pending and not stream.ended:
                    stream.advance()
            finally:
                stream.cancel()
            if stream.pending:
                pieces = stream.pending[0]
                start = int(pieces.starts[0])
                data = pieces.data[start : start + int(pieces.columns.length[0])]
                found.append((pieces.columns.cursor_behind(0), data))
        return min(found, key=itemgetter(0)) if found else None

    def _columns(self, partitions: tuple[int, int]) -> Iterator[PieceColumns]:
        batches, run_of = self._batches(partitions, ALL_MAPS)
        fields = batches[["segment", "offset", "pieces"]].tolist()
        heads = [self._segments.submit_head(*each) for each in fields]
        for head, run in zip(heads, run_of.tolist(), strict=True):
            columns = result_of(head)
            which = self._pick(run, partitions, ALL_MAPS, None)(columns)
            yield columns if which is None else columns.take(which)

    def _batches(
        self, partitions: tuple[int, int], maps: tuple[int, int]
    ) -> tuple[Table, npt.NDArray[np.uint32]]:
        """Return the batches of a range, and the run of each."""
        manifest = self.manifest
        batches = manifest.batches[overlapping(manifest.batches, partitions, maps)]
        return batches, manifest.runs[batches["segment"]]

    def _pick(
        self, run: int, partitions: tuple[int, int], maps: tuple[int, int], cursor: Cursor | None
    ) -> Pick:
        """Return what leaves out pieces beyond the ranges, and of frames that others serve."""
        wanted = None
        if run in self._partial:
            frames = self.manifest.frames[self.manifest.sources == run]
            wanted = tables.frame_keys(frames).view("V16")
        return partial(_picked, partitions, maps, cursor, wanted)


def _picked(
    partitions: tuple[int, int],
    maps: tuple[int, int],
    cursor: Cursor | None,
    wanted: npt.NDArray[np.void] | None,
    columns: PieceColumns,
) -> I64 | None:
    chosen = (columns.partition >= partitions[0]) & (columns.partition < partitions[1])
    if maps != ALL_MAPS:
        chosen &= (columns.map_id >= maps[0]) & (columns.map_id < maps[1])
    if cursor is not None:
        chosen &= _not_before(columns, cursor)
    if wanted is not None:
        keys = np.empty(len(chosen), tables.FRAME_KEY)
        keys["map"], keys["attempt"], keys["seq"] = columns.map_id, columns.attempt, columns.seq
        chosen &= np.isin(keys.view("V16"), wanted)
    return None if chosen.all() else np.flatnonzero(chosen)


def _not_before(columns: PieceColumns, cursor: Cursor) -> npt.NDArray[np.bool_]:
    """Return which pieces come at the cursor or after it, in the order of reads."""
    mine: tuple[npt.NDArray[np.unsignedinteger], ...] = (
        columns.partition, columns.map_id, columns.attempt, columns.seq, columns.position,
    )  # fmt: skip
    theirs = (cursor.partition, cursor.map_id, cursor.attempt, cursor.seq, cursor.position)
    after = np.zeros(len(columns.length), bool)
    equal = np.ones(len(after), bool)
    for field, value in zip(mine, theirs, strict=True):
        after |= equal & (field > value)
        equal &= field == value
    return after | equal


def _partial_runs(manifest: Manifest) -> set[int]:
    """Return the runs whose segments have pieces that they do not serve."""
    of_batch = manifest.runs[manifest.batches["segment"]]
    there = np.bincount(of_batch, manifest.batches["pieces"], minlength=len(manifest.frames))
    served = np.bincount(manifest.sources, manifest.frames["pieces"], minlength=len(there))
    return set(np.flatnonzero(there != served[: len(there)]).tolist())
