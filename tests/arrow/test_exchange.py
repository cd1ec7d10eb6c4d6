"""Rows that go in come out: through real workers, in every type, in blocks of a good size."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import arrays

import crossdock
import crossdock.arrow
from crossdock import ConfigError, DataCorrupt, SchemaMismatch, Shuffle
from crossdock.arrow import Given, Hash, Order, Range, RoundRobin, hash_rows, partition_of
from crossdock.arrow.messages import HEADER_BYTES, Kind, messages
from crossdock.arrow.plain import plain_batch

SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.string())])


def rows(first: int, count: int) -> pa.Table:
    keys = np.arange(first, first + count)
    return pa.table({"k": keys, "v": [f"value {k}" for k in keys]}, schema=SCHEMA)


def write(shuffle: Shuffle, map_id: int, data: Any, **options: Any) -> None:
    schema = options.pop("schema", SCHEMA)
    options = {"keys": ["k"], **options} if "partitioning" not in options else options
    with crossdock.arrow.writer((shuffle, map_id, 0), schema, **options) as writer:
        writer.write(data)


def view_of(shuffle: Shuffle, maps: int) -> crossdock.View:
    return shuffle.view(dict.fromkeys(range(maps), 0))


class Collected:
    """A target in memory: the blocks as a reader would get them."""

    def __init__(self, partitions: int, piece_bytes: int = 2**23) -> None:
        self.partitions = partitions
        self.piece_bytes = piece_bytes
        self.blocks: dict[int, bytes] = {}
        self.ended = ""

    def writer(self) -> "Collected":
        return self

    def write(self, partition: int, data: Any, *, rows: int = 0) -> None:  # noqa: ARG002
        self.blocks[partition] = self.blocks.get(partition, b"") + bytes(data)

    def write_batch(self, partitions: Any, data: Any, lengths: Any, rows: Any = None) -> None:
        assert sum(lengths) == len(data)
        assert max(lengths) <= self.piece_bytes
        at = 0
        for partition, length, count in zip(partitions, lengths, rows, strict=True):
            self.write(int(partition), data[at : at + length], rows=int(count))
            at += length

    def commit(self) -> None:
        self.ended = "commit"

    def abort(self) -> None:
        self.ended = "abort"

    def messages(self) -> Iterator[Any]:
        for partition, block in sorted(self.blocks.items()):
            for message in messages(memoryview(block), "block"):
                if message.kind is not Kind.SCHEMA:
                    yield partition, message

    def rows(self, schema: pa.Schema) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for partition, message in self.messages():
            batch = pa.ipc.read_record_batch(message.parsed, schema)
            batch.validate(full=True)
            found.setdefault(partition, []).extend(batch.to_pylist())
        return found


# -- through workers -----------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_rows_come_out_where_their_hash_says(job: crossdock.Job, compression: Any) -> None:
    shuffle = job.shuffle("s", partitions=5)
    for map_id in range(3):
        write(shuffle, map_id, rows(map_id * 1000, 1000), compression=compression)
    view = view_of(shuffle, 3)
    assert int(view.rows.sum()) == 3000
    seen = []
    for partition in range(5):
        table = crossdock.arrow.read(view, partition).read_all()
        assert table.schema == SCHEMA
        assert table.num_rows == view.rows[partition]
        batch = table.combine_chunks().to_batches()[0]
        assert (partition_of(hash_rows(batch, ["k"]), 5) == partition).all()
        keys = table["k"].to_pylist()
        assert keys == sorted(keys), "by map, and within it in the order of writing"
        seen += keys
    assert sorted(seen) == list(range(3000))
    whole = crossdock.arrow.read(view, range(1, 4), maps=range(1, 2)).read_all()
    assert set(whole["k"].to_pylist()) == {
        k for k in range(1000, 2000) if partition_of(hash_rows(
            pa.record_batch([pa.array([k])], ["k"]), ["k"]), 5)[0] in {1, 2, 3}
    }  # fmt: skip


def test_columns_are_read_alone(job: crossdock.Job) -> None:
    schema = pa.schema([("a", pa.int8()), ("b", pa.list_(pa.string())), ("c", pa.float32())])
    table = pa.table({"a": [1, 2], "b": [["x"], None], "c": [0.5, None]}, schema=schema)
    for i, compression in enumerate(("zstd", "none")):
        shuffle = job.shuffle(f"s{i}", partitions=1)
        write(shuffle, 0, table, schema=schema, keys=["a"], compression=compression)
        for columns in (["c", "a"], ["b"], [], ["a", "b", "c"]):
            reader = crossdock.arrow.read(view_of(shuffle, 1), columns=columns)
            assert reader.schema.names == columns
            got = reader.read_all()
            assert got.num_rows == 2
            assert got == table.select(columns)
        for wrong in (["d"], "a"):
            with pytest.raises(ConfigError):
                crossdock.arrow.read(view_of(shuffle, 1), columns=wrong)


def test_maps_without_rows_and_shuffles_without_maps(job: crossdock.Job) -> None:
    shuffle = job.shuffle("s", partitions=3)
    write(shuffle, 0, [])
    write(shuffle, 1, rows(0, 0))
    reader = crossdock.arrow.read(view_of(shuffle, 2), range(1, 3))
    assert reader.schema == SCHEMA
    assert reader.read_all().num_rows == 0
    nothing = job.shuffle("nothing", partitions=3).view({})
    with pytest.raises(ConfigError, match="schema="):
        crossdock.arrow.read(nothing)
    assert crossdock.arrow.read(nothing, schema=SCHEMA).read_all() == SCHEMA.empty_table()


def test_over_two_workers(two_worker_cluster: crossdock.Cluster, job_uid: str) -> None:
    with two_worker_cluster.job(job_uid, owner="runner") as job:
        shuffle = job.shuffle("s", partitions=8)
        for map_id in range(4):
            write(shuffle, map_id, rows(map_id * 500, 500))
        keys = crossdock.arrow.read(view_of(shuffle, 4)).read_all()["k"].to_pylist()
        assert sorted(keys) == list(range(2000))


def test_a_tasks_input_says_what_is_read(job: crossdock.Job) -> None:
    shuffle = job.shuffle("s", partitions=4)
    for map_id in range(2):
        write(shuffle, map_id, rows(map_id * 100, 100))

    class Input:
        view = view_of(shuffle, 2)
        partitions = range(1, 3)
        maps = range(1, 2)

    got = crossdock.arrow.read(Input()).read_all()
    expected = crossdock.arrow.read(Input.view, range(1, 3), maps=range(1, 2)).read_all()
    assert got == expected
    assert 0 < got.num_rows < 100


def test_an_exception_gives_the_attempt_up(job: crossdock.Job) -> None:
    shuffle = job.shuffle("s", partitions=2)
    writer = crossdock.arrow.writer((shuffle, 0, 0), SCHEMA, keys=["k"])
    with suppress(ZeroDivisionError), writer:
        writer.write(rows(0, 10))
        raise ZeroDivisionError
    with pytest.raises(ConfigError, match="aborted already"):
        writer.write(rows(0, 1))
    with pytest.raises(crossdock.BlocksLost):
        view_of(shuffle, 1)


# -- schemas -------------------------------------------------------------------------------------

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


# -- what is written -----------------------------------------------------------------------------


@given(st.integers(1, 12).flatmap(lambda n: st.lists(arrays(n), min_size=1, max_size=3)), st.data())
@settings(max_examples=60)
def test_every_type_travels(columns: list[pa.Array], data: st.DataObject) -> None:
    batch = pa.RecordBatch.from_arrays(columns, [f"c{i}" for i in range(len(columns))])
    target = Collected(3)
    options: Any = {
        "compression": data.draw(st.sampled_from(["none", "zstd"])),
        "threads": data.draw(st.integers(1, 2)),
        "buffer_bytes": data.draw(st.sampled_from([1, 500, 10**6])),
    }
    with crossdock.arrow.writer(target, batch.schema, keys=["c0"], **options) as writer:
        for _ in range(2):
            writer.write(batch)
    plain = plain_batch(batch)
    ids = partition_of(hash_rows(batch, ["c0"]), 3)
    got = {}
    for partition, message in target.messages():
        part = pa.ipc.read_record_batch(message.parsed, plain.schema)
        part.validate(full=True)
        got.setdefault(partition, []).append(part)
    for partition in range(3):
        expected = [plain.take(pa.array(np.flatnonzero(ids == partition)))] * 2
        assert words(got.get(partition, [])) == words(expected)


def words(batches: list[pa.RecordBatch]) -> list[list[int]]:
    """Return the words of all values, row by row: equal ones have one word, NaN too."""
    return [[reference.word(c[i]) for c in b.columns] for b in batches for i in range(b.num_rows)]


def test_blocks_have_the_size_asked_for() -> None:
    target = Collected(8)
    batches = (rows(i, 100) for i in range(0, 400_000, 100))
    options: Any = {"compression": "none", "block_bytes": 100_000, "buffer_bytes": 4_000_000}
    with crossdock.arrow.writer(target, SCHEMA, keys=["k"], **options) as writer:
        writer.write(batches)
    sizes = [len(message.data) for _, message in target.messages()]
    assert writer.rows == 400_000
    assert np.median(sizes) > 70_000
    assert max(sizes) < 200_000
    found = target.rows(SCHEMA)
    assert sum(map(len, found.values())) == 400_000
    for values in found.values():
        keys = [row["k"] for row in values]
        assert keys == sorted(keys)


def test_small_partitions_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """When memory must be freed the largest partitions go: the others' blocks still get large."""
    target = Collected(4)
    hot = pa.array(np.where(np.arange(2000) % 100, 0, 1 + np.arange(2000) // 100 % 3))
    options: Any = {"compression": "none", "block_bytes": 20_000, "buffer_bytes": 200_000}
    with crossdock.arrow.writer(target, SCHEMA, partitioning=Given(), **options) as writer:
        for first in range(0, 100_000, 2000):
            writer.write(rows(first, 2000), partitions=hot)
    count = {p: sum(1 for q, _ in target.messages() if q == p) for p in range(4)}
    assert count[0] > 50
    assert all(count[p] <= 3 for p in (1, 2, 3)), count
    assert sum(map(len, target.rows(SCHEMA).values())) == 100_000


def test_memory_is_bounded() -> None:
    pool, bound, peak = pa.system_memory_pool(), 8 * 2**20, 0

    class Watching(Collected):
        def write(self, *_: Any, **__: Any) -> None:
            nonlocal peak
            peak = max(peak, pool.bytes_allocated() - before)

    before = pool.bytes_allocated()
    one = pa.table({"k": np.arange(20_000), "v": ["x" * 50] * 20_000}, schema=SCHEMA)
    with crossdock.arrow.writer(
        Watching(16), SCHEMA, keys=["k"], buffer_bytes=bound, threads=2
    ) as writer:
        for _ in range(100):  # 130 MB
            writer.write(one)
    assert bound / 2 < peak < 2.5 * bound
    assert pool.bytes_allocated() - before < 2**20


def test_rows_larger_than_a_piece(job: crossdock.Job) -> None:
    big = pa.table({"k": [1, 2], "v": ["x" * 20_000_000, "y"]}, schema=SCHEMA)
    shuffle = job.shuffle("s", partitions=2)
    write(shuffle, 0, big, compression="none")
    got = crossdock.arrow.read(view_of(shuffle, 1)).read_all()
    assert sorted(len(v) for v in got["v"].to_pylist()) == [1, 20_000_000]


def test_encoded_columns_travel_as_values() -> None:
    texts = pa.array(["a", "b", None, "a"])
    given_rows = pa.table({"d": texts.dictionary_encode(), "v": texts.cast(pa.string_view())})
    target = Collected(1)
    with crossdock.arrow.writer(target, given_rows.schema, keys=["d"]) as writer:
        writer.write(given_rows)
        writer.write(pa.table({"v": texts, "d": texts}))
    assert writer.schema == pa.schema([("d", pa.string()), ("v", pa.string())])
    assert target.rows(writer.schema)[0] == [{"d": v, "v": v} for v in texts.to_pylist()] * 2


def test_other_partitionings() -> None:
    data = rows(0, 100)
    turns = Collected(3)
    with crossdock.arrow.writer(
        turns, SCHEMA, partitioning=RoundRobin(), buffer_bytes=4000
    ) as writer:
        for batch in data.to_batches(7):
            writer.write(batch)
    assert {p: [r["k"] for r in v] for p, v in turns.rows(SCHEMA).items()} == {
        p: list(range(p, 100, 3)) for p in range(3)
    }
    ranges = Collected(3)
    cut = Range([Order("k")], pa.record_batch([pa.array([10, 50])], ["k"]))
    with crossdock.arrow.writer(ranges, SCHEMA, partitioning=cut) as writer:
        writer.write(data)
    assert [len(v) for v in ranges.rows(SCHEMA).values()] == [10, 40, 50]


def test_wrong_arguments() -> None:
    data, target = rows(0, 3), Collected(2)

    def attempt(partitions: Any = None, given_rows: Any = data, **options: Any) -> None:
        with crossdock.arrow.writer(target, SCHEMA, **options) as writer:
            writer.write(given_rows, partitions=partitions)

    wrong: Iterable[tuple[dict[str, Any], str]] = [
        ({}, "either keys= or"),
        ({"keys": ["k"], "partitioning": Hash(["k"])}, "either keys= or"),
        ({"keys": "k"}, "no list"),
        ({"keys": ["z"]}, "0 columns are named 'z'"),
        ({"keys": ["k"], "compression": "gzip"}, "gzip"),
        ({"keys": ["k"], "buffer_bytes": 0}, "more than 0"),
        ({"keys": ["k"], "partitions": [0, 0, 0]}, "if, and only if"),
        ({"partitioning": Given()}, "if, and only if"),
        ({"partitioning": Given(), "partitions": [0, 1]}, "one id for each row"),
        ({"partitioning": Given(), "partitions": [0, 1, 2]}, "not one of the shuffle's 2"),
        ({"partitioning": Given(), "partitions": [0, -1, 0]}, "not one of the shuffle's 2"),
        ({"partitioning": Given(), "partitions": [0.0, 1.0, 0.0]}, "not integers"),
        ({"keys": ["k"], "given_rows": [1]}, "no batch"),
    ]
    for options, message in wrong:
        with pytest.raises(ConfigError, match=message):
            attempt(**options)


# -- what is read --------------------------------------------------------------------------------


def test_small_batches_are_joined(job: crossdock.Job) -> None:
    shuffle = job.shuffle("s", partitions=50)
    for map_id in range(4):
        write(shuffle, map_id, rows(map_id * 1000, 1000))
    reader = crossdock.arrow.read(view_of(shuffle, 4))
    assert [batch.num_rows for batch in reader] == [4000]


def test_uncompressed_rows_are_not_copied(job: crossdock.Job) -> None:
    shuffle = job.shuffle("s", partitions=1)
    schema = pa.schema([("k", pa.int64())])
    data = pa.table({"k": np.arange(600_000)})
    write(shuffle, 0, data, schema=schema, compression="none")
    before = pa.total_allocated_bytes()
    batches = list(crossdock.arrow.read(view_of(shuffle, 1)))
    assert pa.total_allocated_bytes() - before < 100_000
    assert sum(batch.num_rows for batch in batches) == 600_000


def test_blocks_that_are_no_arrow(job: crossdock.Job) -> None:
    shuffle = job.shuffle("s", partitions=2)
    with shuffle.writer(map_id=0, attempt=0) as writer:
        writer.write(1, b"no arrow", rows=1)
    with pytest.raises(DataCorrupt, match="no schema"):
        crossdock.arrow.read(view_of(shuffle, 1))
    with shuffle.writer(map_id=1, attempt=0) as writer:
        writer.write(0, b"no arrow but long enough", rows=1)
    with pytest.raises(DataCorrupt, match=r"not written by crossdock\.arrow"):
        crossdock.arrow.read(shuffle.view({1: 0}))


@given(st.data())
@settings(max_examples=40)
def test_damaged_messages_are_errors_of_ours(job: crossdock.Job, data: st.DataObject) -> None:
    """Whatever a foreign writer put there: rows, or an error of the hierarchy; never a crash."""
    target = Collected(1)
    compression: Any = data.draw(st.sampled_from(["none", "zstd"]))
    with crossdock.arrow.writer(target, SCHEMA, keys=["k"], compression=compression) as writer:
        writer.write(rows(0, 20))
    block = bytearray(target.blocks[0])
    first = next(messages(memoryview(target.blocks[0]), "x"))
    begin = HEADER_BYTES + len(first.data)  # the rows' message, header and metadata
    kind = data.draw(st.sampled_from(["flip", "cut", "append"]))
    if kind == "flip":
        at = data.draw(st.integers(begin, min(begin + 300, len(block) - 1)))
        block[at] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        block = block[: data.draw(st.integers(begin + 1, len(block) - 1))]
    else:
        block += data.draw(st.binary(min_size=1, max_size=40))
    shuffle = job.shuffle(f"s{data.draw(st.integers(0, 2**60))}", partitions=1)
    with shuffle.writer(map_id=0) as pieces:
        pieces.write(0, bytes(block), rows=20)
    view = shuffle.view({0: pieces.attempt})
    try:
        got = crossdock.arrow.read(view).read_all()
    except DataCorrupt:
        return
    assert kind == "flip"
    assert got.num_rows == 20


def test_offsets_beyond_the_strings(job: crossdock.Job) -> None:
    target = Collected(1)
    with crossdock.arrow.writer(target, SCHEMA, keys=["k"], compression="none") as writer:
        writer.write(pa.table({"k": [1, 2], "v": ["abc", "defgh"]}, schema=SCHEMA))
    right, wrong = (np.array([0, 3, end], np.int32).tobytes() for end in (8, 2**30))
    assert target.blocks[0].count(right) == 1
    shuffle = job.shuffle("s", partitions=1)
    with shuffle.writer(map_id=0, attempt=0) as pieces:
        pieces.write(0, target.blocks[0].replace(right, wrong), rows=2)
    with pytest.raises(DataCorrupt, match="block of map 0 partition 0: a batch of rows is damaged"):
        crossdock.arrow.read(view_of(shuffle, 1)).read_all()


def test_a_wrong_count_of_rows(job: crossdock.Job) -> None:
    target = Collected(1)
    with crossdock.arrow.writer(target, SCHEMA, keys=["k"]) as writer:
        writer.write(rows(0, 20))
    shuffle = job.shuffle("s", partitions=1)
    with shuffle.writer(map_id=0, attempt=0) as pieces:
        pieces.write(0, target.blocks[0], rows=21)
    with pytest.raises(DataCorrupt, match="20 rows, and its writer counted 21"):
        crossdock.arrow.read(view_of(shuffle, 1)).read_all()


def test_engines_read_it(job: crossdock.Job) -> None:
    duckdb = pytest.importorskip("duckdb")
    shuffle = job.shuffle("s", partitions=3)
    write(shuffle, 0, rows(0, 1000))
    reader = crossdock.arrow.read(view_of(shuffle, 1))
    with duckdb.connect() as connection:
        connection.register("t", reader)
        assert connection.execute("select sum(k) from t").fetchone() == (499_500,)
    assert pc.sum(crossdock.arrow.read(view_of(shuffle, 1), columns=["k"]).read_all()["k"]).as_py()
