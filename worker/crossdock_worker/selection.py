"""Which pieces a read takes, and where they lie: array work on the mapped index, nothing else.

The index of a frame is u32[5, n]: partition, length, rows, crc, end. A frame's pieces of a
partition range are found by bisection, for all frames at once.
"""

from dataclasses import dataclass

import numpy as np

from crossdock.wire import tables
from crossdock.wire.blocks import Cursor, PieceColumns
from crossdock.wire.crc import I64, U32
from crossdock.wire.tables import Table
from crossdock_worker.rows import Snapshot

_MAX_PIECES = 262_144
_MIN_PIECES = 4_096


@dataclass(frozen=True, slots=True)
class Selection:
    """One batch of a read, in the order of frames and of positions within them."""

    columns: PieceColumns
    offsets: I64
    """Where each piece begins in the payload log."""
    frames: I64
    """Which row of the snapshot each piece is of."""
    end: bool
    """Whether nothing of the range comes after."""

    def runs(self, skip: int = 0) -> tuple[I64, I64]:
        """Return (offset, length) of the contiguous stretches of the payload log, in order.

        Args:
            skip: bytes at the beginning of the batch to leave out.
        """
        starts, length = contiguous(self.offsets, self.columns.length)
        if skip:
            ends = np.cumsum(length)
            whole = int(np.searchsorted(ends, skip, side="right"))
            starts, length, ends = starts[whole:].copy(), length[whole:].copy(), ends[whole:]
            if len(ends):
                cut = int(length[0] - (ends[0] - skip))
                starts[0] += cut
                length[0] -= cut
        return starts, length


def contiguous(offsets: I64, lengths: U32) -> tuple[I64, I64]:
    """Join pieces that lie one behind the other; return (offset, length) of what is left."""
    length = lengths.astype(np.int64)
    keep = length > 0
    starts, length = offsets[keep], length[keep]
    new = np.ones(len(starts), bool)
    new[1:] = starts[1:] != starts[:-1] + length[:-1]
    first = np.flatnonzero(new)
    return starts[first], np.add.reduceat(length, first) if len(first) else length


