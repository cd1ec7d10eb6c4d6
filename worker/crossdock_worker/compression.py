"""Segments whose batches are compressed where it pays, for clients that did not compress.

Its length is known only once it is made, and a PUT of known length is one request where parts are
several. So a segment is made in a nameless file beside the logs, and sent from there: memory stays
at a batch, and a PUT can be tried again.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import structlog

from crossdock.errors import DataCorrupt
from crossdock.store import segment
from crossdock.store.api import Source
from crossdock.wire import crc
from crossdock.wire.blocks import HEADER_BYTES, BatchHeader, PieceColumns
from crossdock.wire.crc import BytesLike
from crossdock.wire.tables import Table
from crossdock_worker.segments import SegmentPlan

log = structlog.get_logger()

_LEVEL: Final = 1
_WORTH: Final = 0.9
"""A batch that does not shrink to this share stays as it is: reading it is cheaper so."""


class FileSource:
    """A file as a source (`store.api.Source`)."""

    def __init__(self, file: BinaryIO, nbytes: int) -> None:
        self._file = file
        self.nbytes = nbytes

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes of it; from any thread."""
        return os.pread(self._file.fileno(), size, offset)


@dataclass(frozen=True, slots=True, eq=False)
class Outgoing:
    """A segment as it is sent."""

    source: Source
    batches: Table
    """`segment.BATCH`es, where they lie in it."""
    crc32c: int


@contextmanager
def outgoing(plan: SegmentPlan, directory: Path | None) -> Iterator[Outgoing]:
    """Yield a segment as it is sent, for the length of the block.

    Args:
        plan: what is in it.
        directory: where there is room to compress it; None: it goes as it is. So it does when the
            disk takes no more: it is being persisted to make room.

    Raises:
        DataCorrupt: a batch is not what the writers sent.
    """
    plain = Outgoing(plan.source, plan.batches, plan.crc32c)
    if directory is None:
        yield plain
        return
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        try:
            packed = _compressed(plan, file)
        except OSError as error:
            log.warning("a segment is sent as it is", problem=str(error))
            packed = plain
        yield packed


def _compressed(plan: SegmentPlan, file: BinaryIO) -> Outgoing:
    batches = plan.batches.copy()
    at, checksum = 0, 0
    for row, (head, payload) in zip(batches, plan.source.batches(), strict=True):
        parts = _packed(head, payload)
        row["offset"], row["nbytes"] = at, sum(map(len, parts))
        for data in parts:
            checksum = crc.extend(checksum, data)
            at += _write(file, data)
    foot = segment.footer(batches)
    size = at + _write(file, foot)
    return Outgoing(FileSource(file, size), batches, crc.extend(checksum, foot))


def _packed(head: bytes, payload: BytesLike) -> tuple[bytes, BytesLike]:
    """Return head and payload of a batch, compressed if that pays."""
    header = BatchHeader.decode(head[:HEADER_BYTES])
    columns = PieceColumns.decode(header.pieces, head[HEADER_BYTES:])
    if crc.extend(0, payload) != crc.combined(columns.crc, columns.length):
        # Compressed, nobody could tell which piece it is.
        maps = sorted(set(columns.map_id.tolist()))
        raise DataCorrupt(f"a block of the maps {maps[0]} to {maps[-1]} is not what was sent")
    packed = pa.Codec("zstd", compression_level=_LEVEL).compress(payload, asbytes=True)
    if len(packed) > _WORTH * len(payload):
        return head, payload
    return replace(header, zstd=True).encode() + head[HEADER_BYTES:], packed


def _write(file: BinaryIO, data: BytesLike) -> int:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    return len(data)
