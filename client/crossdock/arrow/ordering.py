"""Order of rows as arrays: keys become unsigned words that compare like the values do.

A value of any ordered type is one or more 64-bit words; rows compare word by word. So placing
rows among boundaries is a few binary searches over whole columns, whatever the types.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as types  # noqa: PLR0402 -- the package has no such attribute for mypy

from crossdock.arrow.hashing import I64, U64
from crossdock.arrow.plain import to_plain
from crossdock.arrow.words import bits, fixed, floats, limbs, string_parts, validity
from crossdock.errors import ConfigError

_SIGN: Final = np.uint64(1 << 63)
_WORD_BYTES: Final = 8

Nulls = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class Order:
    """How rows are ordered by one column."""

    column: str
    descending: bool = False
    nulls: Nulls = "last"
    """Where nulls go, whichever way the values are ordered."""


def order_words(array: pa.Array, order: Order, string_words: int) -> list[U64]:
    """Return words that compare as the values do under `order`, the most significant first.

    NaN is one value above all numbers; -0.0 and 0.0 are equal; strings compare by bytes, and
    those that agree in the first 8 * `string_words` bytes by length.

    Raises:
        ConfigError: values of this type have no order here.
    """
    array = to_plain(array)
    if isinstance(array, pa.ExtensionArray):
        return order_words(array.storage, order, string_words)
    valid = validity(array) if array.null_count else np.ones(len(array), np.bool_)
    present = valid.astype(np.uint64)
    nulls = present if order.nulls == "first" else 1 - present
    if array.null_count == len(array):
        width = string_words + 1 if _is_string(array.type) else len(_words(array[:0], 0))
        return [nulls, *(np.zeros(len(array), np.uint64) for _ in range(width))]
    words = _words(array, string_words)
    if order.descending:
        words = [~word for word in words]
    return [nulls, *(np.where(valid, word, np.uint64(0)) for word in words)]


def _is_string(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_string, types.is_large_string, types.is_binary, types.is_large_binary,
            types.is_fixed_size_binary,
        )
    )  # fmt: skip


def _words(  # noqa: PLR0911 -- a line a type
    array: pa.Array, string_words: int
) -> list[U64]:
    """Return words that compare as the values do, ascending; nulls are any."""
    kind = array.type
    if types.is_null(kind):
        return []
    if not len(array):
        return [np.empty(0, np.uint64)] * (kind.bit_width // 64 if types.is_decimal(kind) else 1)
    if types.is_boolean(kind):
        return [bits(array.buffers()[1], array.offset, len(array)).astype(np.uint64)]
    if types.is_unsigned_integer(kind):
        return [fixed(array, f"u{kind.bit_width // 8}").astype(np.uint64)]
    if types.is_integer(kind) or (types.is_temporal(kind) and not types.is_interval(kind)):
        return [fixed(array, f"i{kind.bit_width // 8}").astype(np.int64).view(np.uint64) ^ _SIGN]
    if types.is_floating(kind):
        word = floats(array)
        return [np.where(word & _SIGN, ~word, word | _SIGN)]
    if types.is_decimal(kind):
        low = limbs(array)
        return [low[-1] ^ _SIGN, *low[-2::-1]]
    if _is_string(kind):
        return _string_words(array, string_words)
    raise ConfigError(f"rows cannot be ordered by values of type {kind}")


def _string_words(array: pa.Array, count: int) -> list[U64]:
    """Return the first 8 * `count` bytes, most significant first, and the length."""
    data, offsets = string_parts(array)
    starts, lengths = offsets[:-1], offsets[1:] - offsets[:-1]
    words = []
    for k in range(count):
        word = np.zeros(len(lengths), np.uint64)
        for i in range(_WORD_BYTES):
            at = k * _WORD_BYTES + i
            has = np.flatnonzero(lengths > at)
            if not len(has):
                break
            byte = data[starts[has] + at].astype(np.uint64)
            word[has] |= byte << np.uint64(8 * (_WORD_BYTES - 1 - i))
        words.append(word)
    return [*words, lengths.astype(np.uint64)]


def string_words_of(columns: Sequence[pa.Array]) -> int:
    """Return how many words hold the longest string of these columns."""
    longest = 0
    for column in map(to_plain, columns):
        storage = column.storage if isinstance(column, pa.ExtensionArray) else column
        if _is_string(storage.type) and len(storage):
            _, offsets = string_parts(storage)
            longest = max(longest, int((offsets[1:] - offsets[:-1]).max()))
    return -(-longest // _WORD_BYTES)


def count_not_above(boundaries: Sequence[U64], rows: Sequence[U64]) -> I64:
    """Return for each row how many boundaries are not above it; boundaries must not fall.

    Args:
        boundaries: the words of the boundaries, most significant first.
        rows: as many words of the rows.
    """
    # A row's rank among the boundaries by the words so far: even is between, odd is equal.
    b_rank = np.zeros(len(boundaries[0]), np.int64)
    r_rank = np.zeros(len(rows[0]), np.int64)
    for b_word, r_word in zip(boundaries, rows, strict=True):
        base = 2 * len(b_word) + 1
        places = np.unique(b_word)
        b_key = b_rank * base + _rank(places, b_word)
        r_key = r_rank * base + _rank(places, r_word)
        keys = np.unique(b_key)
        b_rank, r_rank = _rank(keys, b_key), _rank(keys, r_key)
    return np.searchsorted(b_rank, r_rank, side="right")


def _rank(places: np.ndarray, values: np.ndarray) -> I64:
    """Return 2 i for a value between places i - 1 and i, and 2 i + 1 for place i itself."""
    left = np.searchsorted(places, values, side="left")
    ranks: I64 = 2 * left + (places[np.minimum(left, len(places) - 1)] == values)
    return ranks
