"""What must hold for the plan of any input, and of very large ones."""

from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plans import (
    MIB,
    Inputs,
    holding,
    matrix,
    planned,
    total,
)

from crossdock.jobfile.model import PlanSettings
from crossdock.stages.plan import InputStatistics, plan, skewed

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
