"""Schemas that should be one: rows against the writer's, and maps against each other."""

from collections.abc import Sequence

import pyarrow as pa

from crossdock.arrow.plain import plain_type
from crossdock.errors import ConfigError, SchemaMismatch


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows with their columns in the order of the schema.

    Types may be encoded (dictionaries, views). A field that is not nullable takes a nullable
    column without nulls.

    Raises:
        SchemaMismatch: the columns are others; it names the first that differs.
    """
    if batch.schema.equals(schema):  # the usual case: once per batch, without a look at columns
        return batch
    if batch.schema.names != schema.names:
        batch = _in_order(batch, schema)
    for field, column in zip(schema, batch.columns, strict=True):
        if not _travels_as(column.type, field.type):
            raise SchemaMismatch(
                f"column {field.name!r} of the rows is {column.type}; the writer's schema "
                f"has {describe(field)}"
            )
        if not field.nullable and column.null_count:
            raise SchemaMismatch(
                f"column {field.name!r} of the rows has {column.null_count} nulls; the writer's "
                f"schema has {describe(field)}"
            )
    return batch


def _travels_as(kind: pa.DataType, target: pa.DataType) -> bool:
    try:
        return bool(plain_type(kind) == target)
    except ConfigError:  # it cannot travel at all, so it is another type than the writer's
        return False


def _in_order(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Bring columns into the schema's order, if their names are the same and differ."""
    names = batch.schema.names
    for name in schema.names:
        if name not in names:
            raise SchemaMismatch(f"the rows have no column {name!r}; the writer's schema has")
    for name in names:
        if name not in schema.names:
            raise SchemaMismatch(f"the rows have a column {name!r}; the writer's schema has not")
    if len(set(names)) < len(names) or len(names) != len(schema.names):
        raise SchemaMismatch("columns of one name come in another order than in the schema")
    return batch.select(schema.names)


def describe(field: pa.Field) -> str:
    """Return a field's type and nullability."""
    return f"{field.type}{'' if field.nullable else ' not null'}"


def mismatch(ours: pa.Schema, a: str, theirs: pa.Schema, b: str) -> SchemaMismatch | None:
    """Compare two schemas but for metadata; return the error that names the first difference.

    Args:
        ours: a schema.
        a: who has it, for the message.
        theirs: another schema.
        b: who has that.
    """
    if ours.equals(theirs, check_metadata=False):
        return None
    for field, other in zip(ours, theirs, strict=False):
        if field.name != other.name:
            at = ours.names.index(field.name)
            return SchemaMismatch(f"column {at} is {field.name!r} in {a} and {other.name!r} in {b}")
        if field.type != other.type or field.nullable != other.nullable:
            return SchemaMismatch(
                f"column {field.name!r} is {describe(field)} in {a} and {describe(other)} in {b}"
            )
    longer, who, lacks = (ours, a, b) if len(ours) > len(theirs) else (theirs, b, a)
    name = longer.names[min(len(ours), len(theirs))]
    return SchemaMismatch(f"column {name!r} is in {who} and not in {lacks}")


def check_columns(columns: Sequence[str] | None, schema: pa.Schema) -> list[str] | None:
    """Return the names of columns to read, or raise `ConfigError` for one that is not there."""
    if columns is None:
        return None
    if isinstance(columns, str):
        raise ConfigError(f"columns {columns!r} is no list of names", hint='columns=["a"]')
    for name in columns:
        if len(schema.get_all_field_indices(name)) != 1:
            raise ConfigError(f"no one column is named {name!r}: {', '.join(schema.names)}")
    return list(columns)
