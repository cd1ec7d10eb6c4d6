"""Pieces become whole blocks: array work on what has been read, wherever the pieces lie."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crossdock.wire.blocks import PieceColumns
from crossdock.wire.crc import I64, U32

U64 = npt.NDArray[np.uint64]


class Block(NamedTuple):
    """All pieces of one (map, partition) of a view, in order."""

    partition: int
    map_id: int
    data: memoryview
    rows: int


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """Many whole blocks, as arrays over one buffer. Iterate for single blocks."""

    partition: U32
    map_id: U32
    rows: U64
    starts: I64
    """Where each block begins in `data`."""
    lengths: I64
    """Bytes of each block."""
    data: memoryview

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.partition)

    def __iter__(self) -> Iterator[Block]:
        """Yield single blocks; their data are views of the batch's."""
        ends = (self.starts + self.lengths).tolist()
        slices = map(self.data.__getitem__, map(slice, self.starts.tolist(), ends))
        return map(
            Block._make,
            zip(
                self.partition.tolist(),
                self.map_id.tolist(),
                slices,
                self.rows.tolist(),
                strict=True,
            ),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return int(self.lengths.sum())


@dataclass(frozen=True, slots=True)
class Pieces:
    """Verified pieces of one stream, in the order of reads, and the buffer they lie in."""

    columns: PieceColumns
    starts: I64
    data: memoryview

    @classmethod
    def of_batch(cls, columns: PieceColumns, data: memoryview) -> "Pieces":
        """Put the pieces of a batch, which come by frame, into the order of reads."""
        starts = columns.ends - columns.length
        if (columns.partition[1:] >= columns.partition[:-1]).all():
            return cls(columns, starts, data)
        order = np.argsort(columns.partition, kind="stable")
        return cls(columns.take(order), starts[order], data)

    def __len__(self) -> int:
        return len(self.starts)

    def cut(self, first: int, last: int) -> "Pieces":
        which = slice(first, last)
        return Pieces(self.columns.take(which), self.starts[which], self.data)

    def block_key(self, index: int) -> tuple[int, int]:
        return int(self.columns.partition[index]), int(self.columns.map_id[index])

    def below(self, key: tuple[int, int]) -> int:
        """Return how many pieces are of blocks before `key`."""
        low = int(np.searchsorted(self.columns.partition, key[0], side="left"))
        high = int(np.searchsorted(self.columns.partition, key[0], side="right"))
        return low + int(np.searchsorted(self.columns.map_id[low:high], key[1]))


def assemble(parts: list[list[Pieces]]) -> list[BlockBatch]:
    """Make batches of whole blocks of the pieces taken from each stream."""
    if not parts:
        return []
    if len(parts) == 1:
        return _assemble_one(parts[0])
    return [_merge([p for part in parts for p in part])]


def _assemble_one(part: list[Pieces]) -> list[BlockBatch]:
    """Join one stream's pieces; only the block across two buffers is copied."""
    batches: list[BlockBatch] = []
    carried: list[Pieces] = []
    for pieces in part:
        rest = pieces
        if carried:
            key = carried[-1].block_key(-1)
            n = rest.below((key[0], key[1] + 1))
            if n:
                carried.append(rest.cut(0, n))
            rest = rest.cut(n, len(rest))
            if len(rest):
                batches.append(_merge(carried))
                carried = []
        if len(rest):
            n = rest.below(rest.block_key(-1))
            if n:
                batches.append(_in_place(rest.cut(0, n)))
            carried.append(rest.cut(n, len(rest)))
    if carried:
        batches.append(_in_place(carried[0]) if len(carried) == 1 else _merge(carried))
    return batches


def _in_place(pieces: Pieces) -> BlockBatch:
    """Make blocks of pieces where they lie, unless a block's pieces lie apart."""
    columns, starts = pieces.columns, pieces.starts
    new = _block_starts(columns)
    adjacent = starts[1:] == starts[:-1] + columns.length[:-1]
    if not (new[1:] | adjacent).all():
        return _merge([pieces])
    return _blocks(columns, starts, new, pieces.data)


def _merge(parts: list[Pieces]) -> BlockBatch:
    """Bring pieces of several buffers into order, copying them together."""
    columns = PieceColumns(
        *(
            np.concatenate([getattr(p.columns, field.name) for p in parts])
            for field in fields(PieceColumns)
        )
    )
    order = np.lexsort(
        (columns.position, columns.seq, columns.attempt, columns.map_id, columns.partition)
    )
    columns = columns.take(order)
    source = np.repeat(np.arange(len(parts)), [len(p) for p in parts])[order]
    starts = np.concatenate([p.starts for p in parts])[order]
    ends = starts + columns.length
    apart = np.ones(len(starts), bool)
    apart[1:] = (source[1:] != source[:-1]) | (starts[1:] != ends[:-1])
    first = np.flatnonzero(apart)
    last = np.append(first[1:], len(starts)) - 1
    runs = zip(source[first].tolist(), starts[first].tolist(), ends[last].tolist(), strict=True)
    data = b"".join(parts[i].data[a:b] for i, a, b in runs)
    return _blocks(columns, columns.ends - columns.length, _block_starts(columns), memoryview(data))


def _block_starts(columns: PieceColumns) -> npt.NDArray[np.bool_]:
    """Return which pieces begin a block."""
    new = np.ones(len(columns.length), bool)
    new[1:] = (columns.partition[1:] != columns.partition[:-1]) | (
        columns.map_id[1:] != columns.map_id[:-1]
    )
    return new


def _blocks(
    columns: PieceColumns, starts: I64, new: npt.NDArray[np.bool_], data: memoryview
) -> BlockBatch:
    """Group pieces, each block's back to back in `data`, into blocks."""
    first = np.flatnonzero(new)
    return BlockBatch(
        columns.partition[first],
        columns.map_id[first],
        np.add.reduceat(columns.rows.astype(np.uint64), first),
        starts[first],
        np.add.reduceat(columns.length.astype(np.int64), first),
        data,
    )
