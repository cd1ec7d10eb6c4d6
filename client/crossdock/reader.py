"""The read side: batches from the workers that serve a view, verified, merged into whole blocks.

Every worker's batches go on in one order, (partition, map, attempt, seq, position), and the
reader merges the workers' streams in it, so a block comes whole wherever its pieces lie. A batch
that breaks off goes on from the byte reached, at its worker or at another with the same frames.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from crossdock.errors import (
    BlocksLost,
    CrossdockError,
    DataCorrupt,
    Missing,
    PlacesUnknown,
    ShuffleUnknown,
    Unavailable,
)
from crossdock.retry import patiently
from crossdock.wire import blocks, crc
from crossdock.wire.blocks import BatchHeader, Cursor, PieceColumns
from crossdock.wire.crc import I64, U32

if TYPE_CHECKING:
    from crossdock.view import Share, View

U64 = npt.NDArray[np.uint64]

_RECEIVE_BYTES: Final = 512 * 1024
_MIN_BATCH_BYTES: Final = 1024 * 1024
_QUICK_TRIES: Final = 2


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
class _Pieces:
    """Verified pieces of one stream, in the order of reads, and the buffer they lie in."""

    columns: PieceColumns
    starts: I64
    data: memoryview

    @classmethod
    def of_batch(cls, columns: PieceColumns, data: memoryview) -> "_Pieces":
        """Put the pieces of a batch, which come by frame, into the order of reads."""
        starts = columns.ends - columns.length
        if (columns.partition[1:] >= columns.partition[:-1]).all():
            return cls(columns, starts, data)
        order = np.argsort(columns.partition, kind="stable")
        return cls(columns.take(order), starts[order], data)

    def __len__(self) -> int:
        return len(self.starts)

    def cut(self, first: int, last: int) -> "_Pieces":
        which = slice(first, last)
        return _Pieces(self.columns.take(which), self.starts[which], self.data)

    def block_key(self, index: int) -> tuple[int, int]:
        return int(self.columns.partition[index]), int(self.columns.map_id[index])

    def below(self, key: tuple[int, int]) -> int:
        """Return how many pieces are of blocks before `key`."""
        low = int(np.searchsorted(self.columns.partition, key[0], side="left"))
        high = int(np.searchsorted(self.columns.partition, key[0], side="right"))
        return low + int(np.searchsorted(self.columns.map_id[low:high], key[1]))


@dataclass(frozen=True, slots=True)
class _Broken:
    """A batch that broke off: what had come of it."""

    columns_crc: int
    data: memoryview
    done: int
    checksum: int


class _Stream:
    """The pieces of one share, batch by batch, the next one fetched ahead."""

    def __init__(
        self,
        reader: "Reader",
        share: "Share",
        cursor: Cursor | None,
    ) -> None:
        self.share = share
        self.pending: deque[_Pieces] = deque()
        self.ended = False
        self.cursor = cursor
        self.broken: _Broken | None = None
        self._reader = reader
        self._ahead: Future[tuple[_Pieces, bool]] | None = None
        self._tries = 0

    def go_on_from(self, other: "_Stream") -> None:
        """Take over the batch that broke off at another holder of the same frames."""
        self.broken = other.broken

    @property
    def last_key(self) -> tuple[int, int] | None:
        """The block of the last piece at hand; the stream may still have more of it."""
        return self.pending[-1].block_key(-1) if self.pending else None

    def prefetch(self) -> None:
        """Begin to fetch the next batch."""
        if self._ahead is None and not self.ended:
            self._ahead = self._reader.view.shuffle.job.cluster.fetchers.submit(self._fetch)

    def advance(self) -> None:
        """Wait for the next batch and take it; begin with the one after.

        Raises what fetching raised; the stream is as it was then, but for what it had reached.
        """
        self.prefetch()
        if self._ahead is None:
            return
        ahead, self._ahead = self._ahead, None
        pieces, self.ended = ahead.result()
        self._tries = 0
        if len(pieces):
            self.pending.append(pieces)
        self.prefetch()

    def cancel(self) -> None:
        """Fetch no more, and wait for what is under way."""
        ahead, self._ahead = self._ahead, None
        self.ended = True
        if ahead is not None and not ahead.cancel():
            ahead.exception()

    def failed(self) -> int:
        """Count a failure in a row; return how many there were."""
        self._tries += 1
        return self._tries

    def _fetch(self) -> tuple[_Pieces, bool]:
        """Fetch the next batch; what came of one that breaks off is kept for the next try."""
        reader = self._reader
        cluster = reader.view.shuffle.job.cluster
        url = cluster.url(self.share.worker)
        broken, self.broken = self.broken, None
        query = reader.query(self.cursor, skip=broken.done if broken else 0)
        with cluster.pool.call("GET", url, f"{self.share.target}/blocks?{query}") as response:
            head = bytearray(blocks.HEADER_BYTES)
            response.read_into(memoryview(head))
            header = BatchHeader.decode(head)
            index = bytearray(header.pieces * blocks.COLUMN_BYTES)
            response.read_into(memoryview(index))
            if crc.extend(0, index) != header.columns_crc:
                raise Unavailable(f"{url}: the index of a batch fails its checksum")
            if broken is None:
                data = np.empty(header.payload_bytes, np.uint8).data
                broken = _Broken(header.columns_crc, data, 0, 0)
            if (broken.columns_crc, broken.done) != (header.columns_crc, header.skip):
                raise Unavailable(f"{url} did not go on where the batch broke off")
            done, checksum, data = broken.done, broken.checksum, broken.data
            try:
                while done < len(data):
                    n = response.read_some(data[done : done + _RECEIVE_BYTES])
                    checksum = crc.extend(checksum, data[done : done + n])
                    done += n
            except Unavailable:
                self.broken = _Broken(header.columns_crc, data, done, checksum)
                raise
        columns = PieceColumns.decode(header.pieces, index)
        if checksum != crc.combined(columns.crc, columns.length):
            self._raise_corrupt(columns, data, url)
        pieces = _Pieces.of_batch(columns, data)
        if len(pieces):
            self.cursor = pieces.columns.cursor_behind(-1)
        return pieces, header.end

    def _raise_corrupt(self, columns: PieceColumns, data: memoryview, where: str) -> None:
        bad = np.flatnonzero(crc.of_pieces(data, columns.length) != columns.crc)
        at = int(bad[0]) if len(bad) else 0
        raise CorruptBlock(
            f"{where}: piece of map {columns.map_id[at]} attempt {columns.attempt[at]} "
            f"partition {columns.partition[at]} fails its checksum",
            map_id=int(columns.map_id[at]),
            attempt=int(columns.attempt[at]),
        )


class CorruptBlock(DataCorrupt):
    """A piece that came damaged from a worker; another copy may be sound."""

    def __init__(self, message: str, *, map_id: int, attempt: int) -> None:
        super().__init__(message)
        self.map_id = map_id
        self.attempt = attempt


class Reader:
    """Reads one range of partitions, which a fixed set of shares serves. Iterate once."""

    def __init__(
        self,
        view: "View",
        shares: Sequence["Share"],
        partitions: tuple[int, int],
        maps: tuple[int, int] | None,
    ) -> None:
        """Use `View.read`."""
        self.view = view
        self.partitions = partitions
        self.maps = maps
        options = view.shuffle.job.cluster.options
        self.batch_bytes = max(
            _MIN_BATCH_BYTES,
            min(options.read_batch_bytes, options.read_ahead_bytes // (2 * len(shares))),
        )
        self._streams = [_Stream(self, share, None) for share in shares]
        first, last = partitions
        self._expected = int(view.bytes[first:last].sum())
        self._yielded = 0

    def __iter__(self) -> Iterator[BlockBatch]:
        """Yield whole blocks until the range is read; then check that it was all."""
        try:
            for stream in self._streams:
                stream.prefetch()
            while self._streams:
                for batch in self._round():
                    self._yielded += batch.nbytes
                    yield batch
        finally:
            for stream in self._streams:
                stream.cancel()
        if self.maps is None and self._yielded != self._expected:
            raise DataCorrupt(
                f"partitions {self.partitions[0]} to {self.partitions[1]} of view {self.view.id} "
                f"have {self._expected} bytes, and {self._yielded} came"
            )

    def query(self, cursor: Cursor | None, *, skip: int) -> str:
        """Return the query of a read from `cursor` on."""
        first, last = self.partitions
        query = f"partitions={first}-{last}&max_bytes={self.batch_bytes}"
        if self.maps is not None:
            query += f"&maps={self.maps[0]}-{self.maps[1]}"
        if cursor is not None:
            query += f"&cursor={cursor}"
        return f"{query}&skip={skip}" if skip else query

    def _round(self) -> list[BlockBatch]:
        """Advance the streams that hold the others up; return the blocks that are whole now."""
        open_ = [s for s in self._streams if not s.ended]
        if open_:
            keys = [s.last_key for s in open_]
            lowest = min((k for k in keys if k is not None), default=None)
            behind = [s for s, k in zip(open_, keys, strict=True) if k is None or k == lowest]
            for stream in behind:
                self._advance(stream)
        open_ = [s for s in self._streams if not s.ended]
        keys = [s.last_key for s in open_]
        if any(k is None for k in keys):
            return []
        frontier = min((k for k in keys if k is not None), default=None)
        taken = [self._take(stream, frontier) for stream in self._streams]
        self._streams = [s for s in self._streams if s.pending or not s.ended]
        return _assemble([pieces for pieces in taken if pieces])

    def _take(self, stream: _Stream, frontier: tuple[int, int] | None) -> list[_Pieces]:
        """Take the pieces of blocks before `frontier` off a stream; all, if it is None."""
        taken = []
        while stream.pending:
            pieces = stream.pending[0]
            n = len(pieces) if frontier is None else pieces.below(frontier)
            if n:
                taken.append(pieces.cut(0, n))
            if n < len(pieces):
                stream.pending[0] = pieces.cut(n, len(pieces))
                break
            stream.pending.popleft()
        return taken

    def _advance(self, stream: _Stream) -> None:
        """Advance a stream; when it fails, go on with other places for what it has left."""
        problem: CrossdockError
        try:
            stream.advance()
        except (Unavailable, PlacesUnknown, ShuffleUnknown) as error:
            problem = error
        except CorruptBlock as error:
            problem = error
        else:
            return
        tries = stream.failed()
        if isinstance(problem, Unavailable) and tries < _QUICK_TRIES:
            return
        avoid = None if isinstance(problem, PlacesUnknown | ShuffleUnknown) else stream.share.worker
        deadline = self.view.shuffle.job.cluster.options.deadline_seconds
        shares = patiently(
            lambda: self.view.reassign(stream.share, avoid=avoid), deadline_seconds=deadline
        )
        if isinstance(problem, CorruptBlock) and any(
            s.worker == stream.share.worker for s in shares
        ):
            why = f"every copy is damaged: {problem.message}"
            raise BlocksLost([Missing(problem.map_id, problem.attempt, why)]) from problem
        self._replace(stream, shares)

    def _replace(self, stream: _Stream, shares: Sequence["Share"]) -> None:
        """Put streams over other places where `stream` was; what it has at hand is kept."""
        stream.cancel()
        fresh = [_Stream(self, share, stream.cursor) for share in shares]
        if len(fresh) == 1:
            fresh[0].go_on_from(stream)
        self._streams += fresh
        for new in fresh:
            new.prefetch()


def _assemble(parts: list[list[_Pieces]]) -> list[BlockBatch]:
    """Make batches of whole blocks of the pieces taken from each stream."""
    if not parts:
        return []
    if len(parts) == 1:
        return _assemble_one(parts[0])
    return [_merge([p for part in parts for p in part])]


def _assemble_one(part: list[_Pieces]) -> list[BlockBatch]:
    """Join one stream's pieces; only the block across two buffers is copied."""
    batches: list[BlockBatch] = []
    carried: list[_Pieces] = []
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


def _in_place(pieces: _Pieces) -> BlockBatch:
    """Make blocks of pieces where they lie, unless a block's pieces lie apart."""
    columns, starts = pieces.columns, pieces.starts
    new = _block_starts(columns)
    adjacent = starts[1:] == starts[:-1] + columns.length[:-1]
    if not (new[1:] | adjacent).all():
        return _merge([pieces])
    return _blocks(columns, starts, new, pieces.data)


def _merge(parts: list[_Pieces]) -> BlockBatch:
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
