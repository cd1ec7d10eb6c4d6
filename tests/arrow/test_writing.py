"""What writers make of rows: every type, blocks of a good size, bounded memory, clear errors."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import arrays
from rows import SCHEMA, Collected, rows, view_of, write

import crossdock
import crossdock.arrow
from crossdock import ConfigError
from crossdock.arrow import Given, Hash, Order, Range, RoundRobin, hash_rows, partition_of
from crossdock.arrow.plain import plain_batch


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


BIG = "x" * 1000
ROWS = 100_000


def _plain() -> pa.Array:
    return pa.array([BIG] * ROWS)


def _dictionary() -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.arange(ROWS) % 3, pa.uint64()), [BIG] * 3)


def _runs() -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(pa.array([1, ROWS + 5], pa.int32()), ["", BIG])[5:]


def _views() -> pa.Array:
    return _plain().cast(pa.string_view())


def _lists() -> pa.Array:
    return pa.ListArray.from_arrays(np.arange(ROWS + 1), _dictionary())


def _list_views() -> pa.Array:
    ones = pa.array(np.ones(ROWS), pa.int32())
    return pa.ListViewArray.from_arrays(np.arange(ROWS), ones, _dictionary())


def _fixed_lists() -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(_dictionary(), 1)


def _maps() -> pa.Array:
    return pa.MapArray.from_arrays(np.arange(ROWS + 1), np.arange(ROWS), _dictionary())


def _structs() -> pa.Array:
    return pa.StructArray.from_arrays([_dictionary()], ["a"])


def _large_rows_last() -> pa.Array:
    return pa.array([""] * 95_000 + [BIG * 20] * 5000)


MAKERS = (
    _plain, _dictionary, _runs, _views, _lists, _list_views, _fixed_lists, _maps, _structs,
    _large_rows_last,
)  # fmt: skip


@pytest.mark.parametrize("make", MAKERS, ids=[make.__name__[1:] for make in MAKERS])
@pytest.mark.parametrize("threads", [1, 4])
def test_memory_is_bounded(make: Callable[[], pa.Array], threads: int) -> None:
    """Whatever the columns are encoded as: 100 MB as they travel, in 8 MiB."""
    pool, bound, peak = pa.system_memory_pool(), 8 * 2**20, 0

    class Watching(Collected):
        def write(self, *_: Any, **__: Any) -> None:
            nonlocal peak
            peak = max(peak, pool.bytes_allocated() - before)

    one = pa.table({"k": np.arange(ROWS), "v": make()})
    before = pool.bytes_allocated()
    options: Any = {"buffer_bytes": bound, "threads": threads, "block_bytes": 2**18}
    with crossdock.arrow.writer(Watching(16), one.schema, keys=["k"], **options) as writer:
        writer.write(one)
    assert writer.rows == ROWS
    assert bound / 2 < peak < 2 * bound
    assert pool.bytes_allocated() - before < 2**20


@pytest.mark.parametrize("kind", [pa.null(), pa.struct([]), pa.bool_()])
def test_rows_that_take_no_bytes(kind: pa.DataType) -> None:
    schema = pa.schema([("n", kind)])
    target = Collected(3)
    with crossdock.arrow.writer(target, schema, partitioning=RoundRobin()) as writer:
        writer.write(pa.table({"n": pa.nulls(100, kind)}))
    assert sorted(len(found) for found in target.rows(schema).values()) == [33, 33, 34]


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


@pytest.mark.parametrize(
    "options",
    [
        {"keys": ["z"]},
        {"partitioning": Range([Order("k")], pa.record_batch([pa.array([0.5])], ["k"]))},
        {"partitioning": Range([Order("k")], pa.record_batch([pa.array([1, 2])], ["k"]))},
        {"keys": ["k"], "block_bytes": 0},
        {"keys": ["k"], "threads": 0},
        {"keys": ["k"], "schema": pa.schema([])},
    ],
)
def test_wrong_arguments_are_told_before_rows_come(options: dict[str, Any]) -> None:
    target = Collected(2)
    with pytest.raises(ConfigError):
        crossdock.arrow.writer(target, **{"schema": SCHEMA, **options})
    assert target.ended == "abort"
    assert not target.blocks


@pytest.mark.parametrize("threads", [1, 2])
def test_nobody_commits_after_rows_were_lost(threads: int) -> None:
    """Rows that were being sorted when it failed are gone, so going on would lose them silently."""

    class Failing:
        def assign(self, batch: pa.RecordBatch, *, partitions: int, first_row: int) -> Any:
            del first_row
            return np.full(batch.num_rows, partitions if batch.num_rows else 0)

    target = Collected(2)
    options: Any = {"partitioning": Failing(), "buffer_bytes": 1000, "threads": threads}
    writer = crossdock.arrow.writer(target, SCHEMA, **options)
    with pytest.raises(ConfigError, match="not one of the shuffle's 2"):
        writer.write(rows(0, 1000))
    with pytest.raises(ConfigError, match="lost by an error before"):
        writer.write(rows(0, 1))
    with pytest.raises(ConfigError, match="lost by an error before"), writer:
        pass
    assert target.ended == "abort"
