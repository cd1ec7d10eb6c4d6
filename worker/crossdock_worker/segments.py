"""What goes into a segment, and its bytes: array work on the index, copies from the mapped log."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from crossdock.errors import ConfigError
from crossdock.store import segment
from crossdock.store.segment import BATCH
from crossdock.wire import blocks, crc
from crossdock.wire.blocks import COLUMN_BYTES, HEADER_BYTES, Cursor, PieceColumns
from crossdock.wire.crc import I64, BytesLike
from crossdock.wire.names import U32_MAX
from crossdock.wire.tables import Table
from crossdock_worker import selection
from crossdock_worker.gather import gather
from crossdock_worker.rows import Snapshot
from crossdock_worker.selection import Selection, contiguous

_MOST_PIECES: Final = 1_000_000
"""Of a segment; planning takes about 150 bytes of memory for each."""
_PER_BATCH: Final = HEADER_BYTES + BATCH.itemsize


class SegmentSource:
    """The bytes of one segment, read from the log in any order (`store.api.Source`)."""

    def __init__(self, snapshot: Snapshot, parts: list["_Part"], footer: bytes) -> None:
        self._snapshot = snapshot
        self._parts = parts
        self._footer = footer
        sizes = [size for part in parts for size in (len(part.head), part.payload_bytes)]
        self._ends = np.cumsum([*sizes, len(footer)], dtype=np.int64)
        self.nbytes = int(self._ends[-1])

    def read_at(self, offset: int, size: int) -> BytesLike:
        """Return `size` bytes from `offset` on."""
        found: list[BytesLike] = []
        at = int(np.searchsorted(self._ends, offset, side="right"))
        while size:
            begin = int(self._ends[at - 1]) if at else 0
            taken = min(size, int(self._ends[at]) - offset)
            if taken:
                found.append(self._slice(at, offset - begin, taken))
            offset, size, at = offset + taken, size - taken, at + 1
        return found[0] if len(found) == 1 else b"".join(found)

    def batches(self) -> Iterator[tuple[bytes, BytesLike]]:
        """Yield head and payload of each batch, in their order."""
        for part in self._parts:
            size = part.payload_bytes
            yield part.head, part.read(self._snapshot, 0, size) if size else b""

    def _slice(self, index: int, start: int, size: int) -> BytesLike:
        if index == 2 * len(self._parts):
            return memoryview(self._footer)[start : start + size]
        part = self._parts[index // 2]
        if index % 2 == 0:
            return memoryview(part.head)[start : start + size]
        return part.read(self._snapshot, start, size)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One batch: its head, and the runs of the log that are its payload."""

    head: bytes
    offsets: I64
    ends: I64
    """Where each run ends within the payload."""

    @property
    def payload_bytes(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def read(self, snapshot: Snapshot, start: int, size: int) -> BytesLike:
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.ends, start + size, side="left")) + 1
        ends = self.ends[first:last]
        begins = np.concatenate((self.ends[first - 1 : first] if first else [0], ends[:-1]))
        low = np.maximum(begins, start)
        lengths = np.minimum(ends, start + size) - low
        offsets = self.offsets[first:last] + (low - begins)
        if len(offsets) == 1:
            return snapshot.payload[offsets[0] : offsets[0] + lengths[0]].data
        return gather(snapshot.payload, offsets, lengths)


@dataclass(frozen=True, slots=True, eq=False)
class SegmentPlan:
    """One segment that is to be written."""

    source: SegmentSource
    batches: Table
    """`segment.BATCH`es with segment 0."""
    members: npt.NDArray[np.bool_]
    """Per frame of the snapshot whether it has pieces here."""
    crc32c: int
    """Of all its bytes: it follows from what the writers said of the pieces, so a log that was
    damaged on this disk does not pass for good."""
    payload_bytes: int
    cursor: Cursor
    """Where the next segment begins."""
    end: bool
    """Whether nothing comes after it."""


def plan(
    snapshot: Snapshot, *, partitions: int, cursor: Cursor | None, segment_bytes: int
) -> SegmentPlan | None:
    """Return the next segment of the frames of a snapshot; None when there is nothing left.

    Args:
        snapshot: frames by (map, attempt, seq).
        partitions: P of the shuffle.
        cursor: the end of the segment before; None at first.
        segment_bytes: no segment is larger.

    Raises:
        ConfigError: a single piece is larger than a segment may be.
    """
    chosen = selection.select(
        snapshot,
        partitions=(0, partitions),
        maps=(0, U32_MAX + 1),
        cursor=cursor,
        max_bytes=segment_bytes,
        most_pieces=_MOST_PIECES,
    )
    if not len(chosen.offsets):
        return None
    order = np.argsort(chosen.columns.partition, kind="stable")
    order = order[: _fitting(chosen, order, segment_bytes)]
    columns, offsets = chosen.columns.take(order), chosen.offsets[order]
    members = np.zeros(len(snapshot.rows), bool)
    members[chosen.frames[order]] = True
    parts, batches = [], []
    at, checksum = 0, 0
    for first, last in segment.cut_batches(columns.partition, columns.length):
        which = slice(first, last)
        part, head_crc = _part(columns.take(which), offsets[which])
        size = len(part.head) + part.payload_bytes
        batches.append(_row(columns, first, last, at, size))
        lengths = np.array([len(part.head), part.payload_bytes])
        payload_crc = crc.combined(columns.crc[which], columns.length[which])
        both = crc.combined(np.array([head_crc, payload_crc], np.uint32), lengths)
        checksum = crc.combined(np.array([checksum, both], np.uint32), np.array([at, size]))
        parts.append(part)
        at += size
    table = np.array(batches, BATCH)
    foot = segment.footer(table)
    made = SegmentSource(snapshot, parts, foot)
    assert made.nbytes <= segment_bytes
    return SegmentPlan(
        made,
        table,
        members,
        crc.extend(checksum, foot),
        int(columns.length.sum(dtype=np.int64)),
        columns.cursor_behind(-1),
        chosen.end and len(order) == len(chosen.offsets),
    )


def _fitting(chosen: Selection, order: I64, segment_bytes: int) -> int:
    """Return how many pieces, in this order, fit with their index."""
    weight = np.cumsum(chosen.columns.length[order], dtype=np.int64)
    pieces = np.arange(1, len(order) + 1)
    # A batch is small only if it has very many pieces, or a large piece comes after it.
    batches = weight // segment.SMALL_BATCH_BYTES + pieces // segment.LARGE_BATCH_PIECES + 2
    batches = np.minimum(batches, pieces)
    total = weight + pieces * COLUMN_BYTES + batches * _PER_BATCH + segment.footer_bytes(0)
    fitting = int(np.searchsorted(total, segment_bytes, side="right"))
    if not fitting:
        raise ConfigError(
            f"a piece of {int(weight[0])} bytes does not fit into a segment of {segment_bytes}",
            hint="raise the worker's --segment-bytes over --max-frame-bytes",
        )
    return fitting


def _part(columns: PieceColumns, offsets: I64) -> tuple[_Part, int]:
    head = blocks.encode_head(columns, end=False, skip=0)
    starts, lengths = contiguous(offsets, columns.length)
    return _Part(head, starts, np.cumsum(lengths)), crc.extend(0, head)


def _row(columns: PieceColumns, first: int, last: int, at: int, size: int) -> tuple[int, ...]:
    maps = columns.map_id[first:last]
    low, high = int(columns.partition[first]), int(columns.partition[last - 1])
    return (0, low, high, int(maps.min()), int(maps.max()), last - first, at, size)
