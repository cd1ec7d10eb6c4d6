"""The hash is what docs/protocol.md says, for every type and layout, and stays so."""

import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from kinds import arrays, make

from crossdock import ConfigError
from crossdock.arrow import hash_rows, partition_of

D = decimal.Decimal


def hash_of(values: list[Any], kind: pa.DataType) -> list[int]:
    return hash_rows(pa.record_batch([make(values, kind)], ["k"]), ["k"]).tolist()


def test_golden_values() -> None:
    """Written down once; a change of any of them would tear running jobs apart."""
    words = [0, 1, -1, 2**63 - 1, None]
    assert hash_of(words, pa.int64()) == GOLDEN_INTEGERS
    texts = ["", "a", "12345678", "123456789", "é" * 200, None]
    assert hash_of(texts, pa.string()) == GOLDEN_TEXTS
    numbers = [0.0, -0.0, 1.5, math.nan, math.inf]
    assert hash_of(numbers, pa.float64()) == GOLDEN_NUMBERS
    assert hash_of([[1, 2], [], None], pa.list_(pa.int64())) == GOLDEN_LISTS
    two = pa.record_batch([pa.array([7, 8]), pa.array(["x", None])], ["a", "b"])
    assert hash_rows(two, ["a", "b"]).tolist() == GOLDEN_ROWS
    assert partition_of(np.array(GOLDEN_INTEGERS, np.uint64), 200).tolist() == GOLDEN_PARTITIONS


@given(st.integers(0, 12).flatmap(lambda n: st.lists(arrays(n), min_size=1, max_size=3)))
def test_every_type_agrees_with_the_reference(columns: list[pa.Array]) -> None:
    names = [f"c{i}" for i in range(len(columns))]
    batch = pa.RecordBatch.from_arrays(columns, names)
    expected = [reference.row_hash(columns, row) for row in range(batch.num_rows)]
    assert hash_rows(batch, names).tolist() == expected


@given(st.lists(st.binary(max_size=300) | st.binary(min_size=500, max_size=600), max_size=40))
def test_strings_of_all_lengths(values: list[bytes]) -> None:
    expected = [reference.hash_words([reference.hash_bytes(value)]) for value in values]
    assert hash_of(values, pa.binary()) == expected


def test_very_long_values() -> None:
    """Segments of segments; and a loop over words would take minutes."""
    long = bytes(range(256)) * 40_000
    short = [b"abc"] * 1000
    hashes = hash_of([*short, long, long[:-1], long[:70_000]], pa.binary())
    assert len(set(hashes)) == 4
    assert hashes[-1] == reference.hash_words([reference.hash_bytes(long[:70_000])])
    many = pa.array([list(range(100_000)), [1]], pa.list_(pa.int32()))
    first = hash_rows(pa.record_batch([many], ["k"]), ["k"])[0]
    assert first == reference.hash_words([reference.hash_words(range(100_000))])


EQUAL: list[tuple[pa.Array, pa.Array]] = [
    (pa.array([5, -5], pa.int8()), pa.array([5, -5], pa.int64())),
    (pa.array([5], pa.uint16()), pa.array([5], pa.int32())),
    (pa.array([True, False]), pa.array([1, 0], pa.int32())),
    (pa.array([1.5], pa.float32()), pa.array([1.5], pa.float64())),
    (pa.array([np.float16(0.25)]), pa.array([0.25])),
    (pa.array([0.0]), pa.array([-0.0])),
    (pa.array([math.nan]), pa.array([-math.nan], pa.float32())),
    (pa.array([D("1.10")], pa.decimal32(5, 2)), pa.array([D("1.10")], pa.decimal256(50, 2))),
    (pa.array([D(-(10**30))], pa.decimal128(38)), pa.array([D(-(10**30))], pa.decimal256(60))),
    (pa.array([86_400], pa.timestamp("s")), pa.array([86_400_000_000], pa.timestamp("us", "UTC"))),
    (pa.array([3], pa.time32("s")), pa.array([3_000_000_000], pa.time64("ns"))),
    (make([2], pa.date32()), make([172_800_000], pa.date64())),
    (pa.array(["aé", None]), pa.array(["aé", None], pa.large_string())),
    (pa.array(["a" * 20]), pa.array(["a" * 20], pa.string_view())),
    (pa.array(["abc"]), pa.array([b"abc"], pa.binary(3))),
    (pa.array(["a", "b", None, "a"]), pa.array(["a", "b", None, "a"]).dictionary_encode()),
    (pa.array([1, 1, None]), pc.run_end_encode(pa.array([1, 1, None]))),
    (pa.array([[1, 2]], pa.list_(pa.int8())), pa.array([[1, 2]], pa.list_(pa.int64(), 2))),
    (pa.array([[1, 2]], pa.large_list(pa.int8())), pa.array([[1, 2]], pa.list_view(pa.int64()))),
    (pa.array([None], pa.null()), pa.array([None], pa.decimal128(5))),
    (
        pa.array([b"0123456789abcdef"], pa.binary(16)),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"], pa.binary(16))),
    ),
]


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=lambda a: str(a.type)[:40])
def test_what_is_equal_hashes_alike(one: pa.Array, other: pa.Array) -> None:
    hashes = [hash_rows(pa.record_batch([a], ["k"]), ["k"]).tolist() for a in (one, other)]
    assert hashes[0] == hashes[1]


