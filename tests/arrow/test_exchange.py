"""Rows that go in come out, through real workers; blocks that are damaged are errors."""

from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import SCHEMA, Collected, rows, view_of, write

import crossdock
import crossdock.arrow
from crossdock import ConfigError, DataCorrupt
from crossdock.arrow import hash_rows, partition_of
from crossdock.arrow.messages import HEADER_BYTES, messages


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


def test_a_reader_that_is_given_up(job: crossdock.Job) -> None:
    shuffle = job.shuffle("s", partitions=4)
    for map_id in range(3):
        write(shuffle, map_id, rows(map_id * 200_000, 200_000))
    before = pa.total_allocated_bytes()
    reader = crossdock.arrow.read(view_of(shuffle, 3))
    assert reader.read_next_batch().num_rows
    reader.close()
    del reader
    assert pa.total_allocated_bytes() - before < 100_000
    assert crossdock.arrow.read(view_of(shuffle, 3)).read_all().num_rows == 600_000


def test_loss_comes_through_a_reader(two_worker_cluster: crossdock.Cluster, job_uid: str) -> None:
    with two_worker_cluster.job(job_uid, owner="runner") as job:
        shuffle = job.shuffle("s", partitions=2)
        write(shuffle, 0, rows(0, 10))
        reader = crossdock.arrow.read(view_of(shuffle, 1))
        shuffle.release()
        with pytest.raises(crossdock.CrossdockError):
            reader.read_all()
