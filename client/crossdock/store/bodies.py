"""Bytes of objects to be, in pieces of bounded size, whatever they come from."""

import io
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Final, cast

from crossdock.store.api import Source
from crossdock.store.errors import ObjectDamaged
from crossdock.wire import crc
from crossdock.wire.crc import BytesLike

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE_BYTES: Final = 2**20
"""Read of a source at once. Larger ones made no put faster and cost memory per request."""


class BufferSource:
    """Bytes in memory as a `Source`."""

    def __init__(self, data: BytesLike) -> None:
        self._view = memoryview(data).cast("B")

    @property
    def nbytes(self) -> int:
        return self._view.nbytes

    def read_at(self, offset: int, size: int) -> memoryview:
        return self._view[offset : offset + size]


class SliceSource:
    """A range of a source, as a source."""

    def __init__(self, source: Source, start: int, nbytes: int) -> None:
        self._source = source
        self._start = start
        self.nbytes = nbytes

    def read_at(self, offset: int, size: int) -> BytesLike:
        return self._source.read_at(self._start + offset, size)


class JoinedSource:
    """A source, and some bytes behind it, as one."""

    def __init__(self, first: Source, last: bytes) -> None:
        self._first = first
        self._last = last
        self.nbytes = first.nbytes + len(last)

    def read_at(self, offset: int, size: int) -> BytesLike:
        split = max(0, min(size, self._first.nbytes - offset))
        begin = max(0, offset - self._first.nbytes)
        last = self._last[begin : begin + size - split]
        if not split:
            return last
        first = self._first.read_at(offset, split)
        return b"".join((first, last)) if last else first


def as_source(body: BytesLike | Source) -> Source:
    """Return what can be read again from any place."""
    return BufferSource(body) if isinstance(body, bytes | bytearray | memoryview) else body


def pieces(source: Source) -> Iterator[BytesLike]:
    """Yield the bytes of a source, at most `PIECE_BYTES` at once.

    Raises:
        ObjectDamaged: the source returned more or fewer bytes than it was asked for.
    """
    for offset in range(0, source.nbytes, PIECE_BYTES):
        yield read_exactly(source, offset, min(PIECE_BYTES, source.nbytes - offset))


def read_exactly(source: Source, offset: int, size: int) -> BytesLike:
    """Return `size` bytes of a source, or raise `ObjectDamaged`."""
    piece = source.read_at(offset, size)
    if len(piece) != size:
        raise ObjectDamaged(
            f"the source of an object has {len(piece)} bytes at {offset}, and should have {size}"
        )
    return piece


def crc_of(source: Source) -> int:
    """Return the CRC32C of all bytes of a source."""
    found = 0
    for piece in pieces(source):
        found = crc.extend(found, piece)
    return found


class BodyFile(io.RawIOBase):
    """A source as the file that botocore wants: it is read, rewound and read again.

    `read` gives whole pieces, often more bytes than asked for. urllib3 asks for 16 KiB at a time
    and sends whatever it gets; a call of Python for each 16 KiB would be half the work of a put.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._at = 0
        self._problem: Exception | None = None

    def __len__(self) -> int:
        return self._source.nbytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self)}[whence]
        self._at = min(max(0, base + offset), len(self))
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Return the next piece; b"" at the end."""
        left = len(self) - self._at
        wanted = left if size < 0 else min(left, max(size, PIECE_BYTES))
        if not wanted:
            return b""
        try:
            piece = read_exactly(self._source, self._at, wanted)
        except Exception as problem:
            self._problem = problem
            raise
        self._at += wanted
        return piece if isinstance(piece, bytes) else memoryview(piece)  # type: ignore[return-value]

    def readinto(self, target: "WriteableBuffer", /) -> int:
        """Fill `target`, where botocore reads so: with the library of AWS's common runtime."""
        view = memoryview(target).cast("B")
        size = min(len(self) - self._at, len(view))
        if size:
            view[:size] = read_exactly(self._source, self._at, size)
            self._at += size
        return size

    def as_io(self) -> IO[bytes] | bytes:
        """Return what to give to botocore; without bytes there is nothing to wait for."""
        return cast("IO[bytes]", self) if self._source.nbytes else b""

    def raise_problem(self, reported: Exception) -> None:
        """Raise what the source failed with, which botocore takes for a broken connection."""
        if self._problem is not None:
            raise self._problem from reported
