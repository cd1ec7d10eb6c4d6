"""The journal: what makes a frame visible, and what a restart replays.

One file per generation of a shuffle, only appended to. A record is

    magic "XDJ1" | kind u16 | body length u16 | crc32c of these, u32
    body | crc32c of all before, u32

A record counts when it is whole. After a crash the last one may be cut short: it was never
acked and is cut off, and the log says so. Anything else that does not read is damage, and is
reported with file and offset; records behind it are not guessed at. The head has a checksum of its
own, since a damaged length must not make what follows look like a record that was cut short.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

import structlog

from crossdock.errors import DataCorrupt, Overloaded
from crossdock.wire import crc
from crossdock_worker.files import disk_error, open_file, writing
from crossdock_worker.rows import ROW

log = structlog.get_logger()

MAGIC: Final = b"XDJ1"
_HEAD: Final = struct.Struct("<4sHHI")
_HEAD_CHECKED_BYTES: Final = _HEAD.size - 4
_TAIL: Final = struct.Struct("<I")
OVERHEAD_BYTES: Final = _HEAD.size + _TAIL.size
SHUFFLE_BYTES: Final = OVERHEAD_BYTES + 4
FRAME_BYTES: Final = OVERHEAD_BYTES + ROW.itemsize
"""The first append is a SHUFFLE and a FRAME record; all others that are acked have one record."""


FREE_KEYS: Final = 512
"""Frames of one record: what a full disk or a crash cuts short is small."""


class Kind(IntEnum):
    """What a record says."""

    SHUFFLE = 1
    """First record: partitions u32."""
    FRAME = 2
    """One row of `rows.ROW`: this frame is visible."""
    ABORT = 3
    """map u32, attempt u64: the attempt is given up, its frames are gone."""
    FREE = 4
    """Up to `FREE_KEYS` of `tables.FRAME_KEY`: these frames are in the store, not here any more.

    The frames themselves, not the run that persisted them: were its record damaged, a replay
    would count frames whose place others have taken.
    """


@dataclass(frozen=True, slots=True)
class Record:
    """A whole record and where it begins."""

    kind: Kind
    body: bytes
    offset: int


def encode(kind: Kind, body: bytes) -> bytes:
    """Return the bytes of a record."""
    head = _HEAD.pack(MAGIC, kind, len(body), 0)[:_HEAD_CHECKED_BYTES]
    data = head + struct.pack("<I", crc.extend(0, head)) + body
    return data + _TAIL.pack(crc.extend(0, data))


class Appender:
    """A journal that is being written. Not thread-safe: its owner locks.

    An append is whole, or the journal is as it was. When what came of one cannot be cut off, no
    further one is taken: behind a fragment, a record would be lost and all of the journal damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = open_file(path, os.O_WRONLY | os.O_APPEND)
        self._torn = False
        self.size = os.fstat(self._fd).st_size
        """Bytes of whole records."""

    def append(self, data: bytes) -> None:
        """Write records, or raise."""
        if self._torn:
            self._cut()
        self._torn = True
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            self._cut()
            raise disk_error(error, str(self._path)) from error
        if written != len(data):
            self._cut()
            raise Overloaded(f"disk full while writing {self._path}")
        self._torn = False
        self.size += len(data)

    def _cut(self) -> None:
        with writing(self._path):
            os.ftruncate(self._fd, self.size)
        self._torn = False

    def sync(self) -> None:
        """Wait until the disk has what was appended. Needs no lock while nobody closes."""
        with writing(self._path):
            os.fdatasync(self._fd)

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        os.close(self._fd)
        self._fd = -1


def replay(path: Path) -> Iterator[Record]:
    """Yield the records of a journal; cut off a torn tail; raise `DataCorrupt` for damage."""
    data = path.read_bytes()
    offset = 0
    while offset < len(data):
        size = _whole_record(data, offset)
        if size is None:
            if _is_torn_tail(data, offset):
                os.truncate(path, offset)
                log.warning("journal was cut", file=str(path), offset=offset,
                            cut_bytes=len(data) - offset)  # fmt: skip
                return
            raise DataCorrupt(
                f"{path} is damaged at offset {offset}",
                hint="nothing of its shuffle is served: read another copy, or run its maps again",
            )
        _, kind, length, _ = _HEAD.unpack_from(data, offset)
        body = data[offset + _HEAD.size : offset + _HEAD.size + length]
        yield Record(Kind(kind), body, offset)
        offset += size


def replay_sound(path: Path) -> tuple[list[Record], DataCorrupt | None]:
    """Return the records up to the first damage, and what `replay` raised for it."""
    records = []
    try:
        for record in replay(path):
            records.append(record)  # noqa: PERF402 -- keeps what came before the damage
    except DataCorrupt as error:
        return records, error
    return records, None


def _whole_record(data: bytes, offset: int) -> int | None:
    """Return the size of the whole, sound record at `offset`, or None."""
    size = _announced_size(data, offset)
    if size is None or offset + size > len(data):
        return None
    (own,) = _TAIL.unpack_from(data, offset + size - _TAIL.size)
    body = memoryview(data)[offset : offset + size - _TAIL.size]
    return size if crc.extend(0, body) == own else None


def _announced_size(data: bytes, offset: int) -> int | None:
    """Return the size that the sound head of a record at `offset` announces, or None."""
    if len(data) - offset < _HEAD.size:
        return None
    magic, kind, length, own = _HEAD.unpack_from(data, offset)
    head = memoryview(data)[offset : offset + _HEAD_CHECKED_BYTES]
    if magic != MAGIC or kind not in set(Kind) or crc.extend(0, head) != own:
        return None
    return OVERHEAD_BYTES + int(length)


def _is_torn_tail(data: bytes, offset: int) -> bool:
    """Whether the rest looks like one append that a crash cut short.

    Short of what its sound head announces, or of a head, or zeros that a file system filled in.
    A full-length record with a wrong checksum is none, nor are as many zeros as one append has:
    it may have been acked.
    """
    rest = data[offset:]
    if not rest.strip(b"\0"):
        return len(rest) < (FRAME_BYTES if offset else SHUFFLE_BYTES + FRAME_BYTES)
    if len(rest) < _HEAD.size:
        return MAGIC.startswith(rest[:4])
    size = _announced_size(data, offset)
    return size is not None and len(rest) < size
