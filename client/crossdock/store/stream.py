"""One run's pieces, straight from its segments: few ranged requests, several under way at once."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from crossdock.blocks import Pieces
from crossdock.errors import BlocksLost, ConfigError, CorruptBlock, Missing, ProtocolError
from crossdock.statistics import Tier
from crossdock.store.access import Access
from crossdock.store.errors import ObjectDamaged, ObjectMissing
from crossdock.store.manifest import Manifest
from crossdock.store.receiving import receive
from crossdock.store.records import SegmentInfo
from crossdock.threads import result_of
from crossdock.wire import crc, tables
from crossdock.wire.blocks import (
    COLUMN_BYTES,
    HEADER_BYTES,
    BatchHeader,
    Cursor,
    PieceColumns,
)
from crossdock.wire.crc import I64
from crossdock.wire.tables import Table

RANGE_BYTES: Final = 16 * 2**20
"""Batches that lie one behind the other are asked for together up to this size."""


@dataclass(frozen=True, slots=True, eq=False)
class Range:
    """Batches that lie one behind the other in a segment."""

    segment: int
    start: int
    sizes: tuple[int, ...]
    """Bytes of each batch."""

    @property
    def nbytes(self) -> int:
        return sum(self.sizes)


def ranges_of(batches: Table, *, at_most: int = RANGE_BYTES) -> list[Range]:
    """Group `segment.BATCH`es, in their order, into ranges of at most about `at_most` bytes."""
    ranges: list[Range] = []
    group: list[int] = []
    begin = (-1, 0)
    end = (-1, 0)
    for segment, offset, nbytes in batches[["segment", "offset", "nbytes"]].tolist():
        if group and ((segment, offset) != end or sum(group) + nbytes > at_most):
            ranges.append(Range(begin[0], begin[1], tuple(group)))
            group = []
        if not group:
            begin = (segment, offset)
        group.append(nbytes)
        end = (segment, offset + nbytes)
    if group:
        ranges.append(Range(begin[0], begin[1], tuple(group)))
    return ranges


Pick = Callable[[PieceColumns], I64 | None]
"""Returns which pieces of a batch are wanted, rising; None for all."""


class SegmentLost(BlocksLost):
    """A segment is gone; `frames` are those that had pieces in it."""

    def __init__(self, frames: Table, why: str) -> None:
        pairs = sorted({(int(f["map"]), int(f["attempt"])) for f in frames})
        super().__init__([Missing(m, a, why) for m, a in pairs])
        keys = tables.frame_keys(frames).tolist()
        self.frames: dict[tuple[int, int, int], str] = dict.fromkeys(keys, why)


class Segments:
    """Reads ranges of a manifest's segments, verified. Thread-safe."""

    def __init__(self, access: Access, manifest: Manifest) -> None:
        self._access = access
        self._manifest = manifest

    def submit(self, wanted: Range, pick: Pick) -> Future[list[Pieces]]:
        """Have a thread read a range."""
        return self._access.threads.submit(self._fetch, wanted, pick)

    def submit_head(self, segment: int, start: int, pieces: int) -> Future[PieceColumns]:
        """Have a thread read the index of one batch."""
        return self._access.threads.submit(self._fetch_head, segment, start, pieces)

    def _fetch_head(self, number: int, start: int, pieces: int) -> PieceColumns:
        segment = self._manifest.segments[number]
        kept = self._access.heads.get((segment.key, start))
        if kept is not None:
            return kept
        nbytes = HEADER_BYTES + pieces * COLUMN_BYTES
        try:
            data = self._receive(segment, start, nbytes)
        except ObjectMissing as error:
            raise self._lost(number, f"{segment.key} is gone") from error
        found = _decode_head(data, f"{segment.key} at offset {start}")[1]
        self._access.heads.put((segment.key, start), found, nbytes)
        return found

    def _fetch(self, wanted: Range, pick: Pick) -> list[Pieces]:
        """Read a range, and count it."""
        began = time.monotonic()
        nbytes = None
        try:
            found = self._fetch_sound(wanted, pick)
            nbytes = wanted.nbytes
            return found
        finally:
            seconds = time.monotonic() - began
            self._access.meter.count(Tier.STORE, seconds=seconds, nbytes=nbytes)

    def _fetch_sound(self, wanted: Range, pick: Pick) -> list[Pieces]:
        """Read a range; what fails its checksum once is read once more.

        Raises:
            SegmentLost: it is gone.
            CorruptBlock: a piece is damaged in the store.
            StoreUnavailable: the store is, until the deadline.
        """
        segment = self._manifest.segments[wanted.segment]
        for last_try in (False, True):
            try:
                data = self._receive(segment, wanted.start, wanted.nbytes)
                return self._decode(segment, wanted, data, pick)
            except ObjectMissing as error:
                raise self._lost(wanted.segment, f"{segment.key} is gone") from error
            except (CorruptBlock, ObjectDamaged):
                if last_try:
                    raise
        raise AssertionError

    def _receive(self, segment: SegmentInfo, start: int, nbytes: int) -> memoryview:
        return receive(self._access, segment.key, start, nbytes, etag=segment.etag)

    def _decode(
        self, segment: SegmentInfo, wanted: Range, data: memoryview, pick: Pick
    ) -> list[Pieces]:
        found = []
        at = 0
        for size in wanted.sizes:
            where = f"{segment.key} at offset {wanted.start + at}"
            pieces = self._decode_batch(data[at : at + size], where, wanted.start + at, segment)
            which = pick(pieces.columns)
            if which is not None:
                pieces = Pieces(pieces.columns.take(which), pieces.starts[which], pieces.data)
            if len(pieces):
                found.append(pieces)
            at += size
        return found

    def _decode_batch(
        self, batch: memoryview, where: str, offset: int, segment: SegmentInfo
    ) -> Pieces:
        header, columns = _decode_head(batch, where)
        begin = HEADER_BYTES + header.pieces * COLUMN_BYTES
        payload = batch[begin:]
        if header.zstd:
            payload = _inflated(columns, payload, header.payload_bytes, segment.key, offset + begin)
        if len(payload) != header.payload_bytes:
            raise ObjectDamaged(f"{where}: a batch is longer or shorter than it says")
        if crc.extend(0, payload) != crc.combined(columns.crc, columns.length):
            raise _corrupt(columns, payload, segment.key, offset + begin)
        return Pieces.of_batch(columns, payload)

    def _lost(self, segment: int, why: str) -> SegmentLost:
        return SegmentLost(self._manifest.frames[self._manifest.members[segment]], why)


