"""The frame: one push of many pieces of one attempt. docs/protocol.md, section "Frames".

    header   88 bytes, little-endian, ending in its own CRC32C
    columns  partition u32[n], length u32[n], rows u32[n], crc32c u32[n]
    payload  the pieces back to back

Pieces stand in rising order of partition; pieces of one partition in the order of writing.
"""

import struct
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from crossdock.errors import FrameError
from crossdock.wire import crc
from crossdock.wire.crc import U32, BytesLike

Integers = npt.NDArray[np.integer]

MAGIC: Final = b"XDF1"
WRITER_BYTES: Final = 16
COLUMN_BYTES: Final = 16
"""Bytes of index per piece."""
MAX_PAYLOAD_BYTES: Final = 2**32 - 1

_LAST: Final = 1
# magic, flags, generation, map, seq, count, pieces, partitions, attempt, epoch, payload bytes,
# writer, columns crc, payload crc, reserved, header crc
_HEADER: Final = struct.Struct("<4s7I3Q16s4I")
HEADER_BYTES: Final = _HEADER.size


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """What a frame says of itself before its bytes come."""

    generation: int
    map_id: int
    attempt: int
    seq: int
    """Number of this frame within its attempt, from 0."""
    count: int
    """Frames of the attempt, said by its last frame; 0 in all others."""
    pieces: int
    partitions: int
    """P of the shuffle."""
    epoch: int
    payload_bytes: int
    writer: bytes
    """16 random bytes that name the writer of the attempt."""
    columns_crc: int
    payload_crc: int

    @property
    def last(self) -> bool:
        """Whether this is the attempt's last frame (by number, not by time)."""
        return self.count > 0

    @property
    def columns_bytes(self) -> int:
        return self.pieces * COLUMN_BYTES

    @property
    def frame_bytes(self) -> int:
        """Bytes of the whole frame on the wire."""
        return HEADER_BYTES + self.columns_bytes + self.payload_bytes

    def encode(self) -> bytes:
        """Return the 88 bytes of the header."""
        head = _HEADER.pack(
            MAGIC,
            _LAST if self.last else 0,
            self.generation,
            self.map_id,
            self.seq,
            self.count,
            self.pieces,
            self.partitions,
            self.attempt,
            self.epoch,
            self.payload_bytes,
            self.writer,
            self.columns_crc,
            self.payload_crc,
            0,
            0,
        )[:-4]
        return head + struct.pack("<I", crc.extend(0, head))

    @classmethod
    def decode(cls, data: BytesLike) -> Self:
        """Read a header, or raise `FrameError` saying which field is wrong."""
        if len(data) < HEADER_BYTES:
            raise FrameError(f"frame ends inside its header: {len(data)} of {HEADER_BYTES} bytes")
        head = bytes(data[:HEADER_BYTES])
        (magic, flags, generation, map_id, seq, count, pieces, partitions, attempt, epoch,
         payload_bytes, writer, columns_crc, payload_crc, reserved, header_crc) = (
            _HEADER.unpack(head)
        )  # fmt: skip
        if magic != MAGIC:
            raise FrameError(f"not a frame: begins with {magic!r}, not {MAGIC!r}")
        if crc.extend(0, head[:-4]) != header_crc:
            raise FrameError("frame header fails its checksum")
        if flags not in (0, _LAST) or reserved:
            raise FrameError(f"frame has flags {flags:#x} or reserved bits this version lacks")
        if (flags == _LAST) != (count > 0) or (count and seq != count - 1):
            raise FrameError(f"frame {seq} contradicts itself: flags {flags}, count {count}")
        if not partitions:
            raise FrameError("frame says its shuffle has no partitions")
        if payload_bytes > MAX_PAYLOAD_BYTES:
            raise FrameError(f"frame payload of {payload_bytes} bytes is over {MAX_PAYLOAD_BYTES}")
        return cls(
            generation=generation, map_id=map_id, attempt=attempt, seq=seq, count=count,
            pieces=pieces, partitions=partitions, epoch=epoch, payload_bytes=payload_bytes,
            writer=writer, columns_crc=columns_crc, payload_crc=payload_crc,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Columns:
    """The index of a frame: four arrays of u32, one entry a piece."""

    partition: U32
    length: U32
    rows: U32
    crc: U32
    encoded: bytes
    """The columns as they travel, back to back."""

    @classmethod
    def encode(cls, partition: Integers, length: Integers, rows: Integers, crcs: U32) -> Self:
        """Make columns of arrays of one length, whose values fit 32 unsigned bits."""
        table = np.empty((4, len(partition)), "<u4")
        for row, column in zip(table, (partition, length, rows, crcs), strict=True):
            row[:] = column
        return cls(table[0], table[1], table[2], table[3], table.tobytes())

    @classmethod
    def decode(cls, header: FrameHeader, data: bytes) -> Self:
        """Read and check the columns of a frame, or raise `FrameError`.

        Checked: their checksum, rising partitions below P, lengths that add up to the payload,
        and piece checksums that add up to the payload's (so no reader finds a wrong one later).
        """
        if len(data) != header.columns_bytes:
            raise FrameError(f"columns have {len(data)} bytes, not {header.columns_bytes}")
        if crc.extend(0, data) != header.columns_crc:
            raise FrameError("frame columns fail their checksum")
        table: U32 = np.frombuffer(data, "<u4").reshape(4, header.pieces)
        self = cls(table[0], table[1], table[2], table[3], data)
        if header.pieces:
            if int(self.partition[-1]) >= header.partitions:
                raise FrameError(
                    f"partition {int(self.partition[-1])} is not below {header.partitions}"
                )
            if (self.partition[1:] < self.partition[:-1]).any():
                raise FrameError("pieces are not in rising order of partition")
        total = int(self.length.sum(dtype=np.uint64))
        if total != header.payload_bytes:
            raise FrameError(f"piece lengths add up to {total}, not {header.payload_bytes}")
        if crc.combined(self.crc, self.length) != header.payload_crc:
            raise FrameError("piece checksums do not add up to the payload's")
        return self

    @property
    def ends(self) -> U32:
        """Where each piece ends within the payload, in bytes."""
        return np.cumsum(self.length, dtype=np.uint32)


def build(
    *,
    payload: BytesLike,
    partition: Integers,
    length: Integers,
    rows: Integers,
    partitions: int,
    map_id: int,
    attempt: int,
    seq: int,
    writer: bytes,
    count: int = 0,
    generation: int = 0,
    epoch: int = 0,
) -> tuple[bytes, BytesLike]:
    """Return (header and columns, payload) of a frame; the payload is not copied.

    `partition` must be rising; `length` must add up to the payload's length.
    """
    checksums = crc.of_pieces(payload, length)
    columns = Columns.encode(partition, length, rows, checksums).encoded
    header = FrameHeader(
        generation=generation,
        map_id=map_id,
        attempt=attempt,
        seq=seq,
        count=count,
        pieces=len(partition),
        partitions=partitions,
        epoch=epoch,
        payload_bytes=len(payload),
        writer=writer,
        columns_crc=crc.extend(0, columns),
        payload_crc=crc.combined(checksums, length),
    )
    return header.encode() + columns, payload
