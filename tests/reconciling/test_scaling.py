"""How many executors an attached engine gets."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.demand import Need
from crossdock_operator.api.job import Executors, ScaleTarget
from crossdock_operator.plan import scaling
from crossdock_operator.plan.scaling import Past, Step, Target

REF = ScaleTarget(api_version="apps/v1", kind="Deployment", name="executors")
SPEC = Executors(scale_target_ref=REF, min=1, max=8, idle=0, cooldown_seconds=30)
PODS = tuple("abcdefgh")


def target(count: int, replicas: int | None = None) -> Target:
    return Target(replicas=count if replicas is None else replicas, pods=PODS[:count])


def step(
    need: Need | None,
    at: Target,
    past: Past | None = None,
    *,
    now: float = 1000.0,
    suspended: bool = False,
    spec: Executors = SPEC,
) -> Step:
    return scaling.step(spec, need, at, past or Past(), now=now, suspended=suspended)


needs = st.builds(
    Need, st.integers(0, 100), st.dictionaries(st.sampled_from(PODS), st.integers(0, 3))
)
targets = st.builds(target, st.integers(0, 8))


@given(needs, targets, st.integers(1, 4), st.booleans())
def test_it_keeps_its_bounds_and_takes_nobody_who_is_busy(
    need: Need, at: Target, per: int, suspended: bool
) -> None:
    spec = replace(SPEC, tasks_per_executor=per)
    found = step(need, at, spec=spec, suspended=suspended)
    busy = sum(need.busy.get(pod, 0) > 0 for pod in at.pods)
    if found.replicas is not None:
        assert found.replicas != at.replicas
        assert busy <= found.replicas <= SPEC.max or found.replicas > at.replicas
    assert found.releasable <= len(at.pods) - busy
    assert 0 <= found.desired <= SPEC.max
    if need.tasks and not suspended:
        assert found.desired == min(max(math.ceil(need.tasks / per), SPEC.min), SPEC.max)
    # Of the pods that stay, none is cheaper than one that goes: the busy ones stay.
    if found.replicas is not None and found.replicas < at.replicas:
        order = sorted(at.pods, key=lambda pod: found.costs[pod])
        gone = order[: at.replicas - found.replicas]
        assert all(need.busy.get(pod, 0) == 0 for pod in gone)


def test_up_at_once_and_down_to_idle_after_the_cooldown() -> None:
    up = step(Need(40, {}), target(0))
    assert (up.replicas, up.desired) == (8, 8)
    done = Need(0, dict.fromkeys(PODS, 0))
    early = step(done, target(8), up.past, now=1010.0)
    assert (early.replicas, early.again_seconds) == (None, 20.0)
    late = step(done, target(8), up.past, now=1030.0)
    assert (late.replicas, late.releasable) == (0, 8)
    again = step(Need(3, {}), target(0), late.past, now=1030.5)
    assert again.replicas == 3


def test_who_holds_data_stays() -> None:
    found = step(Need(0, {"a": 2, "b": 0}), target(2))
    assert (found.desired, found.replicas, found.releasable) == (0, 1, 1)
    assert found.costs == {"a": 2, "b": 0}


def test_while_there_are_tasks_who_is_not_named_stays() -> None:
    found = step(Need(1, {"a": 1, "b": 0}), target(3))
    assert found.replicas == 2, "c may have begun something"


def test_without_a_word_nothing_changes() -> None:
    found = step(None, target(5))
    assert (found.desired, found.replicas, found.releasable) == (5, None, 0)


def test_suspended_goes_to_none() -> None:
    assert step(Need(9, {"a": 1, "b": 0}), target(2), suspended=True).replicas == 1


def test_another_autoscaler_is_not_fought_silently() -> None:
    past, now = Past(), 1000.0
    for _ in range(scaling.CONTESTED_TIMES):
        mine = step(Need(40, {}), target(2), past, now=now)
        assert not mine.contested
        assert mine.replicas == 8
        past, now = mine.past, now + 1
    found = step(Need(40, {}), target(2), past, now=now)
    assert found.contested
    assert found.replicas is None, "it goes on only as often as the cooldown allows"
    assert found.again_seconds == pytest.approx(29.0)
    later = step(Need(40, {}), target(2), found.past, now=now + 30)
    assert later.replicas == 8
    calm = step(Need(40, {}), target(8), later.past, now=now + scaling.CONTEST_SECONDS + 31)
    assert not calm.contested
