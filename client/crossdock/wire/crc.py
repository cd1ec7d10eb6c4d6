"""CRC32C (Castagnoli; RFC 3720, appendix B.4) of buffers and of the pieces inside them.

Pieces of a few hundred bytes are many, and a call for each costs more than the checksum itself.
`combined` therefore never looks at the bytes: the CRC of a concatenation follows from the CRCs
and lengths of its parts (Mark Adler's `crc32_combine`), and that is index work for numpy. One
native CRC over the whole buffer, compared with the combination, checks every part at once.
"""

from functools import cache
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

BytesLike = bytes | bytearray | memoryview

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

_POLYNOMIAL: Final = 0x82F63B78  # reflected
_DIGIT_BITS: Final = 4  # lengths are read as base-16 digits
_FEW: Final = 256


def extend(crc: int, data: BytesLike) -> int:
    """Return the CRC32C of what `crc` covers, followed by `data`. Releases the GIL."""
    return crc32c(data, crc)


def of_pieces(data: BytesLike, lengths: npt.NDArray[np.integer]) -> U32:
    """Return the CRC32C of each of the back-to-back pieces that make up `data`.

    One native call per piece, driven by C iterators: about 0.2 µs each.
    """
    view = memoryview(data).cast("B")
    sizes = lengths.astype(np.int64)
    ends = np.cumsum(sizes)
    starts = (ends - sizes).tolist()
    slices = map(view.__getitem__, map(slice, starts, ends.tolist()))
    return np.fromiter(map(crc32c, slices), np.uint32, len(ends))


def combined(crcs: U32, lengths: npt.NDArray[np.integer]) -> int:
    """Return the CRC32C of the concatenation of pieces with these CRCs and lengths.

    crc(AB) = shift(crc(A), |B|) ^ crc(B). Many pieces are joined pair by pair, since short
    shifts are cheap; few at once, each moved by all the bytes behind it.
    """
    if not len(crcs):
        return 0
    values = crcs.astype(np.uint32)
    sizes = lengths.astype(np.int64)
    while len(values) > _FEW:
        if len(values) % 2:  # an empty piece in front changes nothing: shift(0, n) = 0
            values = np.concatenate((np.zeros(1, np.uint32), values))
            sizes = np.concatenate((np.zeros(1, np.int64), sizes))
        right = sizes[1::2]
        values = _shift(values[0::2], right) ^ values[1::2]
        sizes = sizes[0::2] + right
    behind = sizes.sum() - np.cumsum(sizes)
    return int(np.bitwise_xor.reduce(_shift(values, behind)))


def _shift(crcs: U32, zeros: I64) -> U32:
    """Return the CRCs of the same bytes followed by `zeros[i]` zero bytes, less the zeros' own."""
    first = int(zeros[0])
    if (zeros == first).all():
        return _shift_by_constant(crcs, first)
    shifted = crcs
    remaining = zeros
    place = 0
    while remaining.any():
        table = _tables(place).reshape(-1)
        base = (remaining & (2**_DIGIT_BITS - 1)) << 10
        out = table.take(base + (shifted & 0xFF))
        out ^= table.take(base + (256 + ((shifted >> np.uint32(8)) & 0xFF)))
        out ^= table.take(base + (512 + ((shifted >> np.uint32(16)) & 0xFF)))
        out ^= table.take(base + (768 + (shifted >> np.uint32(24))))
        shifted = out
        remaining = remaining >> _DIGIT_BITS
        place += 1
    return shifted


def _shift_by_constant(crcs: U32, zeros: int) -> U32:
    place = 0
    while zeros:
        digit = zeros & (2**_DIGIT_BITS - 1)
        if digit:
            crcs = _apply(_tables(place)[digit], crcs)
        zeros >>= _DIGIT_BITS
        place += 1
    return crcs


def _apply(table: U32, crcs: U32) -> U32:
    """Multiply every CRC by the 32 × 32 bit matrix of which `table` is the byte-wise form."""
    bytes_ = np.ascontiguousarray(crcs).view(np.uint8).reshape(-1, 4)
    out = table[0].take(bytes_[:, 0])
    for i in range(1, 4):
        out ^= table[i].take(bytes_[:, i])
    return cast("U32", out)


@cache
def _tables(place: int) -> U32:
    """Return u32[16, 4, 256]: [d, i, b] is byte i of value b, moved by d · 16**place zeros."""
    if place == 0:
        one = _byte_table(_one_zero_byte())
    else:
        previous = _tables(place - 1)
        one = _compose(previous[1], previous[2**_DIGIT_BITS - 1])
    tables = np.empty((2**_DIGIT_BITS, 4, 256), np.uint32)
    tables[0] = np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32))[:, None]
    for digit in range(1, 2**_DIGIT_BITS):
        tables[digit] = _compose(one, tables[digit - 1])
    return tables


def _compose(outer: U32, inner: U32) -> U32:
    return _apply(outer, inner).reshape(4, 256)


def _one_zero_byte() -> U32:
    """Return what one zero byte does to each of the 32 bits of a CRC register."""
    columns = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(8):
        columns = (columns >> np.uint32(1)) ^ (np.uint32(_POLYNOMIAL) * (columns & np.uint32(1)))
    return columns


def _byte_table(columns: U32) -> U32:
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1  # [256, 8]
    by_byte = columns.reshape(4, 1, 8) * bits.astype(np.uint32)  # [4, 256, 8]
    return cast("U32", np.bitwise_xor.reduce(by_byte, axis=2))
