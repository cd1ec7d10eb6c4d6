"""How much memory rows take once they are plain, told before they are made so.

A dictionary or a run stands for values that take many times its own bytes, and a slice of a view
counts all that it points to. Who bounds memory must know better.
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types  # noqa: PLR0402 -- the package has no such attribute for mypy

from crossdock.arrow.plain import plain_type

_OFFSET_BYTES: Final = 4
_VIEW_INTS: Final = 4
"""A view is 16 bytes; the first of its four numbers is the length."""


def plain_bytes(array: pa.Array) -> int:  # noqa: PLR0911 -- a line a type
    """Return about how many bytes the values take in their plain layout.

    Exact for plain types, and for strings in dictionaries, runs and views. Elements of list views
    and nested values of dictionaries and runs count by their average.
    """
    kind = array.type
    if not len(array):
        return 0
    if plain_type(kind) == kind:
        return int(array.nbytes)
    if types.is_dictionary(kind):
        indices = np.asarray(array.indices.drop_null()).astype(np.int64)
        return _weighted(array.dictionary, np.bincount(indices, minlength=len(array.dictionary)))
    if types.is_run_end_encoded(kind):
        return _weighted(array.values, _run_lengths(array))
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return int(_value_bytes(array).sum())
    if types.is_struct(kind):
        return sum(plain_bytes(array.field(i)) for i in range(kind.num_fields)) + len(array) // 8
    return _OFFSET_BYTES * len(array) + _elements_bytes(array)


def _elements_bytes(array: pa.Array) -> int:
    """Return what the elements take of a list of any kind."""
    kind = array.type
    if types.is_fixed_size_list(kind):
        size = kind.list_size
        return plain_bytes(array.values.slice(array.offset * size, len(array) * size))
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        count = pc.sum(pc.list_value_length(array)).as_py() or 0
        return plain_bytes(array.values) * count // max(1, len(array.values))
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    parts = (array.keys, array.items) if types.is_map(kind) else (array.values,)
    return sum(plain_bytes(part.slice(first, last - first)) for part in parts)


def _weighted(values: pa.Array, times: np.ndarray) -> int:
    """Return what the values take when value i comes `times[i]` times."""
    return int(_value_bytes(values) @ times) if len(values) else 0


def _value_bytes(array: pa.Array) -> np.ndarray:
    """Return i64[n] or f64[n]: the bytes of each value."""
    kind = array.type
    if types.is_string_view(kind) or types.is_binary_view(kind):
        ints = np.frombuffer(array.buffers()[1], np.int32)[::_VIEW_INTS]
        lengths = ints[array.offset : array.offset + len(array)].astype(np.int64)
        return np.where(np.asarray(array.is_valid()), lengths, 0) + _OFFSET_BYTES
    if any(
        is_kind(kind)
        for is_kind in (types.is_string, types.is_binary, types.is_large_string,
                        types.is_large_binary)
    ):  # fmt: skip
        lengths = np.asarray(pc.fill_null(pc.binary_length(array), 0), np.int64)
        return lengths + _OFFSET_BYTES
    return np.full(len(array), plain_bytes(array) / max(1, len(array)))


def _run_lengths(array: pa.Array) -> np.ndarray:
    """Return how many rows of a run-end-encoded array, which may be a slice, each run has."""
    ends = np.asarray(array.run_ends).astype(np.int64) - array.offset
    inside = np.clip(ends, 0, len(array))
    return np.diff(inside, prepend=0)
