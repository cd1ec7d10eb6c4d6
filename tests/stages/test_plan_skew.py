"""Partitions that are too large for one task, by examples."""

from itertools import groupby

import pytest
from plans import SETTINGS, matrix, parts, spread, whole

from crossdock.jobfile.model import PlanSettings
from crossdock.stages.plan import Slice, plan, skewed


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