def _decode_head(batch: memoryview, where: str) -> tuple[BatchHeader, PieceColumns]:
    """Read header and index of a batch that begins here."""
    try:
        header = BatchHeader.decode(batch[:HEADER_BYTES])
    except ProtocolError as error:
        raise ObjectDamaged(f"{where}: {error}") from error
    index = batch[HEADER_BYTES : HEADER_BYTES + header.pieces * COLUMN_BYTES]
    if crc.extend(0, index) != header.columns_crc:
        raise ObjectDamaged(f"{where}: the index of a batch fails its checksum")
    return header, PieceColumns.decode(header.pieces, index)


def _inflated(
    columns: PieceColumns, packed: memoryview, nbytes: int, key: str, offset: int
) -> memoryview:
    """Return a compressed payload as its writers sent it; damaged, all of its pieces are."""
    try:
        import pyarrow as pa  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise ConfigError(
            f"{key} is compressed, and to read it needs pyarrow",
            hint="pip install 'crossdock[arrow]'",
        ) from error
    try:
        return memoryview(pa.decompress(packed, nbytes, codec="zstd"))
    except (OSError, pa.ArrowException) as error:
        why = f"{key} at offset {offset}: a compressed batch is damaged: {error}"
        pieces = zip(columns.map_id, columns.attempt, columns.seq, strict=True)
        frames = {(int(m), int(a), int(s)): why for m, a, s in pieces}
        maps = sorted({m for m, _, _ in frames})
        low, high = int(columns.partition[0]), int(columns.partition[-1])
        raise CorruptBlock(
            f"{why}; partitions {low} to {high}, maps {maps}", frames=frames
        ) from error


def _corrupt(columns: PieceColumns, payload: memoryview, key: str, offset: int) -> CorruptBlock:
    """Name the pieces that are damaged, and where in which object."""
    bad = np.flatnonzero(crc.of_pieces(payload, columns.length) != columns.crc)
    begins = (columns.ends - columns.length)[bad]
    hurt = columns.take(bad)
    fields = (hurt.map_id, hurt.attempt, hurt.seq, hurt.partition, begins)
    frames: dict[tuple[int, int, int], str] = {}
    for m, a, s, p, at in zip(*(f.tolist() for f in fields), strict=True):  # rare, and few
        piece = f"piece of map {m} attempt {a} partition {p}"
        why = f"{key} at offset {offset + at}: {piece} is damaged"
        frames.setdefault((m, a, s), why)
    return CorruptBlock("; ".join(list(frames.values())[:3]), frames=frames)


class RunStream:
    """The pieces of one run that a read wants (`merging.PieceStream`)."""

    def __init__(
        self,
        segments: Segments,
        ranges: list[Range],
        pick: Pick,
        *,
        ahead: int,
    ) -> None:
        """Make one.

        Args:
            segments: where they are read.
            ranges: in the order of pieces.
            pick: which pieces are wanted.
            ahead: ranges under way or waiting at once.
        """
        self.pending: deque[Pieces] = deque()
        self.ended = not ranges
        self.cursor: Cursor | None = None
        """Where to go on elsewhere: behind the last piece that came."""
        self._segments = segments
        self._pick = pick
        self._left = iter(ranges)
        self._under_way: deque[Future[list[Pieces]]] = deque()
        self._ahead = ahead

    def prefetch(self) -> None:
        """Begin to fetch as many ranges as may be under way."""
        for wanted in islice(self._left, self._ahead - len(self._under_way)):
            self._under_way.append(self._segments.submit(wanted, self._pick))

    def advance(self) -> None:
        """Wait for the next range."""
        self.prefetch()
        if not self._under_way:
            self.ended = True
            return
        pieces = result_of(self._under_way.popleft())
        self.pending.extend(pieces)
        if pieces:
            self.cursor = pieces[-1].columns.cursor_behind(-1)
        self.prefetch()
        self.ended = not self._under_way

    def cancel(self) -> None:
        """Fetch no more, and wait for what is under way."""
        self.ended = True
        self._left = iter(())
        while self._under_way:
            ahead = self._under_way.popleft()
            if not ahead.cancel():
                ahead.exception()
