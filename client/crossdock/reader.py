"""The read side: batches from the workers that serve a view, verified, merged into whole blocks.

Every worker's batches go on in one order, (partition, map, attempt, seq, position), and the
reader merges the workers' streams in it, so a block comes whole wherever its pieces lie. A batch
that breaks off goes on from the byte reached, at its worker or at another with the same frames.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from crossdock.blocks import BlockBatch, Pieces
from crossdock.errors import (
    NOT_HERE,
    CorruptBlock,
    CrossdockError,
    DataCorrupt,
    ProtocolError,
    Unavailable,
)
from crossdock.merging import Merge
from crossdock.retry import Patience, patiently
from crossdock.store.frames import ALL_MAPS
from crossdock.store.stream import SegmentLost
from crossdock.threads import result_of
from crossdock.wire import blocks, crc
from crossdock.wire.blocks import BatchHeader, Cursor, PieceColumns

if TYPE_CHECKING:
    from crossdock.view import Share, View

_RECEIVE_BYTES: Final = 256 * 1024
_MIN_BATCH_BYTES: Final = 1024 * 1024
_QUICK_TRIES: Final = 2
_UNEVEN: Final = 17 / 16


@dataclass(frozen=True, slots=True)
class _Broken:
    """A batch that broke off: what had come of it."""

    columns_crc: int
    data: memoryview
    done: int
    checksum: int


def even_batches(expected_bytes: int, *, aim: int, at_most: int) -> int:
    """Return the size of the batches, in bytes, in which a share is best read.

    A small rest costs a round trip like a whole batch: so as many batches as come nearest to
    `aim`, all of about the same size, with some room for pieces that do not fit to the byte.
    """
    batches = max(1, round(expected_bytes / aim))
    even = expected_bytes / batches * _UNEVEN
    return max(_MIN_BATCH_BYTES, min(at_most, int(even) if even > aim / 2 else aim))


class _Stream:
    """The pieces of one share, batch by batch, the next one fetched ahead."""

    def __init__(
        self,
        reader: "Reader",
        share: "Share",
        cursor: Cursor | None,
    ) -> None:
        self.share = share
        self.pending: deque[Pieces] = deque()
        self.ended = False
        self.cursor = cursor
        self.broken: _Broken | None = None
        self.patience: Patience | None = None
        """Since its last failure in a row; handed on to what replaces it."""
        self._reader = reader
        self._ahead: Future[tuple[Pieces, bool]] | None = None
        self._tries = 0

    def go_on_from(self, other: "_Stream") -> None:
        """Take over the batch that broke off at another holder of the same frames."""
        self.broken = other.broken

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
        pieces, self.ended = result_of(ahead)
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

    def _fetch(self) -> tuple[Pieces, bool]:
        """Fetch the next batch, and count it."""
        began = time.monotonic()
        nbytes = None
        try:
            pieces, end = self._fetch_sound()
            nbytes = len(pieces.data)
            return pieces, end
        finally:
            meter = self._reader.view.shuffle.job.cluster.reads
            meter.count(self.share.tier, seconds=time.monotonic() - began, nbytes=nbytes)

    def _fetch_sound(self) -> tuple[Pieces, bool]:
        """Fetch the next batch; what came of one that breaks off is kept for the next try."""
        reader = self._reader
        cluster = reader.view.shuffle.job.cluster
        url = cluster.url(self.share.worker)
        broken = self.broken
        query = reader.query(self.cursor, skip=broken.done if broken else 0)
        with cluster.pool.call("GET", url, f"{self.share.target}/blocks?{query}") as response:
            head = bytearray(blocks.HEADER_BYTES)
            response.read_into(memoryview(head))
            header = BatchHeader.decode(head)
            _check_length(header, response.length, url)
            index = bytearray(header.pieces * blocks.COLUMN_BYTES)
            response.read_into(memoryview(index))
            if crc.extend(0, index) != header.columns_crc:
                raise Unavailable(f"{url}: the index of a batch fails its checksum")
            columns = PieceColumns.decode(header.pieces, index)
            if int(columns.length.sum(dtype=np.int64)) != header.payload_bytes:
                raise ProtocolError(f"{url}: the pieces of a batch do not add up to its payload")
            if broken is None:
                data = cluster.buffers.take(header.payload_bytes)
                broken = _Broken(header.columns_crc, data, 0, 0)
            self.broken = None  # only now: until here a failure leaves what had come as it was
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
        if checksum != crc.combined(columns.crc, columns.length):
            self._raise_corrupt(columns, data, url)
        pieces = Pieces.of_batch(columns, data)
        if len(pieces):
            self.cursor = pieces.columns.cursor_behind(-1)
        return pieces, header.end

    def _raise_corrupt(self, columns: PieceColumns, data: memoryview, where: str) -> None:
        bad = np.flatnonzero(crc.of_pieces(data, columns.length) != columns.crc)
        hurt = columns.take(bad if len(bad) else slice(0, 1))
        fields = (hurt.map_id, hurt.attempt, hurt.seq, hurt.partition)
        frames: dict[tuple[int, int, int], str] = {}
        for m, a, s, p in zip(*(f.tolist() for f in fields), strict=True):  # rare, and few
            why = f"{where}: piece of map {m} attempt {a} partition {p} fails its checksum"
            frames.setdefault((m, a, s), why)
        raise CorruptBlock(next(iter(frames.values())), frames=frames)


class _StoredStream:
    """The pieces of one share that a persist run in the store serves."""

    broken: None = None

    def __init__(self, reader: "Reader", share: "Share", cursor: Cursor | None) -> None:
        assert share.stored is not None
        self.share = share
        runs = share.stored.streams(reader.partitions, reader.maps or ALL_MAPS, cursor)
        self._run = runs[0] if runs else None  # a share is of one run
        self._from = cursor
        self._tries = 0
        self.patience: Patience | None = None
        self.pending: deque[Pieces] = deque() if self._run is None else self._run.pending
        self.ended = self._run is None

    @property
    def cursor(self) -> Cursor | None:
        return self._from if self._run is None else self._run.cursor or self._from

    def prefetch(self) -> None:
        if self._run is not None:
            self._run.prefetch()

    def advance(self) -> None:
        if self._run is not None:
            self._run.advance()
            self.ended = self._run.ended
            self._tries = 0

    def cancel(self) -> None:
        self.ended = True
        if self._run is not None:
            self._run.cancel()

    def failed(self) -> int:
        self._tries += 1
        return self._tries


def _check_length(header: BatchHeader, nbytes: int, where: str) -> None:
    """Raise `ProtocolError` unless an answer of `nbytes` is what its header says."""
    index_bytes = header.pieces * blocks.COLUMN_BYTES
    said = blocks.HEADER_BYTES + index_bytes + header.payload_bytes - header.skip
    if header.skip > header.payload_bytes or nbytes != said:
        raise ProtocolError(f"{where}: a batch of {said} bytes came in an answer of {nbytes}")


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
        first, last = partitions
        self.batch_bytes = even_batches(
            int(view.bytes[first:last].sum()) // len(shares),
            aim=options.read_batch_bytes,
            at_most=options.read_ahead_bytes // (2 * len(shares)),
        )
        self._merge = Merge([self._stream(share, None) for share in shares], self._advance)
        self._damaged: dict[str, dict[tuple[int, int, int], str]] = {}

    def __iter__(self) -> Iterator[BlockBatch]:
        """Yield whole blocks until the range is read. Whether it was all is the view's to check."""
        try:
            for stream in self._merge.streams:
                stream.prefetch()
            while self._merge.streams:
                yield from self._merge.round()
        finally:
            for stream in self._merge.streams:
                stream.cancel()

    def _stream(self, share: "Share", cursor: Cursor | None) -> "_Stream | _StoredStream":
        kind = _Stream if share.stored is None else _StoredStream
        return kind(self, share, cursor)

    def query(self, cursor: Cursor | None, *, skip: int) -> str:
        """Return the query of a read from `cursor` on."""
        first, last = self.partitions
        query = f"partitions={first}-{last}&max_bytes={self.batch_bytes}"
        if self.maps is not None:
            query += f"&maps={self.maps[0]}-{self.maps[1]}"
        if cursor is not None:
            query += f"&cursor={cursor}"
        return f"{query}&skip={skip}" if skip else query

    def _advance(self, stream: _Stream | _StoredStream) -> None:
        """Advance a stream; when it fails, go on with other places for what it has left."""
        problem: CrossdockError
        try:
            stream.advance()
        except (Unavailable, DataCorrupt, SegmentLost, *NOT_HERE) as error:
            problem = error
        except CrossdockError as error:
            if type(error) is not CrossdockError:
                raise
            problem = error  # a worker that fails by itself: others may do better
        else:
            stream.patience = None
            return
        self._be_patient(stream, problem)
        tries = stream.failed()
        again = isinstance(stream, _Stream) and tries < _QUICK_TRIES
        if isinstance(problem, Unavailable) and again:
            return
        worker = stream.share.worker
        if isinstance(problem, CorruptBlock | SegmentLost):
            self._damaged.setdefault(worker, {}).update(problem.frames)
        avoid = None if isinstance(problem, NOT_HERE) else worker
        deadline = self.view.shuffle.job.cluster.options.deadline_seconds
        shares = patiently(
            lambda: self.view.reassign(stream.share, avoid=avoid, damaged=self._damaged),
            deadline_seconds=deadline,
        )
        self._replace(stream, shares)

    def _be_patient(self, stream: _Stream | _StoredStream, problem: CrossdockError) -> None:
        """Wait a little after a failure; raise it when nothing has come until the deadline."""
        if stream.patience is None:
            deadline = self.view.shuffle.job.cluster.options.deadline_seconds
            stream.patience = Patience(deadline)
        stream.patience.wait_after(problem)

    def _replace(self, stream: _Stream | _StoredStream, shares: Sequence["Share"]) -> None:
        """Put streams over other places where `stream` was; what it has at hand is kept."""
        stream.cancel()
        fresh = [self._stream(share, stream.cursor) for share in shares]
        if len(fresh) == 1 and isinstance(fresh[0], _Stream) and isinstance(stream, _Stream):
            fresh[0].go_on_from(stream)
        self._merge.streams += fresh
        for new in fresh:
            new.patience = stream.patience
            new.prefetch()
