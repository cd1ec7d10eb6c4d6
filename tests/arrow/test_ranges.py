"""Where rows go: ranges for every ordered type, turns, given ids; samples and boundaries."""

import functools
import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kinds import FLAT, make

from crossdock import ConfigError
from crossdock.arrow import Given, Hash, Order, Range, RoundRobin, sample

ORDERED = [(kind, values) for kind, values in FLAT if not pa.types.is_interval(kind)]


def assign(partitioning: Any, batch: pa.RecordBatch, partitions: int, first_row: int = 0) -> Any:
    return partitioning.assign(batch, partitions=partitions, first_row=first_row)


def compare(a: Any, b: Any, order: Order) -> int:
    """Compare two stored values as `Range` says."""
    if a is None or b is None:
        behind = (a is None) - (b is None)
        return behind if order.nulls == "last" else -behind
    if isinstance(a, str):
        a, b = a.encode(), b.encode()
    nan_a, nan_b = bool(a != a), bool(b != b)  # noqa: PLR0124 -- numbers of any type
    sign = nan_a - nan_b if nan_a or nan_b else int(a > b) - int(a < b)
    return -sign if order.descending else sign


@st.composite
def sorting_tasks(draw: st.DrawFn) -> tuple[pa.RecordBatch, list[Order], list[list[Any]], int]:
    rows, width = draw(st.integers(0, 25)), draw(st.integers(1, 3))
    columns, orders, values = [], [], []
    for i in range(width):
        kind, items = draw(st.sampled_from(ORDERED))
        pool = draw(st.lists(items | st.none(), min_size=1, max_size=6))  # so that some are equal
        column = draw(st.lists(st.sampled_from(pool), min_size=rows, max_size=rows))
        columns.append(make(column, kind))
        values.append(column)
        nulls = draw(st.sampled_from(["first", "last"]))
        orders.append(Order(f"c{i}", descending=draw(st.booleans()), nulls=nulls))
    names = [order.column for order in orders]
    return pa.RecordBatch.from_arrays(columns, names), orders, values, draw(st.integers(1, 9))


@given(sorting_tasks())
def test_ranges_are_in_order(
    task: tuple[pa.RecordBatch, list[Order], list[list[Any]], int],
) -> None:
    """Against comparing the rows one by one, with boundaries chosen from the rows themselves."""
    batch, orders, values, partitions = task

    def of_rows(a: int, b: int) -> int:
        signs = (compare(v[a], v[b], o) for v, o in zip(values, orders, strict=True))
        return next((sign for sign in signs if sign), 0)

    ranges = Range.from_samples(batch, orders, partitions=partitions)
    ids = assign(ranges, batch, partitions).tolist()
    assert all(0 <= p < partitions for p in ids)
    ordered = sorted(range(batch.num_rows), key=functools.cmp_to_key(of_rows))
    assert [ids[row] for row in ordered] == sorted(ids)
    for a, b in itertools.pairwise(ordered):
        if of_rows(a, b) == 0:
            assert ids[a] == ids[b]


def test_rows_equal_to_a_boundary_begin_its_range() -> None:
    boundaries = pa.record_batch([pa.array([10, 20])], ["k"])
    rows = pa.record_batch([pa.array([9, 10, 19, 20, 99, None])], ["k"])
    assert assign(Range([Order("k")], boundaries), rows, 5).tolist() == [0, 1, 1, 2, 2, 2]
    first = Range([Order("k", nulls="first")], boundaries)
    assert assign(first, rows, 3).tolist() == [0, 1, 1, 2, 2, 0]


def test_strings_beyond_the_longest_boundary() -> None:
    boundaries = pa.record_batch([pa.array(["abc", "abcdefgh"])], ["k"])
    rows = pa.record_batch([pa.array(["ab", "abc", "abc\0", "abcdefgg", "abcdefgh", "abcdefgh\0"])],
                           ["k"])  # fmt: skip
    assert assign(Range([Order("k")], boundaries), rows, 3).tolist() == [0, 1, 1, 1, 2, 2]


def test_a_string_that_begins_a_boundary_is_below_it() -> None:
    boundaries = pa.record_batch([pa.array(["abc\0"])], ["k"])
    rows = pa.record_batch([pa.array(["abc", "abc\0", "abc\0\0"])], ["k"])
    assert assign(Range([Order("k")], boundaries), rows, 2).tolist() == [0, 1, 1]


def test_even_ranges_of_a_sample() -> None:
    random = np.random.default_rng(1)
    keys = pa.table({"k": random.normal(size=100_000), "other": np.arange(100_000)})
    chosen = sample(keys, 4000, seed=3)
    assert chosen.num_rows == 4000
    ranges = Range.from_samples(chosen.select(["k"]), ["k"], partitions=20)
    counts = np.bincount(assign(ranges, keys.to_batches()[0], 20), minlength=20)
    assert counts.min() > 3500
    assert counts.max() < 6500


def test_samples_are_fair_and_repeatable() -> None:
    rows = [pa.record_batch([pa.array(range(i, i + 10))], ["k"]) for i in range(0, 100, 10)]
    counts = np.zeros(100)
    for seed in range(600):
        counts[sample(iter(rows), 20, seed=seed)["k"].to_numpy()] += 1
    assert abs(counts - 120).max() < 6 * math.sqrt(120)
    assert sample(rows, 20, seed=1) == sample(rows, 20, seed=1)
    assert sample(rows, 500).num_rows == 100
    assert sample(pa.table({"k": [1]}).slice(0, 0), 5).num_rows == 0


def test_few_samples_make_few_ranges() -> None:
    for values, count in (([], 0), ([7], 0), ([7, 7, 7, 7], 1), ([1, 2], 1)):
        samples = pa.table({"k": pa.array(values, pa.int64())})
        ranges = Range.from_samples(samples, ["k"], partitions=3)
        assert ranges.boundaries.num_rows <= max(count, 1)
        rows = pa.record_batch([pa.array([0, 7, 8])], ["k"])
        assert max(assign(ranges, rows, 3)) < 3


def test_wrong_ranges() -> None:
    falling = pa.record_batch([pa.array([2, 1])], ["k"])
    with pytest.raises(ConfigError, match="fall"):
        Range([Order("k")], falling)
    Range([Order("k", descending=True)], falling)
    with pytest.raises(ConfigError, match="columns"):
        Range([], falling)
    two = Range([Order("k")], falling.slice(1))
    with pytest.raises(ConfigError, match="1 boundaries make more than 1"):
        assign(two, falling, 1)
    other = pa.record_batch([pa.array(["x"])], ["k"])
    with pytest.raises(ConfigError, match="'k' is string"):
        assign(two, other, 2)
    nested = pa.record_batch([pa.array([[1]])], ["k"])
    with pytest.raises(ConfigError, match="cannot be ordered"):
        Range([Order("k")], nested)


def test_turns_go_on_over_batches() -> None:
    batch = pa.record_batch([pa.array([0] * 5)], ["x"])
    turns = RoundRobin(start=2)
    assert assign(turns, batch, 3).tolist() == [2, 0, 1, 2, 0]
    assert assign(turns, batch, 3, first_row=5).tolist() == [1, 2, 0, 1, 2]


def test_given_needs_ids_and_hash_keys() -> None:
    batch = pa.record_batch([pa.array([0])], ["x"])
    with pytest.raises(ConfigError, match="partitions=ids"):
        assign(Given(), batch, 2)
    for keys in ("x", []):
        with pytest.raises(ConfigError, match="no list"):
            Hash(keys)