def test_what_differs_hashes_apart() -> None:
    texts = ["", "\0", "\0\0", "a", "a\0", "b", None]
    assert len(set(hash_of(texts, pa.string()))) == len(texts)
    lists = [[], [None], [1], [1, None], [None, 1], None]
    assert len(set(hash_of(lists, pa.list_(pa.int8())))) == len(lists)
    swapped = pa.record_batch([pa.array([1, 2]), pa.array([2, 1])], ["a", "b"])
    assert len(set(hash_rows(swapped, ["a", "b"]).tolist())) == 2


@pytest.mark.parametrize("partitions", [1, 7, 200, 256, 257, 70_000])
def test_partitions_are_even(partitions: int) -> None:
    rows = 200 * partitions if partitions < 1000 else 10 * partitions
    for values in (pa.array(range(rows)), pa.array(range(rows)).cast(pa.string())):
        ids = partition_of(hash_rows(pa.record_batch([values], ["k"]), ["k"]), partitions)
        counts = np.bincount(ids, minlength=partitions)
        assert len(counts) == partitions
        mean = rows / partitions
        assert abs(counts - mean).max() < 7 * math.sqrt(mean) + 1


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**32 - 1))
def test_partition_of_any_hash(value: int, partitions: int) -> None:
    found = partition_of(np.array([value], np.uint64), partitions)
    assert found.tolist() == [reference.partition(value, partitions)]


def test_more_than_32_key_columns() -> None:
    names = [f"c{i}" for i in range(70)]
    columns = [pa.array([i, None]) for i in range(70)]
    batch = pa.RecordBatch.from_arrays(columns, names)
    expected = [reference.row_hash(columns, row) for row in range(2)]
    assert hash_rows(batch, names).tolist() == expected


def test_tables_hash_like_their_rows() -> None:
    chunks = pa.table({"k": pa.chunked_array([[1, 2], [], [3]]), "x": [1, 2, 3]})
    assert hash_rows(chunks, ["k"]).tolist() == hash_of([1, 2, 3], pa.int64())
    assert hash_rows(chunks.slice(0, 0), ["k"]).tolist() == []


def test_wrong_keys() -> None:
    batch = pa.record_batch([pa.array([1]), pa.array([2])], ["a", "a"])
    for keys in (["b"], ["a"], [], "a"):
        with pytest.raises(ConfigError):
            hash_rows(batch, keys)
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(ConfigError, match="union"):
        hash_rows(pa.record_batch([union], ["u"]), ["u"])


GOLDEN_INTEGERS = [
    0xA97316F13CDB9EEA,
    0xB0C10BF17D5C059C,
    0xD74B34A392F343CE,
    0x87347222C7DC108D,
    0x6B8173FA87AEF133,
]
GOLDEN_TEXTS = [
    0xFFECD243F7509317,
    0x707CA4FA93C3B491,
    0x29F20F0DC0F76926,
    0x4FF54C70E634DB4E,
    0xD199C6BF928F06A0,
    0x6B8173FA87AEF133,
]
GOLDEN_NUMBERS = [
    0xA97316F13CDB9EEA,
    0xA97316F13CDB9EEA,
    0x8FEB79E392B53AC6,
    0x015BA5DED59778DE,
    0x2F56F2F957E1DC30,
]
GOLDEN_LISTS = [
    0x5CF7B1B89562D86C,
    0xFFECD243F7509317,
    0x6B8173FA87AEF133,
]
GOLDEN_ROWS = [
    0xE359687805A05623,
    0xAE853A0A65078C46,
]
GOLDEN_PARTITIONS = [132, 138, 168, 105, 83]
