"""How many executors an attached engine gets. Pure: what is known, and the time, in; a step out.

Up at once, as soon as there are tasks. Down after the cooldown, and never below those that have
tasks or data that is not acked: who goes is marked first, so that Kubernetes takes the idle ones.
Without a word from the engine nothing changes, and while some worker does not answer nothing goes
down: it may have the newest word. The operator is not alone: where somebody else sets the number
again and again, it says so, and leaves it to them for a while.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from crossdock.demand import Need
from crossdock_operator.api.job import Executors
from crossdock_operator.plan.contest import Contest


class Leaving(StrEnum):
    """Which pods go when replicas go down."""

    CHEAPEST = "cheapest"
    """Those of the lowest deletion cost."""
    LAST = "last"
    """Those of the highest place."""
    UNKNOWN = "unknown"
    """Any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is scaled, as it is now."""

    replicas: int
    """That its spec wants."""
    pods: tuple[str, ...]
    """Names of its pods that are not about to go."""
    leaving: Leaving = Leaving.CHEAPEST
    first: int = 0
    """Where the last pods go: the number in the name of the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What this operator did before."""

    at: float
    """When it set replicas last, or began to look; monotonic."""
    contest: Contest = field(default_factory=Contest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done now."""

    desired: int
    """Replicas there shall be, when nothing holds them up."""
    releasable: int
    """Pods that have nothing that only they have."""
    replicas: int | None
    """To set now; None: leave it."""
    costs: Mapping[str, int]
    """By pod, its deletion cost: the least busy go first. Set before replicas go down."""
    again_seconds: float | None
    """When to look again at the latest, if time holds a step up."""
    past: Past
    """When this is done."""
    seen: Past
    """While it is not done: what somebody else did is seen once."""
    overruled: bool
    """Whether somebody else was just seen to have set another number."""
    contested: bool
    """Whether the number is left to somebody else."""


def step(
    executors: Executors,
    need: Need | None,
    target: Target,
    past: Past,
    *,
    now: float,
    suspended: bool,
    whole: bool = True,
) -> Step:
    """Return what is to be done.

    Args:
        executors: of the job's spec.
        need: what its engine says; None: nothing, so nobody is known to be idle.
        target: as it is.
        past: what was done before.
        now: monotonic seconds.
        suspended: no task shall run: all go, at once.
        whole: whether every worker was asked: else there may be a newer word.
    """
    contest = past.contest.watched(target.replicas, now)
    overruled = contest.wanted != past.contest.wanted
    past = replace(past, contest=contest)
    idle = _idle(target.pods, need)
    desired = _desired(executors, need, target, suspended=suspended)
    replicas = desired
    if desired < target.replicas and not suspended:
        kept = max(desired, _floor(target, idle))
        replicas = min(kept, target.replicas) if whole else target.replicas
    wait = 0.0
    if replicas != target.replicas and contest.lost:
        wait = contest.left_seconds(now)
    elif replicas < target.replicas and not suspended:
        wait = max(0.0, past.at + executors.cooldown_seconds - now)
    held = replicas == target.replicas or wait > 0
    marks = not held and replicas < target.replicas and need is not None
    return Step(
        desired=desired,
        releasable=len(idle),
        replicas=None if held else replicas,
        costs=_costs(target, need) if need is not None and marks else {},
        again_seconds=wait if wait > 0 else None,
        past=past if held else Past(at=now, contest=contest.stepped(replicas)),
        seen=past,
        overruled=overruled,
        contested=contest.lost,
    )


def _idle(pods: Iterable[str], need: Need | None) -> frozenset[str]:
    """Return the pods that have nothing that only they have.

    One that nobody names is not known to be idle, unless its engine has nothing to do at all.
    """
    if need is None:
        return frozenset()
    unnamed = 1 if need.tasks else 0
    return frozenset(pod for pod in pods if not need.busy.get(pod, unnamed))


def _floor(target: Target, idle: frozenset[str]) -> int:
    """Return how many replicas there must stay at least, so that nobody goes who is not idle."""
    busy = [pod for pod in target.pods if pod not in idle]
    if target.leaving is Leaving.CHEAPEST or not busy:
        return len(busy)
    if target.leaving is Leaving.UNKNOWN:
        return target.replicas
    places = [pod.rpartition("-")[2] for pod in busy]
    if not all(place.isdigit() for place in places):
        return target.replicas
    return max(int(place) for place in places) - target.first + 1


def _desired(executors: Executors, need: Need | None, target: Target, *, suspended: bool) -> int:
    if suspended:
        return 0
    if need is None:
        return target.replicas
    if not need.tasks:
        return executors.idle
    wanted = math.ceil(need.tasks / executors.tasks_per_executor)
    return min(max(wanted, executors.min), executors.max)


def _costs(target: Target, need: Need) -> dict[str, int]:
    """Return deletion costs: of pods that nobody names, as if they had one task."""
    if target.leaving is not Leaving.CHEAPEST:
        return {}
    return {pod: need.busy.get(pod, 1) for pod in target.pods}
