"""Values become 64-bit words, by value: what is equal has one word, whatever its width or layout.

`word_of` is the table of types in docs/protocol.md, "Hash partitioning". The words of nested
values and of strings are hashes; those of numbers are the numbers.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.types as types  # noqa: PLR0402 -- the package has no such attribute for mypy

from crossdock.arrow.hashing import I64, NULL, U8, U64, hash_strings, hash_words
from crossdock.arrow.plain import to_plain
from crossdock.errors import ConfigError

_NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_MILLISECONDS: Final = 86_400_000
_NAN: Final = np.uint64(0x7FF8_0000_0000_0000)


def word_of(array: pa.Array) -> U64:
    """Return the word of each value.

    Raises:
        ConfigError: values of this type have no word (unions).
    """
    array = to_plain(array)
    if isinstance(array, pa.ExtensionArray):
        return word_of(array.storage)
    if array.null_count == len(array):
        return np.full(len(array), NULL, np.uint64)
    words = _converter(array.type)(array)
    if array.null_count:
        words = np.where(validity(array), words, NULL)
    return words


def hash_rows(data: pa.RecordBatch | pa.Table, keys: Sequence[str]) -> U64:
    """Return the 64-bit hash of each row's key columns, as docs/protocol.md defines it.

    Args:
        data: rows.
        keys: names of the key columns, in the order in which they are hashed; at least one.

    Raises:
        ConfigError: there is no such column, or more than one, or its type has no hash.
    """
    columns = [key_column(data, key) for key in check_keys(keys)]
    if isinstance(data, pa.Table):
        words = [
            np.concatenate([word_of(chunk) for chunk in column.chunks] or [np.empty(0, np.uint64)])
            for column in columns
        ]
        return hash_words(words)
    return hash_words([word_of(column) for column in columns])


def check_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the names of key columns, or raise `ConfigError`."""
    if isinstance(keys, str) or not keys:
        raise ConfigError(f"keys {keys!r} is no list of column names", hint='keys=["a", "b"]')
    return tuple(keys)


def key_column(data: pa.RecordBatch | pa.Table, key: str) -> pa.Array | pa.ChunkedArray:
    """Return the one column with this name, or raise `ConfigError`."""
    found = data.schema.get_all_field_indices(key)
    if len(found) != 1:
        named = ", ".join(data.schema.names)
        raise ConfigError(f"{len(found)} columns are named {key!r}, not 1; there are: {named}")
    return data.column(found[0])


def _converter(kind: pa.DataType) -> Callable[[pa.Array], U64]:
    """Return what makes words of the values of a plain type; it may give nulls any word."""
    for is_kind, convert in _CONVERTERS:
        if is_kind(kind):
            return convert
    raise ConfigError(f"values of type {kind} cannot be hashed")


def validity(array: pa.Array) -> np.ndarray:
    """Return which values are not null."""
    buffer = array.buffers()[0]
    if buffer is None:  # fixed-size children and the like may have none although asked
        return np.asarray(array.is_valid())
    return bits(buffer, array.offset, len(array))


def bits(buffer: pa.Buffer, offset: int, length: int) -> np.ndarray:
    """Return bits of a bitmap as booleans."""
    first, last = offset // 8, -(-(offset + length) // 8)
    part = np.frombuffer(buffer, np.uint8)[first:last]
    start = offset - 8 * first
    return np.unpackbits(part, bitorder="little")[start : start + length].view(np.bool_)


def fixed(array: pa.Array, dtype: str, per_value: int = 1) -> np.ndarray:
    """Return the values of a fixed-width array where they lie, nulls included."""
    values = np.frombuffer(array.buffers()[1], dtype)
    return values[array.offset * per_value : (array.offset + len(array)) * per_value]


def _integers(array: pa.Array) -> U64:
    kind = array.type
    letter = "u" if types.is_unsigned_integer(kind) else "i"
    values = fixed(array, f"{letter}{kind.bit_width // 8}")
    wide = np.uint64 if letter == "u" else np.int64
    return values.astype(wide, copy=False).view(np.uint64)


def _booleans(array: pa.Array) -> U64:
    return bits(array.buffers()[1], array.offset, len(array)).astype(np.uint64)


def floats(array: pa.Array) -> U64:
    """Return the bits of each value as a float64: one NaN, one zero."""
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        values = fixed(array, f"f{array.type.bit_width // 8}").astype(np.float64)
    words = (values + 0.0).view(np.uint64)  # -0.0 + 0.0 is 0.0
    words[np.isnan(values)] = _NAN
    return words