def select(
    snapshot: Snapshot,
    *,
    partitions: tuple[int, int],
    maps: tuple[int, int],
    cursor: Cursor | None,
    max_bytes: int,
    most_pieces: int | None = None,
) -> Selection:
    """Return the first batch of at most `max_bytes` (at least one piece) of a range.

    Args:
        snapshot: frames by (map, attempt, seq).
        partitions: half open.
        maps: half open, by map id.
        cursor: where to begin; None: at the range's beginning.
        max_bytes: bound on the payload.
        most_pieces: bound on the pieces looked at; None: what suits an answer.

    The batch takes pieces by (partition, map, attempt, seq, position), and has them by frame:
    of each frame's pieces of neighbouring partitions one run, where the other order has many.
    """
    rows = snapshot.rows
    taken = np.flatnonzero(
        (rows["map"] >= maps[0]) & (rows["map"] < maps[1]) & (rows["pieces"] > 0)
    )
    rows = rows[taken]
    first, last = partitions
    if cursor is not None:
        first = max(first, cursor.partition)
    if not len(rows) or first >= last:
        return _empty()
    base = (rows["index_at"] // 4).astype(np.int64)
    count = rows["pieces"].astype(np.int64)
    index = snapshot.index
    low = _bisect(index, base, count, first)
    if cursor is not None and cursor.partition == first:
        low = _skip_to(index, rows, base, count, low=low, cursor=cursor)

    budget = _piece_budget(rows, max_bytes, most_pieces or _MAX_PIECES)
    high = _bisect(index, base, count, last)
    left = low < high
    if not left.any():
        return _empty()
    # Begin where there are pieces: a range narrowed to empty partitions would look like the end.
    first = int(index[(base + low)[left]].min())
    complete = True
    while last - first > 1 and (total := int((high - low).sum())) > budget:
        last = first + max(1, (last - first) * budget // total)
        high = _bisect(index, base, count, last)
        complete = False
    counts = high - low
    if (total := int(counts.sum())) > budget:  # one huge partition: a prefix of its frames
        stop = int(np.searchsorted(np.cumsum(counts), budget)) + 1
        complete = complete and int(counts[stop:].sum()) == 0
        counts[stop:] = 0
        total = int(counts.sum())
    if not total:
        return _empty()
    frame = np.repeat(np.arange(len(rows)), counts)
    position = np.arange(total) - np.repeat(np.cumsum(counts) - counts - low, counts)
    at = base[frame] + position
    n = count[frame]
    length = index[at + n]
    if int(length.sum(dtype=np.int64)) > max_bytes:
        kept = _fitting(index[at], length, max_bytes)
        complete = complete and len(kept) == total
        frame, position, at, n, length = (
            frame[kept],
            position[kept],
            at[kept],
            n[kept],
            length[kept],
        )
    columns = PieceColumns(
        partition=index[at],
        map_id=rows["map"][frame],
        attempt=rows["attempt"][frame],
        seq=rows["seq"][frame],
        position=position.astype(np.uint32),
        length=length,
        rows=index[at + 2 * n],
        crc=index[at + 3 * n],
    )
    ends = index[at + 4 * n].astype(np.int64)
    offsets = rows["payload_at"][frame].astype(np.int64) + ends - length
    return Selection(columns, offsets, taken[frame], complete)


def _fitting(partition: U32, length: U32, max_bytes: int) -> I64:
    """Return which pieces are in a batch of at most `max_bytes`, at least one.

    By partition first, as reads go on; the answer is in the order of the arguments.
    """
    order = np.argsort(partition, kind="stable")
    taken = np.cumsum(length[order], dtype=np.int64)
    keep = max(1, int(np.searchsorted(taken, max_bytes, side="right")))
    return np.sort(order[:keep])


def statistics(snapshot: Snapshot, partitions: int) -> Table:
    """Return `tables.STATISTICS`[partitions] over all frames of a snapshot."""
    stats = np.zeros(partitions, tables.STATISTICS)
    for chunk in _chunks(snapshot.rows):
        blocks = _blocks_of(snapshot, chunk, None)
        for field in ("bytes", "rows"):
            sums = np.zeros(partitions, np.uint64)
            np.add.at(sums, blocks["partition"], blocks[field])
            stats[field] += sums
        stats["blocks"] += np.bincount(blocks["partition"], minlength=partitions).astype("<u4")
    return stats


def block_sizes(
    snapshot: Snapshot, partitions: tuple[int, int], *, max_blocks: int
) -> tuple[Table, int]:
    """Return `tables.BLOCK`s of a partition range, by (partition, map), and where to go on.

    Whole partitions: at least one, and then as many as surely have at most `max_blocks`.
    """
    first, last = partitions
    last = _narrowed(snapshot, first, last, max_blocks)
    parts = [_blocks_of(snapshot, chunk, (first, last)) for chunk in _chunks(snapshot.rows)]
    table = np.concatenate(parts) if parts else np.empty(0, tables.BLOCK)
    return table[np.lexsort((table["map"], table["partition"]))], last


def _narrowed(snapshot: Snapshot, first: int, last: int, max_pieces: int) -> int:
    """Return the end of a range from `first` on that has at most `max_pieces`, or one partition."""
    rows = snapshot.rows[snapshot.rows["pieces"] > 0]
    base = (rows["index_at"] // 4).astype(np.int64)
    count = rows["pieces"].astype(np.int64)
    low = _bisect(snapshot.index, base, count, first)
    while last - first > 1:
        total = int((_bisect(snapshot.index, base, count, last) - low).sum())
        if total <= max_pieces:
            break
        last = first + max(1, (last - first) * max_pieces // total)
    return last


def _blocks_of(snapshot: Snapshot, rows: Table, partitions: tuple[int, int] | None) -> Table:
    """Return the blocks of frames that hold all frames of their maps."""
    rows = rows[rows["pieces"] > 0]
    base = (rows["index_at"] // 4).astype(np.int64)
    count = rows["pieces"].astype(np.int64)
    low, high = np.zeros(len(rows), np.int64), count
    if partitions is not None:
        low = _bisect(snapshot.index, base, count, partitions[0])
        high = _bisect(snapshot.index, base, count, partitions[1])
    counts = high - low
    frame = np.repeat(np.arange(len(rows)), counts)
    at = base[frame] + np.arange(len(frame)) - np.repeat(np.cumsum(counts) - counts - low, counts)
    n = count[frame]
    partition = snapshot.index[at].astype(np.int64)
    map_id = rows["map"][frame].astype(np.int64)
    key = (map_id << 32) | partition
    if (key[1:] < key[:-1]).any():
        order = np.argsort(key, kind="stable")
        key, at, n = key[order], at[order], n[order]
    first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1]))) if len(key) else key
    blocks = np.empty(len(first), tables.BLOCK)
    blocks["partition"], blocks["map"] = key[first] & 0xFFFFFFFF, key[first] >> 32
    if len(first):
        blocks["bytes"] = np.add.reduceat(snapshot.index[at + n].astype(np.uint64), first)
        blocks["rows"] = np.add.reduceat(snapshot.index[at + 2 * n].astype(np.uint64), first)
    return blocks


def _chunks(rows: Table) -> list[Table]:
    """Split frames, at map boundaries, into parts of about `_MAX_PIECES` pieces."""
    if not len(rows):
        return []
    ends = np.cumsum(rows["pieces"], dtype=np.int64)
    chunk = ends // _MAX_PIECES
    new_map = np.ones(len(rows), bool)
    new_map[1:] = rows["map"][1:] != rows["map"][:-1]
    first_of_map = np.maximum.accumulate(np.where(new_map, np.arange(len(rows)), 0))
    chunk = chunk[first_of_map]
    return np.split(rows, np.flatnonzero(chunk[1:] != chunk[:-1]) + 1)


def _bisect(index: U32, base: I64, count: I64, partition: int) -> I64:
    """Return, per frame, how many of its pieces are of partitions below `partition`."""
    low, high = np.zeros(len(base), np.int64), count.copy()
    if partition <= 0:
        return low
    while (open_ := low < high).any():
        middle = (low + high) >> 1
        # Closed frames may point one past their pieces: any readable place will do for them.
        below = index[base + np.where(open_, middle, 0)] < partition
        low = np.where(open_ & below, middle + 1, low)
        high = np.where(open_ & ~below, middle, high)
    return low


def _skip_to(index: U32, rows: Table, base: I64, count: I64, *, low: I64, cursor: Cursor) -> I64:
    """Move each frame's start past what lies before the cursor within its partition."""
    after = _bisect(index, base, count, cursor.partition + 1)
    mine = (rows["map"], rows["attempt"], rows["seq"])
    theirs = (cursor.map_id, cursor.attempt, cursor.seq)
    before = np.zeros(len(rows), bool)
    equal = np.ones(len(rows), bool)
    for field, value in zip(mine, theirs, strict=True):
        before |= equal & (field < value)
        equal &= field == value
    low = np.where(before, after, low)
    return np.where(equal, np.clip(cursor.position, low, after), low)


def _piece_budget(rows: Table, max_bytes: int, most_pieces: int) -> int:
    """Return how many pieces are worth looking at for one batch of `max_bytes`."""
    pieces = int(rows["pieces"].sum(dtype=np.int64))
    mean = int(rows["payload_bytes"].sum(dtype=np.uint64)) // max(1, pieces)
    wanted = max_bytes // max(1, mean)
    return min(most_pieces, max(_MIN_PIECES, wanted))


def _empty() -> Selection:
    none = np.empty(0, np.uint32)
    columns = PieceColumns(none, none, np.empty(0, np.uint64), none, none, none, none, none)
    nowhere = np.empty(0, np.int64)
    return Selection(columns, nowhere, nowhere, end=True)
