"""Plain layouts: what travels. Encodings that point elsewhere are resolved first.

A slice of a dictionary, view or run-end-encoded array drags along all that it points to, so
each small block would carry the whole. Values travel instead, and hash alike in any encoding.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossdock.errors import ConfigError


def plain_type(kind: pa.DataType) -> pa.DataType:  # noqa: C901, PLR0911 -- a line a type
    """Return the type as which values of `kind` travel: often itself.

    Raises:
        ConfigError: the type has no plain layout (unions).
    """
    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_struct(kind):
        return pa.struct([plain_field(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(
            plain_field(kind.key_field), plain_field(kind.item_field), keys_sorted=kind.keys_sorted
        )
    if types.is_fixed_size_list(kind):
        return pa.list_(plain_field(kind.value_field), kind.list_size)
    if types.is_large_list(kind) or types.is_large_list_view(kind):
        return pa.large_list(plain_field(kind.value_field))
    if types.is_list(kind) or types.is_list_view(kind):
        return pa.list_(plain_field(kind.value_field))
    if types.is_union(kind):
        raise ConfigError(f"type {kind} cannot travel: unions are not supported")
    if (
        isinstance(kind, pa.BaseExtensionType)
        and plain_type(kind.storage_type) != kind.storage_type
    ):
        raise ConfigError(f"type {kind} cannot travel: its storage is not plain")
    return kind


def plain_field(field: pa.Field) -> pa.Field:
    """Return the field with its plain type."""
    return field.with_type(plain_type(field.type))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema with plain types; its metadata stay.

    Raises:
        ConfigError: a column's type has no plain layout; it says which column.
    """
    fields = []
    for field in schema:
        try:
            fields.append(plain_field(field))
        except ConfigError as error:
            raise ConfigError(f"column {field.name!r}: {error}") from error
    return pa.schema(fields, metadata=schema.metadata)


def to_plain(array: pa.Array) -> pa.Array:  # noqa: PLR0911 -- a line a type
    """Return the same values in their plain layout; the array itself where it is plain."""
    target = plain_type(array.type)
    if target == array.type:
        return array
    types, kind = pa.types, array.type
    if types.is_dictionary(kind):
        return to_plain(array.dictionary_decode())
    if types.is_run_end_encoded(kind):
        return to_plain(pc.run_end_decode(array))
    if types.is_struct(kind):
        fields = [to_plain(array.field(i)) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, fields=list(target), mask=array.is_null())
    if types.is_map(kind):
        return _plain_map(array, target)
    if types.is_fixed_size_list(kind):
        size = kind.list_size
        values = to_plain(array.values.slice(array.offset * size, len(array) * size))
        return pa.FixedSizeListArray.from_arrays(values, type=target, mask=array.is_null())
    if types.is_nested(kind):
        return _plain_list(array, target)
    return array.cast(target)


def plain_batch(batch: pa.RecordBatch, schema: pa.Schema | None = None) -> pa.RecordBatch:
    """Return the rows with plain types; nothing is copied of columns that have them already.

    Args:
        batch: rows.
        schema: the schema to give them, where it is known: of the same plain types.
    """
    target = plain_schema(batch.schema) if schema is None else schema
    return pa.RecordBatch.from_arrays([to_plain(c) for c in batch.columns], schema=target)


def _lengths(array: pa.Array) -> np.ndarray:
    """Return the number of elements of each list; 0 for a null."""
    return np.asarray(pc.fill_null(pc.list_value_length(array), 0), np.int64)


def _plain_list(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Rebuild a list of any kind over its elements in order; nulls have none then."""
    large = pa.types.is_large_list(target)
    offsets = np.concatenate(([0], np.cumsum(_lengths(array))))
    offsets = offsets.astype(np.int64 if large else np.int32)
    kind = pa.LargeListArray if large else pa.ListArray
    values = to_plain(array.flatten())
    return kind.from_arrays(pa.array(offsets), values, type=target, mask=array.is_null())


def _plain_map(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Rebuild a map over the entries of its rows."""
    offsets = np.asarray(array.offsets).copy()
    first, last = int(offsets[0]), int(offsets[-1])
    keys = to_plain(array.keys.slice(first, last - first))
    items = to_plain(array.items.slice(first, last - first))
    mask = array.is_null() if array.null_count else None
    moved = pa.array(offsets - first, pa.int32())
    return pa.MapArray.from_arrays(moved, keys, items, type=target, mask=mask)