def limbs(array: pa.Array) -> list[U64]:
    """Return the unscaled integers of decimals, lowest 64 bits first, two's complement."""
    width = array.type.bit_width
    if width <= 64:
        return [fixed(array, f"i{width // 8}").astype(np.int64).view(np.uint64)]
    count = width // 64
    rows = fixed(array, "u8", count).reshape(-1, count)
    columns = [np.ascontiguousarray(rows[:, i]) for i in range(count)]
    return columns if sys.byteorder == "little" else columns[::-1]


def _decimals(array: pa.Array) -> U64:
    """One limb where the number fits it; else the hash of as many limbs as it needs."""
    columns = limbs(array)
    words = columns[0].copy()
    signs = [(column.view(np.int64) >> 63).view(np.uint64) for column in columns]
    needed = np.ones(len(words), np.int64)
    for i in range(1, len(columns)):
        needed[columns[i] != signs[i - 1]] = i + 1
    for n in range(2, len(columns) + 1):
        which = needed == n
        if which.any():
            words[which] = hash_words([column[which] for column in columns[:n]])
    return words


def _date32(array: pa.Array) -> U64:
    return fixed(array, "i4").astype(np.int64).view(np.uint64)


def _date64(array: pa.Array) -> U64:
    days: I64 = fixed(array, "i8") // _DAY_MILLISECONDS
    return days.view(np.uint64)


def _instants(array: pa.Array) -> U64:
    """Nanoseconds modulo 2**64, so the unit does not matter; nor does the zone."""
    values = fixed(array, f"i{array.type.bit_width // 8}").astype(np.int64).view(np.uint64)
    return values * np.uint64(_NANOSECONDS[array.type.unit])


def _intervals(array: pa.Array) -> U64:
    record = np.dtype([("months", "i4"), ("days", "i4"), ("nanoseconds", "i8")])
    values = np.frombuffer(array.buffers()[1], record)[array.offset : array.offset + len(array)]
    parts = (values[name].astype(np.int64).view(np.uint64) for name in record.names or ())
    return hash_words(list(parts))


def string_parts(array: pa.Array) -> tuple[U8, I64]:
    """Return the bytes of strings of any plain layout, and n + 1 offsets into them."""
    if types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        offsets = np.arange(array.offset, array.offset + len(array) + 1, dtype=np.int64) * width
        data = array.buffers()[1]
    else:
        large = types.is_large_string(array.type) or types.is_large_binary(array.type)
        raw = np.frombuffer(array.buffers()[1], np.int64 if large else np.int32)
        offsets = raw[array.offset : array.offset + len(array) + 1].astype(np.int64)
        data = array.buffers()[2]
    return (np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)), offsets


def _strings(array: pa.Array) -> U64:
    return hash_strings(*string_parts(array))


def _structs(array: pa.Array) -> U64:
    fields = [word_of(array.field(i)) for i in range(array.type.num_fields)]
    if not fields:
        return hash_strings(np.empty(0, np.uint8), np.zeros(len(array) + 1, np.int64))
    return hash_words(fields)


def _lists(array: pa.Array) -> U64:
    """Hash the words of a list's elements as a string of bytes."""
    kind = array.type
    if types.is_fixed_size_list(kind):
        size = kind.list_size
        offsets = np.arange(len(array) + 1, dtype=np.int64) * size
        elements = word_of(array.values.slice(array.offset * size, len(array) * size))
        return hash_strings(_as_bytes(elements), offsets * 8)
    offsets = np.asarray(array.offsets).astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    if types.is_map(kind):
        pairs = (array.keys, array.items)
        elements = hash_words([word_of(part.slice(first, last - first)) for part in pairs])
    else:
        elements = word_of(array.values.slice(first, last - first))
    return hash_strings(_as_bytes(elements), (offsets - first) * 8)


def _as_bytes(words: U64) -> U8:
    return words.astype("<u8", copy=False).view(np.uint8)


_CONVERTERS: Final[tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], U64]], ...]] = (
    (types.is_integer, _integers),
    (types.is_boolean, _booleans),
    (types.is_floating, floats),
    (types.is_decimal, _decimals),
    (types.is_date32, _date32),
    (types.is_date64, _date64),
    (types.is_time, _instants),
    (types.is_timestamp, _instants),
    (types.is_duration, _instants),
    (types.is_interval, _intervals),
    (types.is_string, _strings),
    (types.is_large_string, _strings),
    (types.is_binary, _strings),
    (types.is_large_binary, _strings),
    (types.is_fixed_size_binary, _strings),
    (types.is_struct, _structs),
    (types.is_map, _lists),
    (types.is_list, _lists),
    (types.is_large_list, _lists),
    (types.is_fixed_size_list, _lists),
)
