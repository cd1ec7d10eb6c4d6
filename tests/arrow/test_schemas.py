"""One schema for all: of rows against the writer's, of maps against each other."""

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from rows import SCHEMA, Collected, rows, view_of, write

import crossdock
import crossdock.arrow
from crossdock import ConfigError, SchemaMismatch

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


class Marked(pa.ExtensionType):
    """Values with a meaning that Arrow does not know."""

    def __init__(self, storage: pa.DataType) -> None:
        super().__init__(storage, "crossdock.tests.marked")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, _: bytes) -> "Marked":
        return cls(storage)


@pytest.fixture
def marked() -> Iterator[pa.ExtensionArray]:
    kind = Marked(pa.int64())
    pa.register_extension_type(kind)
    yield pa.ExtensionArray.from_storage(kind, pa.array([1, None, 3]))
    pa.unregister_extension_type(kind.extension_name)


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown to the reader"])
def test_extension_types_travel(job: crossdock.Job, marked: pa.ExtensionArray, known: bool) -> None:
    table = pa.table({"k": [1, 2, 3], "e": marked})
    table = table.append_column("l", pa.ListArray.from_arrays([0, 1, 1, 3], marked))
    shuffle = job.shuffle("s", partitions=1)
    for map_id in range(2):
        write(shuffle, map_id, table, schema=table.schema, keys=["e"])
    if not known:
        pa.unregister_extension_type(marked.type.extension_name)
    got = crossdock.arrow.read(view_of(shuffle, 2)).read_all()
    if not known:
        pa.register_extension_type(marked.type)
    assert got.schema.field("e").type == (marked.type if known else pa.int64())
    assert got.to_pylist() == pa.concat_tables([table, table]).to_pylist()


UNION = pa.sparse_union([pa.field("i", pa.int64()), pa.field("s", pa.string())])
CANNOT_TRAVEL = [
    UNION,
    pa.list_(UNION),
    pa.struct([("s", pa.map_(pa.string(), UNION))]),
    Marked(pa.dictionary(pa.int8(), pa.string())),
    Marked(pa.string_view()),
]


@pytest.mark.parametrize("kind", CANNOT_TRAVEL, ids=str)
def test_types_that_cannot_travel(kind: pa.DataType) -> None:
    target = Collected(2)
    schema = pa.schema([("k", pa.int64()), ("bad", kind)])
    with pytest.raises(ConfigError, match=r"column 'bad': type .* cannot travel"):
        crossdock.arrow.writer(target, schema, keys=["k"])
    assert target.ended == "abort"
    with (
        crossdock.arrow.writer(target, schema.set(1, SCHEMA.field("v")), keys=["k"]) as writer,
        pytest.raises(SchemaMismatch, match=r"column .* of the rows"),
    ):
        writer.write(pa.table({"k": [1], "v": pa.nulls(1, kind)}))


NESTED = [
    (pa.struct([("x", pa.int64())]), pa.struct([("x", pa.float64())])),
    (pa.struct([("x", pa.int64())]), pa.struct([("y", pa.int64())])),
    (pa.list_(pa.field("item", pa.int64(), nullable=False)), pa.list_(pa.int64())),
    (pa.decimal128(10, 2), pa.decimal128(10, 3)),
    (pa.timestamp("us"), pa.timestamp("us", "UTC")),
]


@pytest.mark.parametrize(("ours", "theirs"), NESTED, ids=str)
def test_types_that_differ_inside(job: crossdock.Job, ours: pa.DataType, theirs: Any) -> None:
    tables = [pa.table({"k": [1], "n": pa.nulls(1, kind)}) for kind in (ours, theirs)]
    message = re.escape(f"'n' of the rows is {theirs}; the writer's schema has {ours}")
    with crossdock.arrow.writer(Collected(1), tables[0].schema, keys=["k"]) as writer:
        with pytest.raises(SchemaMismatch, match=message):
            writer.write(tables[1])
        assert writer.rows == 0
    shuffle = job.shuffle("s", partitions=1)
    for map_id, table in enumerate(tables):
        write(shuffle, map_id, table, schema=table.schema)
    message = re.escape(f"column 'n' is {ours} in map 0 and {theirs} in map 1")
    with pytest.raises(SchemaMismatch, match=message):
        crossdock.arrow.read(view_of(shuffle, 2)).read_all()
