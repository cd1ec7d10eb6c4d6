"""The plan of a stage, by examples: who shares a task, how many there are, what is refused."""

import numpy as np
import pytest
from plans import SETTINGS, TARGET, Inputs, matrix, parts, ranges, spread, whole

from crossdock.errors import ConfigError
from crossdock.jobfile.model import PlanSettings
from crossdock.stages.plan import InputStatistics, plan, skewed

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
