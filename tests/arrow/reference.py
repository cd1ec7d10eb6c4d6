"""The hash of docs/protocol.md, "Hash partitioning", once more: value by value, plain Python."""

import decimal
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

MASK = 2**64 - 1
NULL = 0xA0761D6478BD642F
SCALE = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def mix(x: int) -> int:
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & MASK
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def hash_bytes(data: bytes) -> int:
    if len(data) > 256:
        parts = [data[i : i + 256] for i in range(0, len(data), 256)]
        digests = b"".join(hash_bytes(part).to_bytes(8, "little") for part in parts)
        return mix(hash_bytes(digests) ^ len(data))
    state = 0x243F6A8885A308D3 + len(data) * 0x9E3779B97F4A7C15 & MASK
    for i in range(0, len(data), 8):
        state = mix(state ^ int.from_bytes(data[i : i + 8], "little"))
    return state


def hash_words(words: Iterable[int]) -> int:
    return hash_bytes(b"".join(word.to_bytes(8, "little") for word in words))


def decimal_word(value: decimal.Decimal, scale: int) -> int:
    with decimal.localcontext(prec=100):
        unscaled = int(value.scaleb(scale))
    count = next(n for n in (1, 2, 3, 4) if -(2 ** (64 * n - 1)) <= unscaled < 2 ** (64 * n - 1))
    limbs = [unscaled >> 64 * i & MASK for i in range(count)]
    return limbs[0] if count == 1 else hash_words(limbs)


def float_word(value: float) -> int:
    if math.isnan(value):
        return 0x7FF8000000000000
    return struct.unpack("<Q", struct.pack("<d", 0.0 if value == 0 else value))[0]


def word(scalar: pa.Scalar) -> int:  # noqa: PLR0911 -- a line a type
    """Return the word of one value."""
    t, kind = pa.types, scalar.type
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        return word(scalar.value)
    if isinstance(kind, pa.BaseExtensionType):
        return word(scalar.value)
    if not scalar.is_valid:
        return NULL
    value: Any = None if t.is_temporal(kind) or t.is_nested(kind) else scalar.as_py()
    if t.is_boolean(kind) or t.is_integer(kind):
        return int(value) & MASK
    if t.is_floating(kind):
        return float_word(float(value))
    if t.is_decimal(kind):
        return decimal_word(value, kind.scale)
    if t.is_date32(kind):
        return scalar.value & MASK
    if t.is_date64(kind):
        return scalar.value // 86_400_000 & MASK
    if t.is_interval(kind):
        return hash_words(part & MASK for part in scalar.value)
    if t.is_temporal(kind):
        return scalar.value * SCALE[kind.unit] & MASK
    if isinstance(value, str):
        return hash_bytes(value.encode())
    if isinstance(value, bytes):
        return hash_bytes(value)
    if t.is_struct(kind):
        return hash_words(word(scalar[i]) for i in range(kind.num_fields))
    if t.is_map(kind):
        pairs = [scalar.values[i] for i in range(len(scalar.values))]
        return hash_words(hash_words([word(pair[0]), word(pair[1])]) for pair in pairs)
    assert t.is_nested(kind), kind
    return hash_words(word(element) for element in scalar.values)


def row_hash(columns: Sequence[pa.Array], row: int) -> int:
    return hash_words(word(column[row]) for column in columns)


def partition(hash_value: int, partitions: int) -> int:
    return (hash_value >> 32) * partitions >> 32
