"""The plan of a stage, by examples and against what must hold for any input."""

from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.errors import ConfigError
from crossdock.jobfile.model import PlanSettings
from crossdock.stages.plan import InputStatistics, Slice, plan, skewed

Inputs = dict[str, InputStatistics]

MIB = 2**20
TARGET = 100
SETTINGS = PlanSettings(target_task_bytes=TARGET, skew_factor=3, skew_floor_bytes=250)


def whole(*sizes: int) -> InputStatistics:
    """Return an input that may not be split, by partition sizes."""
    return InputStatistics(bytes=np.array(sizes, np.uint64), maps=3)


def matrix(rows: list[list[int]], *, may_split: bool = True) -> InputStatistics:
    """Return an input by block sizes: one row per partition, one column per map."""
    table = np.array(rows, np.uint64)
    blocks = {
        p: (np.flatnonzero(row).astype(np.uint32), row[row > 0]) for p, row in enumerate(table)
    }
    return InputStatistics(
        bytes=table.sum(axis=1), may_split=may_split, maps=table.shape[1], blocks=blocks
    )


def spread(*sizes: int, maps: int = 10) -> InputStatistics:
    """Return an input that may be split, each partition in even blocks of all maps."""
    return matrix([[size // maps] * maps for size in sizes])


def parts(slices: list[Slice]) -> list[tuple[int, int] | tuple[int, int, int, int]]:
    """Return slices in short: (first, stop) of partitions, and of maps."""
    return [
        (s.partitions.start, s.partitions.stop, *((s.maps.start, s.maps.stop) if s.maps else ()))
        for s in slices
    ]


def ranges(*sizes: int, settings: PlanSettings = SETTINGS, tasks: int | None = None) -> list:
    return parts(plan({"in": whole(*sizes)}, settings, tasks=tasks))


# --- coalescing ---


def test_small_neighbours_share_a_task_up_to_the_target() -> None:
    assert ranges(*[10] * 30) == [(0, 10), (10, 20), (20, 30)]


def test_the_bytes_of_all_inputs_count() -> None:
    slices = plan({"a": whole(*[5] * 30), "b": whole(*[15] * 30)}, SETTINGS)
    assert parts(slices) == [(i, i + 5) for i in range(0, 30, 5)]


def test_a_small_rest_makes_no_task_of_its_own() -> None:
    assert ranges(*[10] * 11) == [(0, 11)]
    assert ranges(*[10] * 21) == [(0, 10), (10, 21)]


def test_a_larger_rest_makes_even_tasks() -> None:
    assert ranges(*[10] * 14) == [(0, 7), (7, 14)]


def test_a_large_partition_takes_tiny_neighbours_but_no_others() -> None:
    assert ranges(1, 1000, 1) == [(0, 3)]
    assert ranges(90, 1000, 90) == [(0, 1), (1, 2), (2, 3)]


def test_empty_partitions_cost_no_task() -> None:
    assert ranges(0, 0, 90, 0, 0, 90, 0) == [(0, 5), (5, 7)]


@pytest.mark.parametrize("tasks", [None, 1])
def test_nothing_at_all_is_one_task(tasks: int | None) -> None:
    assert ranges(0, 0, 0, tasks=tasks) == [(0, 3)]


def test_every_task_has_data_where_few_are_left() -> None:
    settings = PlanSettings(target_task_bytes=5)
    sizes = [1, 7, 1, 8, 8, 1, 8, 10, 5]
    assert [stop for _, stop in ranges(*sizes, settings=settings)] == [2, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("target", [10**6, 2**62, 2**80])
def test_a_target_above_everything_is_one_task(target: int) -> None:
    assert ranges(100, 0, 1000, settings=PlanSettings(target_task_bytes=target)) == [(0, 3)]


# --- skew ---


def test_a_skewed_partition_is_cut_into_map_ranges() -> None:
    inputs = {"big": spread(50, 400, 50), "other": whole(1, 1, 1)}
    assert plan(inputs, SETTINGS) == [
        Slice(partitions=range(1)),
        *(
            Slice(partitions=range(1, 2), maps=range(first, stop), split_input="big")
            for first, stop in [(0, 2), (2, 5), (5, 7), (7, 10)]
        ),
        Slice(partitions=range(2, 3)),
    ]


def test_map_ranges_reach_from_the_first_to_the_last_map_whoever_has_blocks() -> None:
    inputs = {"in": matrix([[0, 0, 200, 0, 200, 0, 0], [10, 0, 0, 0, 0, 0, 0]] + [[10] * 7] * 2)}
    assert parts(plan(inputs, SETTINGS))[:2] == [(0, 1, 0, 4), (0, 1, 4, 7)]


def test_one_huge_block_stays_whole() -> None:
    inputs = {"in": matrix([[0, 10_000, 0], [50, 50, 0]])}
    assert skewed(inputs, SETTINGS) == {}  # 10,000 is no skew against a median of 5,050
    inputs = {"in": matrix([[0, 10_000, 0], [50, 50, 0], [50, 50, 0]])}
    assert skewed(inputs, SETTINGS) == {"in": [0]}
    assert parts(plan(inputs, SETTINGS)) == [(0, 1), (1, 2), (2, 3)]


def test_blocks_beside_a_huge_one_get_tasks_of_their_own() -> None:
    inputs = {"in": matrix([[50, 50, 10_000, 50, 50], [10] * 5, [10] * 5])}
    assert parts(plan(inputs, SETTINGS))[:3] == [(0, 1, 0, 2), (0, 1, 2, 3), (0, 1, 3, 5)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((50, 260, 50), [1]),
        ((50, 250, 50), []),  # not above the floor
        ((90, 270, 90), []),  # not above the factor times median
        ((0, 0, 0, 0, 90, 270, 90), []),  # the median is that of partitions with data
        ((0, 0, 0, 0, 80, 270, 80), [5]),
    ],
)
def test_skew_is_above_floor_and_factor(sizes: tuple[int, ...], expected: list[int]) -> None:
    assert skewed({"in": spread(*sizes)}, SETTINGS).get("in", []) == expected


def test_an_infinite_factor_splits_nothing() -> None:
    settings = PlanSettings(target_task_bytes=1, skew_factor=float("inf"), skew_floor_bytes=1)
    assert skewed({"in": spread(50, 10_000, 50)}, settings) == {}


def test_only_an_input_that_may_be_split_is() -> None:
    rows = [[50, 50], [5000, 5000], [50, 50]]
    inputs = {"a": matrix(rows, may_split=False), "b": spread(10, 10, 10)}
    assert skewed(inputs, SETTINGS) == {}
    assert parts(plan(inputs, SETTINGS)) == [(0, 1), (1, 2), (2, 3)]


def test_of_two_skewed_inputs_the_larger_is_split_and_the_first_of_equal_ones() -> None:
    inputs = {"a": spread(10, 500, 10, 500), "b": spread(10, 500, 10, 600)}
    settings = PlanSettings(target_task_bytes=100, skew_factor=1.5, skew_floor_bytes=1)
    assert skewed(inputs, settings) == {"a": [1], "b": [3]}
    split = {s.partitions.start: s.split_input for s in plan(inputs, settings) if s.maps}
    assert split == {1: "a", 3: "b"}


def test_nothing_is_split_below_the_target() -> None:
    settings = PlanSettings(target_task_bytes=1000, skew_factor=3, skew_floor_bytes=250)
    inputs = {"in": spread(50, 400, 50)}
    assert skewed(inputs, settings) == {}
    assert parts(plan(inputs, settings)) == [(0, 3)]


def test_empty_partitions_beside_split_ones_go_with_them() -> None:
    inputs = {"in": spread(0, 400, 0, 400, 50, 50, 50, 50, 0, 400, 0)}
    groups = [key for key, _ in groupby(s.partitions for s in plan(inputs, SETTINGS))]
    assert groups == [range(2), range(2, 4), range(4, 6), range(6, 9), range(9, 11)]


def test_an_input_of_one_map_has_nothing_to_split() -> None:
    assert skewed({"in": spread(50, 400, 50, maps=1)}, SETTINGS) == {}


# --- the most tasks ---


def test_the_target_is_raised_until_the_tasks_are_few_enough() -> None:
    settings = PlanSettings(target_task_bytes=TARGET, max_tasks=4)
    assert ranges(*[100] * 20, settings=settings) == [(0, 5), (5, 10), (10, 15), (15, 20)]


def test_at_most_one_task_is_one_task() -> None:
    settings = PlanSettings(target_task_bytes=1, skew_floor_bytes=1, max_tasks=1)
    assert parts(plan({"in": spread(10, 1000, 0, 10, 10)}, settings)) == [(0, 5)]


# --- a given number of tasks ---


def test_given_tasks_are_balanced() -> None:
    assert ranges(*[10] * 10, tasks=3) == [(0, 3), (3, 6), (6, 10)]
    assert ranges(70, 10, 10, 10, 60, tasks=2) == [(0, 2), (2, 5)]


def test_given_tasks_know_neither_target_nor_maximum() -> None:
    settings = PlanSettings(target_task_bytes=10**6, max_tasks=1)
    assert len(ranges(*[10] * 10, settings=settings, tasks=7)) == 7


def test_as_many_tasks_as_partitions_are_one_each_whatever_they_hold() -> None:
    assert ranges(5, 0, 0, 900, 1, 0, tasks=6) == [(p, p + 1) for p in range(6)]


def test_more_tasks_than_partitions_leave_the_last_without_work() -> None:
    assert ranges(5, 5, tasks=4) == [(0, 1), (1, 2), (2, 2), (2, 2)]


def test_more_tasks_than_partitions_split_the_largest() -> None:
    inputs = {"in": spread(100, 300)}
    assert skewed(inputs, SETTINGS, tasks=4) == {"in": [1]}
    slices = plan(inputs, SETTINGS, tasks=4)
    assert parts(slices) == [(0, 1), (1, 2, 0, 3), (1, 2, 3, 6), (1, 2, 6, 10)]


def test_given_tasks_split_what_is_skewed() -> None:
    inputs = {"in": spread(10, 600, 10, 10)}
    assert skewed(inputs, SETTINGS, tasks=4) == {"in": [1]}
    slices = plan(inputs, SETTINGS, tasks=4)
    assert parts(slices) == [(0, 1), (1, 2, 0, 5), (1, 2, 5, 10), (2, 4)]


def test_tasks_are_used_also_where_one_block_sets_the_maximum() -> None:
    inputs = {"in": matrix([[1000, 0, 0, 0], [250] * 4])}
    slices = plan(inputs, SETTINGS, tasks=5)
    assert parts(slices) == [(0, 1), *((1, 2, m, m + 1) for m in range(4))]


def test_what_is_left_of_the_tasks_cuts_the_largest() -> None:
    inputs = {"in": matrix([[50, 50], [50, 50]])}
    assert parts(plan(inputs, SETTINGS, tasks=3)) == [(0, 1, 0, 1), (0, 1, 1, 2), (1, 2)]


def test_the_largest_is_cut_in_the_middle_and_the_first_of_equal_ones() -> None:
    inputs = {"in": matrix([*[[10] * 8 + [0]] * 3, [10] * 9])}
    slices = plan(inputs, SETTINGS, tasks=6)
    assert parts(slices) == [
        *[(0, 1, 0, 4), (0, 1, 4, 9)],
        *[(1, 2), (2, 3)],
        *[(3, 4, 0, 4), (3, 4, 4, 9)],
    ]


def test_split_partitions_keep_their_empty_neighbours_when_tasks_are_left() -> None:
    inputs = {"in": matrix([[0, 0], [50, 50], [0, 0]])}
    expected = [(0, 3, 0, 1), (0, 3, 1, 2), (3, 3)]
    assert parts(plan(inputs, SETTINGS, tasks=3)) == expected
    inputs = {"in": matrix([[0, 0], [50, 50], [0, 0], [50, 50]])}
    assert parts(plan(inputs, SETTINGS, tasks=3)) == [(0, 3, 0, 1), (0, 3, 1, 2), (3, 4)]


# --- arguments ---


@pytest.mark.parametrize(
    ("inputs", "settings", "tasks", "message"),
    [
        ({}, SETTINGS, None, "needs a partitioned input"),
        ({"a": whole()}, SETTINGS, None, "needs a partitioned input"),
        ({"a": whole(1), "b": whole(1, 2)}, SETTINGS, None, "a has 1, b has 2"),
        ({"a": whole(1)}, SETTINGS, 0, "0 tasks"),
        ({"a": whole(1)}, PlanSettings(target_task_bytes=0), None, "must be positive"),
        ({"a": whole(1)}, PlanSettings(max_tasks=0), None, "must be positive"),
        ({"a": whole(2**62), "b": whole(2**63)}, SETTINGS, None, "2 EiB"),
    ],
)
def test_arguments_out_of_range_are_refused(
    inputs: Inputs, settings: PlanSettings, tasks: int | None, message: str
) -> None:
    for function in (plan, skewed):
        with pytest.raises(ConfigError, match=message):
            function(inputs, settings, tasks=tasks)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({}, "no block sizes of partition 1 of in"),
        ({1: ([0, 3], [200, 200])}, "bad block sizes"),
        ({1: ([1, 0], [200, 200])}, "bad block sizes"),
        ({1: ([1, 1], [200, 200])}, "bad block sizes"),
        ({1: ([0, 1, 2], [200, 200])}, "bad block sizes"),
    ],
)
def test_block_sizes_must_be_there_and_in_order(
    blocks: dict[int, tuple[list[int], list[int]]], message: str
) -> None:
    arrays = {
        p: (np.array(maps, np.uint32), np.array(sizes, np.uint64))
        for p, (maps, sizes) in blocks.items()
    }
    statistics = InputStatistics(
        bytes=np.array([10, 400, 10], np.uint64), may_split=True, maps=3, blocks=arrays
    )
    with pytest.raises(ConfigError, match=message):
        plan({"in": statistics}, SETTINGS)


# --- what must hold for any input ---

sizes_ = st.one_of(st.just(0), st.integers(0, 30), st.integers(0, 300), st.integers(0, 3000))


@st.composite
def any_inputs(draw: st.DrawFn, *, most: int = 3) -> Inputs:
    partitions, maps = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    row = st.just([0] * maps) | st.lists(sizes_, min_size=maps, max_size=maps)
    rows = st.lists(row, min_size=partitions, max_size=partitions)
    return {
        name: matrix(draw(rows), may_split=draw(st.booleans()))
        for name in "abc"[: draw(st.integers(1, most))]
    }


any_settings = st.builds(
    PlanSettings,
    target_task_bytes=st.integers(1, 1000),
    skew_factor=st.sampled_from([0.0, 0.0, 1.5, 5.0]),
    skew_floor_bytes=st.just(0) | st.integers(0, 500),
    max_tasks=st.integers(1, 30),
)
any_tasks = st.none() | st.integers(1, 30)


def total(inputs: Inputs) -> list[int]:
    return sum(i.bytes for i in inputs.values()).tolist()


def planned(inputs: Inputs, s: Slice) -> int:
    """Return the bytes by which the plan measures a slice."""
    if s.maps is None:
        return sum(total(inputs)[s.partitions.start : s.partitions.stop])
    blocks = [inputs[s.split_input or ""].blocks[p] for p in s.partitions]
    return sum(int(sizes[np.isin(maps, s.maps)].sum()) for maps, sizes in blocks)


def holding(inputs: Inputs, s: Slice) -> int:
    """Return how many things that cannot be cut by the plan have data in a slice."""
    if s.maps is None:
        return int(np.count_nonzero(total(inputs)[s.partitions.start : s.partitions.stop]))
    blocks = [inputs[s.split_input or ""].blocks[p] for p in s.partitions]
    return sum(int(np.isin(maps, s.maps).sum()) for maps, _ in blocks)


@given(any_inputs(), any_settings, any_tasks)
def test_everything_is_read_exactly_once(
    inputs: Inputs, settings: PlanSettings, tasks: int | None
) -> None:
    slices = plan(inputs, settings, tasks=tasks)
    groups = [(key, list(of)) for key, of in groupby(slices, lambda s: s.partitions)]
    groups = [(key, of) for key, of in groups if len(key)]
    # The partitions of all groups follow one another.
    assert [p for key, _ in groups for p in key] == list(range(len(total(inputs))))
    for partitions, of in groups:
        if of[0].maps is None:
            assert [s.split_input for s in of] == [None]
            continue
        assert len({s.split_input for s in of}) == 1
        split = inputs[of[0].split_input or ""]
        assert split.may_split
        assert len(of) > 1
        assert [m for s in of for m in s.maps or ()] == list(range(split.maps))
        assert all(s.maps and holding(inputs, s) for s in of)
        assert np.count_nonzero(total(inputs)[partitions.start : partitions.stop]) == 1


@given(any_inputs(), any_settings, any_tasks)
def test_the_number_of_tasks_holds(
    inputs: Inputs, settings: PlanSettings, tasks: int | None
) -> None:
    slices = plan(inputs, settings, tasks=tasks)
    if tasks is not None:
        assert len(slices) == tasks
    else:
        assert 1 <= len(slices) <= settings.max_tasks
        if any(total(inputs)):
            assert all(planned(inputs, s) for s in slices), "a task without data"


@given(any_inputs(), any_settings, any_tasks)
def test_the_same_input_gives_the_same_plan_from_what_was_asked_for(
    inputs: Inputs, settings: PlanSettings, tasks: int | None
) -> None:
    asked = skewed(inputs, settings, tasks=tasks)
    least = {
        name: InputStatistics(
            bytes=i.bytes.copy(),
            may_split=i.may_split,
            maps=i.maps,
            blocks={p: i.blocks[p] for p in asked.get(name, [])},
        )
        for name, i in inputs.items()
    }
    assert plan(least, settings, tasks=tasks) == plan(inputs, settings, tasks=tasks)
    if tasks is not None:
        assert len([p for of in asked.values() for p in of]) < tasks, "more than can be split"


@given(any_inputs(), any_settings)
def test_tasks_are_about_the_target(inputs: Inputs, settings: PlanSettings) -> None:
    settings = PlanSettings(
        target_task_bytes=settings.target_task_bytes,
        skew_factor=settings.skew_factor,
        skew_floor_bytes=settings.skew_floor_bytes,
        max_tasks=10**9,
    )
    target = settings.target_task_bytes
    slices = plan(inputs, settings)
    for s in slices:
        if planned(inputs, s) > 1.2 * target:
            # One thing that cannot be cut, with little beside it.
            kind = "maps" if s.maps else "partitions"
            singles = [replace(s, **{kind: range(i, i + 1)}) for i in getattr(s, kind)]
            if kind == "maps":
                first = next(p for p in s.partitions if total(inputs)[p])
                singles = [replace(one, partitions=range(first, first + 1)) for one in singles]
            largest = max(planned(inputs, one) for one in singles)
            assert largest > target
            assert planned(inputs, s) - largest <= 0.2 * target
    for a, b in pairwise(slices):
        sizes = planned(inputs, a), planned(inputs, b)
        if a.split_input == b.split_input and (a.maps is None or a.partitions == b.partitions):
            assert min(sizes) >= 0.2 * target or sum(sizes) > 1.2 * target, "a tiny task"


@given(any_inputs(most=1), any_settings, st.integers(1, 30))
def test_given_tasks_have_the_least_maximum(
    inputs: Inputs, settings: PlanSettings, tasks: int
) -> None:
    slices = plan(inputs, settings, tasks=tasks)
    largest = max(planned(inputs, s) for s in slices)
    may_split = {p for of in skewed(inputs, settings, tasks=tasks).values() for p in of}
    sizes = [
        [int(b) for b in inputs["a"].blocks[p][1]] if p in may_split else [size]
        for p, size in enumerate(total(inputs))
        if size
    ]
    assert largest == least_maximum(sizes, tasks)


def least_maximum(partitions: list[list[int]], tasks: int) -> int:
    """Return the least maximum by trying everything: partitions as lists of what can be cut."""

    @cache
    def best(first: int, tasks: int) -> int:
        if first == len(partitions):
            return 0
        if not tasks:
            return 2**62
        found = 2**62
        for stop in range(first + 1, len(partitions) + 1):
            here = sum(map(sum, partitions[first:stop]))
            found = min(found, max(here, best(stop, tasks - 1)))
        for of in range(2, min(tasks, len(partitions[first])) + 1):
            here = in_order(tuple(partitions[first]), of)
            found = min(found, max(here, best(first + 1, tasks - of)))
        return found

    return best(0, tasks)


def in_order(blocks: tuple[int, ...], tasks: int) -> int:
    """Return the least maximum of blocks in a row."""
    if tasks == 1:
        return sum(blocks)
    return min(
        max(sum(blocks[:cut]), in_order(blocks[cut:], tasks - 1)) for cut in range(len(blocks) + 1)
    )


# --- size ---


@pytest.mark.parametrize("tasks", [None, 1000])
def test_a_million_partitions_and_a_hundred_thousand_maps(tasks: int | None) -> None:
    """Takes well under a second each; a Python loop over partitions or blocks takes many."""
    rng = np.random.default_rng(7)
    sizes = rng.integers(0, 2 * MIB, 1_000_000, np.uint64)
    blocks = rng.integers(1, 2 * MIB, 100_000, np.uint64)
    sizes[500_000] = blocks.sum()
    inputs = {
        "in": InputStatistics(
            bytes=sizes,
            may_split=True,
            maps=100_000,
            blocks={500_000: (np.arange(100_000, dtype=np.uint32), blocks)},
        )
    }
    slices = plan(inputs, PlanSettings(), tasks=tasks)
    assert 990 <= len(slices) <= 1000
    assert max(planned(inputs, s) for s in slices if s.maps) <= 1.2 * sizes.sum() / 990
