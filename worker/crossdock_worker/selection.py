"""Which pieces a read takes, and where they lie: array work on the mapped index, nothing else.

The index of a frame is u32[5, n]: partition, length, rows, crc, end. A frame's pieces of a
partition range are found by bisection, for all frames at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from crossdock.wire import tables
from crossdock.wire.blocks import Cursor, PieceColumns
from crossdock.wire.crc import I64, U32
from crossdock.wire.tables import Table
from crossdock_worker.rows import Snapshot

BYTES_PER_PIECE: Final = 40
"""Of memory that the index of an answer takes, and a little for what it is made of."""

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

    budget = _piece_budget(snapshot, max_bytes, most_pieces or _MAX_PIECES)
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
    if (total := int(counts.sum())) > budget:  # one huge partition: its first pieces
        ends = np.cumsum(counts)
        stop = int(np.searchsorted(ends, budget))
        counts[stop] -= int(ends[stop]) - budget  # inside a frame, too: it may be all of them
        counts[stop + 1 :] = 0
        total, complete = budget, False
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
    offsets = rows["payload_at"][frame].astype(np.int64) + index[at + 4 * n] - length
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
    """Return `tables.STATISTICS`[partitions] over all frames of a snapshot, sorted by map."""
    stats = np.zeros(partitions, tables.STATISTICS)
    counted = np.zeros(partitions, bool)  # partitions in which `map_id` has a block already
    map_id = -1
    for blocks in _blocks(snapshot, None):
        for field in ("bytes", "rows"):
            sums = np.zeros(partitions, np.uint64)
            np.add.at(sums, blocks["partition"], blocks[field])
            stats[field] += sums
        new = (blocks["map"] != map_id) | ~counted[blocks["partition"]]
        stats["blocks"] += np.bincount(blocks["partition"][new], minlength=partitions).astype("<u4")
        if int(blocks["map"][-1]) != map_id:
            map_id = int(blocks["map"][-1])
            counted[:] = False
        counted[blocks["partition"][blocks["map"] == map_id]] = True
    return stats


def block_sizes(
    snapshot: Snapshot, partitions: tuple[int, int], *, max_blocks: int
) -> tuple[Table, int]:
    """Return `tables.BLOCK`s of a partition range, by (partition, map), and where to go on.

    Whole partitions: at least one, and then as many as surely have at most `max_blocks`.
    """
    first, last = partitions
    last = _narrowed(snapshot, first, last, max_blocks)
    parts = list(_blocks(snapshot, (first, last)))
    table = np.concatenate(parts) if parts else np.empty(0, tables.BLOCK)
    table = table[np.lexsort((table["map"], table["partition"]))]
    same = (table["map"][1:] == table["map"][:-1]) & (
        table["partition"][1:] == table["partition"][:-1]
    )
    if same.any():  # a block in two parts
        starts = np.flatnonzero(np.concatenate(([True], ~same)))
        whole = table[starts]
        for field in ("bytes", "rows"):
            whole[field] = np.add.reduceat(table[field], starts)
        table = whole
    return table, last


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


def _blocks(snapshot: Snapshot, partitions: tuple[int, int] | None) -> Iterator[Table]:
    """Yield the blocks of a snapshot's frames, sorted by map, from `_MAX_PIECES` pieces at a time.

    A frame may have millions, so they are cut inside frames too. A block may come in several parts;
    those of one map stand in parts that follow each other.
    """
    rows = snapshot.rows[snapshot.rows["pieces"] > 0]
    base = (rows["index_at"] // 4).astype(np.int64)
    count = rows["pieces"].astype(np.int64)
    low, high = np.zeros(len(rows), np.int64), count
    if partitions is not None:
        low = _bisect(snapshot.index, base, count, partitions[0])
        high = _bisect(snapshot.index, base, count, partitions[1])
    ends = np.cumsum(high - low)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _MAX_PIECES):
        stop = min(start + _MAX_PIECES, total)
        first, last = np.searchsorted(ends, start, side="right"), np.searchsorted(ends, stop)
        some = slice(int(first), int(last) + 1)
        begin, end = low[some].copy(), high[some].copy()
        begin[0] = high[first] - (ends[first] - start)
        end[-1] -= ends[last] - stop
        yield _blocks_of(snapshot.index, rows[some], begin, end)


def _blocks_of(index: U32, rows: Table, low: I64, high: I64) -> Table:
    """Return the blocks, by (map, partition), of these pieces of each frame; at least one."""
    base = (rows["index_at"] // 4).astype(np.int64)
    counts = high - low
    frame = np.repeat(np.arange(len(rows)), counts)
    at = base[frame] + np.arange(len(frame)) - np.repeat(np.cumsum(counts) - counts - low, counts)
    n = rows["pieces"].astype(np.int64)[frame]
    key = (rows["map"].astype(np.int64)[frame] << 32) | index[at]
    if (key[1:] < key[:-1]).any():
        order = np.argsort(key, kind="stable")
        key, at, n = key[order], at[order], n[order]
    first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    blocks = np.empty(len(first), tables.BLOCK)
    blocks["partition"], blocks["map"] = key[first] & 0xFFFFFFFF, key[first] >> 32
    blocks["bytes"] = np.add.reduceat(index[at + n].astype(np.uint64), first)
    blocks["rows"] = np.add.reduceat(index[at + 2 * n].astype(np.uint64), first)
    return blocks


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


def answer_bytes(snapshot: Snapshot, max_bytes: int) -> int:
    """Return about how much memory a batch of at most `max_bytes` takes.

    The larger one of payload and index: of ordinary pieces, an index is next to nothing.
    """
    pieces = min(snapshot.pieces, _piece_budget(snapshot, max_bytes, _MAX_PIECES))
    return max(max_bytes, BYTES_PER_PIECE * pieces)


def _piece_budget(snapshot: Snapshot, max_bytes: int, most_pieces: int) -> int:
    """Return how many pieces are worth looking at for one batch of `max_bytes`."""
    mean = snapshot.payload_bytes // max(1, snapshot.pieces)
    wanted = max_bytes // max(1, mean)
    return min(most_pieces, max(_MIN_PIECES, wanted))


def _empty() -> Selection:
    none = np.empty(0, np.uint32)
    columns = PieceColumns(none, none, np.empty(0, np.uint64), none, none, none, none, none)
    nowhere = np.empty(0, np.int64)
    return Selection(columns, nowhere, nowhere, end=True)
