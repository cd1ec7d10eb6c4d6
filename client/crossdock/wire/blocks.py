"""The answer to a read: one batch of pieces with their index. docs/protocol.md, "Reads".

    header   64 bytes, little-endian, ending in its own CRC32C
    columns  partition u32[n], map u32[n], attempt u64[n], seq u32[n], position u32[n],
             length u32[n], rows u32[n], crc32c u32[n]
    payload  the pieces back to back, in the order of the columns

A read goes on by (partition, map, attempt, seq, position); `position` counts pieces within their
frame. A batch has the next pieces in that order, up to the reader's or the worker's bound; inside
the batch they stand by (map, attempt, seq, position), as they lie in their frames, so sorting
them by partition (stably) restores the order of the read. The cursor behind its last piece says
where to go on. A batch that broke off is asked for again with `skip`, the payload bytes that came.
"""

import struct
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from crossdock.errors import ProtocolError
from crossdock.wire import crc
from crossdock.wire.crc import I64, U32, BytesLike
from crossdock.wire.names import U32_MAX, U64_MAX

MAGIC: Final = b"XDB1"
COLUMN_BYTES: Final = 36

_END: Final = 1
_ZSTD: Final = 2
# magic, flags, pieces, columns crc, payload bytes, skip, 28 reserved, header crc
_HEADER: Final = struct.Struct("<4sIIIQQ28xI")
HEADER_BYTES: Final = _HEADER.size


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the order of a read: the first piece that the reader does not have."""

    partition: int
    map_id: int
    attempt: int
    seq: int
    position: int

    def __str__(self) -> str:
        fields = (self.partition, self.map_id, self.attempt, self.seq, self.position)
        return ".".join(map(str, fields))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "partition.map.attempt.seq.position"."""
        parts = text.split(".")
        tops = (U32_MAX, U32_MAX, U64_MAX, U32_MAX, U32_MAX + 1)
        digits = all(p.isascii() and p.isdigit() and len(p) <= 20 for p in parts)
        fields = [int(p) for p in parts] if digits and len(parts) == len(tops) else []
        if not fields or any(f > top for f, top in zip(fields, tops, strict=True)):
            raise ProtocolError(
                f"cursor {text!r} is not one", hint="partition.map.attempt.seq.position"
            )
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class PieceColumns:
    """The index of a batch, one entry a piece."""

    partition: U32
    map_id: U32
    attempt: npt.NDArray[np.uint64]
    seq: U32
    position: U32
    length: U32
    rows: U32
    crc: U32

    def encode(self) -> bytes:
        """Return the columns as they travel, back to back."""
        return b"".join(
            (
                self.partition.astype("<u4").tobytes(),
                self.map_id.astype("<u4").tobytes(),
                self.attempt.astype("<u8").tobytes(),
                self.seq.astype("<u4").tobytes(),
                self.position.astype("<u4").tobytes(),
                self.length.astype("<u4").tobytes(),
                self.rows.astype("<u4").tobytes(),
                self.crc.astype("<u4").tobytes(),
            )
        )

    @classmethod
    def decode(cls, pieces: int, data: BytesLike) -> Self:
        """Read the columns of `pieces` pieces."""

        def u32(column: int) -> U32:
            return np.frombuffer(data, "<u4", pieces, 4 * pieces * column)

        attempt = np.frombuffer(data, "<u8", pieces, 8 * pieces)
        return cls(u32(0), u32(1), attempt, u32(4), u32(5), u32(6), u32(7), u32(8))

    @property
    def ends(self) -> I64:
        """Where each piece ends within the payload, in bytes."""
        return np.cumsum(self.length, dtype=np.int64)

    def cursor_behind(self, index: int) -> Cursor:
        """Return the cursor of what comes after piece `index`."""
        return Cursor(
            int(self.partition[index]),
            int(self.map_id[index]),
            int(self.attempt[index]),
            int(self.seq[index]),
            int(self.position[index]) + 1,
        )

    def take(self, which: I64 | slice) -> "PieceColumns":
        """Return the columns of some pieces."""
        return PieceColumns(
            self.partition[which],
            self.map_id[which],
            self.attempt[which],
            self.seq[which],
            self.position[which],
            self.length[which],
            self.rows[which],
            self.crc[which],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchHeader:
    """What a batch says of itself before its bytes come."""

    end: bool
    """Whether nothing of the range asked for comes after this batch."""
    pieces: int
    columns_crc: int
    payload_bytes: int
    """Bytes of all its pieces."""
    skip: int
    """Bytes at the beginning of the payload that were left out, as asked."""
    zstd: bool = False
    """Whether the payload is one zstd frame (RFC 8878) of `payload_bytes`; only in segments."""

    def encode(self) -> bytes:
        """Return the 64 bytes of the header."""
        head = _HEADER.pack(
            MAGIC,
            (_END if self.end else 0) | (_ZSTD if self.zstd else 0),
            self.pieces,
            self.columns_crc,
            self.payload_bytes,
            self.skip,
            0,
        )[:-4]
        return head + struct.pack("<I", crc.extend(0, head))

    @classmethod
    def decode(cls, data: BytesLike) -> Self:
        """Read a header, or raise `ProtocolError`."""
        if len(data) != HEADER_BYTES:
            raise ProtocolError(f"batch ends inside its header: {len(data)} bytes")
        magic, flags, pieces, columns_crc, payload, skip, own = _HEADER.unpack(data)
        if magic != MAGIC or crc.extend(0, bytes(data[:-4])) != own:
            raise ProtocolError("batch header is damaged, or this is no answer of a worker")
        return cls(
            end=bool(flags & _END),
            pieces=pieces,
            columns_crc=columns_crc,
            payload_bytes=payload,
            skip=skip,
            zstd=bool(flags & _ZSTD),
        )


def encode_head(columns: PieceColumns, *, end: bool, skip: int) -> bytes:
    """Return header and columns of a batch; the payload from byte `skip` on follows."""
    body = columns.encode()
    header = BatchHeader(
        end=end,
        pieces=len(columns.length),
        columns_crc=crc.extend(0, body),
        payload_bytes=int(columns.length.sum(dtype=np.int64)),
        skip=skip,
    )
    return header.encode() + body
