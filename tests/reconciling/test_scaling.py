"""How many executors an attached engine gets."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.demand import Need
from crossdock.errors import ConfigError
from crossdock_operator.api.job import Executors, ScaleTarget
from crossdock_operator.kinds import DEPLOYMENT, STATEFUL_SET, Kind
from crossdock_operator.plan import scaling
from crossdock_operator.plan.contest import CONTEST_SECONDS, CONTESTED_TIMES
from crossdock_operator.plan.scaling import Leaving, Past, Step, Target
from crossdock_operator.plan.targets import kind_of_option, leaving, manager_of_replicas

REF = ScaleTarget(api_version="apps/v1", kind="Deployment", name="executors")
SPEC = Executors(scale_target_ref=REF, min=1, max=8, idle=0, cooldown_seconds=30)
PODS = tuple(f"e-{n}" for n in range(8))
LONG_AGO = Past(at=-math.inf)


def target(count: int, replicas: int | None = None) -> Target:
    return Target(replicas=count if replicas is None else replicas, pods=PODS[:count])


def step(
    need: Need | None,
    at: Target,
    past: Past | None = None,
    *,
    now: float = 1000.0,
    spec: Executors = SPEC,
    **more: Any,
) -> Step:
    given = {"suspended": False, **more}
    return scaling.step(spec, need, at, past or LONG_AGO, now=now, **given)


needs = st.builds(
    Need, st.integers(0, 100), st.dictionaries(st.sampled_from(PODS), st.integers(0, 3))
)
targets = st.builds(
    Target,
    replicas=st.integers(0, 8),
    pods=st.lists(st.sampled_from(PODS), unique=True).map(tuple),
    leaving=st.sampled_from(Leaving),
)


def leavers(at: Target, found: Step, count: int) -> list[str]:
    """Return who goes: by the rules of Deployments and StatefulSets; of others, anybody."""
    if at.leaving is Leaving.CHEAPEST:
        return sorted(at.pods, key=lambda pod: found.costs[pod])[:count]
    if at.leaving is Leaving.LAST:
        assert found.replicas is not None
        return [pod for pod in at.pods if int(pod[2:]) >= found.replicas]
    return list(at.pods)


@given(needs, targets, st.integers(1, 4), st.booleans())
def test_it_keeps_its_bounds_and_takes_nobody_who_is_busy(
    need: Need, at: Target, per: int, whole: bool
) -> None:
    spec = replace(SPEC, tasks_per_executor=per)
    found = step(need, at, spec=spec, whole=whole)
    assert 0 <= found.desired <= SPEC.max
    wanted = min(max(math.ceil(need.tasks / per), SPEC.min), SPEC.max)
    assert found.desired == (wanted if need.tasks else SPEC.idle)
    busy = {pod for pod in at.pods if need.busy.get(pod, 0)}
    assert found.releasable <= len(at.pods) - len(busy)
    if found.replicas is None:
        return
    assert found.replicas != at.replicas
    if found.replicas > at.replicas:
        assert found.replicas == found.desired
        return
    assert whole, "there may be a newer word"
    assert found.replicas >= found.desired
    # As many go as there are too many, at most.
    gone = set(leavers(at, found, max(0, len(at.pods) - found.replicas)))
    assert not gone & busy
    if need.tasks:
        assert not gone - need.busy.keys(), "who is not named may have begun something"


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
    found = step(Need(0, {"e-0": 2, "e-1": 0}), target(2))
    assert (found.desired, found.replicas, found.releasable) == (0, 1, 1)
    assert found.costs == {"e-0": 2, "e-1": 0}


def test_of_a_stateful_set_the_last_ones_go() -> None:
    need = Need(0, {"e-0": 0, "e-1": 1, "e-2": 0})
    assert step(need, replace(target(3), leaving=Leaving.LAST)).replicas == 2
    shifted = Target(replicas=3, pods=("e-5", "e-6", "e-7"), leaving=Leaving.LAST, first=5)
    assert step(Need(0, {"e-5": 1}), shifted).replicas == 1


def test_of_others_none_goes_while_one_is_busy() -> None:
    other = replace(target(2), leaving=Leaving.UNKNOWN)
    assert step(Need(0, {"e-0": 1}), other).replicas is None
    assert step(Need(0, {}), other).replicas == 0


def test_while_there_are_tasks_who_is_not_named_stays() -> None:
    found = step(Need(1, {"e-0": 1, "e-1": 0}), target(3))
    assert found.replicas == 2, "the third may have begun something"


def test_without_a_word_nothing_changes() -> None:
    found = step(None, target(5))
    assert (found.desired, found.replicas, found.releasable) == (5, None, 0)


def test_while_a_worker_is_away_nothing_goes_down() -> None:
    assert step(Need(0, {}), target(5), whole=False).replicas is None
    assert step(Need(6, {}), target(5), whole=False).replicas == 6


@given(st.none() | needs, targets)
def test_suspended_goes_to_none_at_once(need: Need | None, at: Target) -> None:
    found = step(need, at, Past(at=1000.0), suspended=True)
    assert found.replicas == (0 if at.replicas else None)


def test_a_new_operator_waits_for_the_cooldown() -> None:
    found = step(Need(0, {}), target(5), Past(at=1000.0))
    assert (found.replicas, found.again_seconds) == (None, 30.0)


def test_another_autoscaler_is_not_fought_for_ever() -> None:
    past, now = LONG_AGO, 1000.0
    for count in range(CONTESTED_TIMES):
        mine = step(Need(40, {}), target(2), past, now=now)
        assert (mine.contested, mine.overruled, mine.replicas) == (False, count > 0, 8)
        past, now = mine.past, now + 1
    found = step(Need(40, {}), target(2), past, now=now)
    assert found.contested
    assert found.replicas is None
    assert found.again_seconds == pytest.approx(CONTEST_SECONDS - 2)
    again = step(Need(0, {}), target(2), found.past, now=now + 1)
    assert again.replicas is None, "nor down"
    later = step(Need(40, {}), target(2), found.past, now=now + CONTEST_SECONDS - 2)
    assert (later.contested, later.replicas) == (False, 8)


@given(st.lists(st.floats(0.1, 400.0), max_size=60))
def test_how_often_others_are_overruled_is_bounded(pauses: list[float]) -> None:
    """Somebody sets 2 again after each of our steps, at any pace."""
    past, now, undone = LONG_AGO, 0.0, list[float]()
    for pause in pauses:
        found = step(Need(40, {}), target(2), past, now=now)
        if found.replicas is not None:
            undone.append(now)
        past, now = found.past, now + pause
    for begin in undone:
        within = [at for at in undone if begin <= at < begin + CONTEST_SECONDS]
        assert len(within) <= CONTESTED_TIMES


def test_options_name_kinds() -> None:
    assert kind_of_option("apps/v1/Deployment") is DEPLOYMENT
    made = kind_of_option("example.com/v1beta2/Mesh=meshes")
    assert made == Kind(name="Mesh", plural="meshes", group="example.com", version="v1beta2")
    kinds = (DEPLOYMENT, STATEFUL_SET, made)
    still = {"metadata": {}}
    wanted = [Leaving.CHEAPEST, Leaving.LAST, Leaving.UNKNOWN]
    assert [leaving(kind, still) for kind in kinds] == wanted
    for wrong in ("Deployment", "apps/v1/", "a/b/c/d"):
        with pytest.raises(ConfigError, match="is not GROUP/VERSION/KIND"):
            kind_of_option(wrong)


@pytest.mark.parametrize(
    ("generation", "status", "found"),
    [
        (3, {"observedGeneration": 3, "replicas": 4, "updatedReplicas": 4}, Leaving.CHEAPEST),
        (3, {"observedGeneration": 3, "replicas": 4, "updatedReplicas": 1}, Leaving.UNKNOWN),
        (3, {"observedGeneration": 3, "replicas": 4}, Leaving.UNKNOWN),
        (3, {"observedGeneration": 2, "replicas": 4, "updatedReplicas": 4}, Leaving.UNKNOWN),
        (3, {"observedGeneration": 3}, Leaving.CHEAPEST),
        (1, None, Leaving.UNKNOWN),
    ],
)
def test_in_the_middle_of_a_rollout_nobody_knows_who_goes(
    generation: int, status: Any, found: Leaving
) -> None:
    body = {"metadata": {"generation": generation}, "status": status}
    assert leaving(DEPLOYMENT, body) is found


def test_who_set_the_replicas() -> None:
    fields = {"f:spec": {"f:replicas": {}}}
    entries = [
        {"manager": "argo", "fieldsV1": {"f:spec": {"f:template": {}}}},
        {"manager": "kubectl", "subresource": "scale", "fieldsV1": fields},
    ]
    body = {"metadata": {"managedFields": entries}}
    assert manager_of_replicas(body) == "kubectl by its scale subresource"
    assert manager_of_replicas({"metadata": {}}) == ""
