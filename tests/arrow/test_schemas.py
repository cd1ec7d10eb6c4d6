"""One schema for all: of rows against the writer's, of maps against each other."""

from typing import Any

import pyarrow as pa
import pytest
from rows import SCHEMA, Collected, rows, view_of, write

import crossdock
import crossdock.arrow
from crossdock import SchemaMismatch

OTHERS = [
    ([("k", pa.int64()), ("v", pa.binary())], "'v' is string in map 0 and binary in map 1"),
    ([("k", pa.int64()), pa.field("v", pa.string(), nullable=False)],
     "'v' is string in map 0 and string not null in map 1"),
    ([("k", pa.int64()), ("w", pa.string())], "column 1 is 'v' in map 0 and 'w' in map 1"),
    ([("k", pa.int64())], "'v' is in map 0 and not in map 1"),
    ([("k", pa.int64()), ("v", pa.string()), ("z", pa.null())], "'z' is in map 1 and not in map 0"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), OTHERS, ids=[m for _, m in OTHERS])
def test_maps_with_different_schemas(job: crossdock.Job, fields: Any, message: str) -> None:
    shuffle = job.shuffle("s", partitions=2)
    write(shuffle, 0, rows(0, 10))
    other = pa.schema(fields)
    values = [pa.array([1], pa.int64()), pa.array(["x"]), pa.array([None], pa.null())]
    columns = [v.cast(f.type) for v, f in zip(values, other, strict=False)]
    write(shuffle, 1, pa.Table.from_arrays(columns, schema=other), schema=other)
    with pytest.raises(SchemaMismatch, match=message):
        crossdock.arrow.read(view_of(shuffle, 2)).read_all()
    with pytest.raises(SchemaMismatch, match="the schema expected"):
        crossdock.arrow.read(view_of(shuffle, 1), schema=other)


def test_metadata_may_differ(job: crossdock.Job) -> None:
    shuffle = job.shuffle("s", partitions=2)
    write(shuffle, 0, rows(0, 10), schema=SCHEMA.with_metadata({"a": "1"}))
    write(shuffle, 1, rows(10, 10))
    reader = crossdock.arrow.read(view_of(shuffle, 2))
    assert reader.schema.metadata == {b"a": b"1"}
    assert reader.read_all().num_rows == 20


WRONG_ROWS = [
    ({"k": [1]}, "no column 'v'"),
    ({"k": [1], "v": ["x"], "z": [0]}, "have a column 'z'"),
    ({"k": [1.5], "v": ["x"]}, "'k' of the rows is double; the writer's schema has int64"),
    ({"k": [None], "v": ["x"]}, "'k' of the rows is null"),
]


@pytest.mark.parametrize(("columns", "message"), WRONG_ROWS, ids=[m for _, m in WRONG_ROWS])
def test_rows_that_do_not_fit_the_schema(columns: Any, message: str) -> None:
    target = Collected(2)
    with (
        pytest.raises(SchemaMismatch, match=message),
        crossdock.arrow.writer(target, SCHEMA, keys=["k"]) as writer,
    ):
        writer.write(pa.table(columns))
    assert target.ended == "abort"


def test_nulls_in_a_field_that_has_none() -> None:
    schema = pa.schema([pa.field("k", pa.int64(), nullable=False)])
    with crossdock.arrow.writer(Collected(2), schema, keys=["k"]) as writer:
        writer.write(pa.table({"k": [1]}))
        with pytest.raises(SchemaMismatch, match=r"1 nulls.*int64 not null"):
            writer.write(pa.table({"k": pa.array([None], pa.int64())}))
