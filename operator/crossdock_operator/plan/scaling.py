"""How many executors an attached engine gets. Pure: what is known, and the time, in; a step out.

Up at once, as soon as there are tasks. Down after the cooldown, and never below those that have
tasks or data that is not acked: who goes is marked first, so that Kubernetes takes the idle ones.
Without a word from the engine nothing changes. The operator is not alone: where somebody else sets
the number again and again, it says so, and goes on only as often as the cooldown allows.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from crossdock.demand import Need
from crossdock_operator.api.job import Executors

CONTESTED_TIMES: Final = 3
"""So many changes by somebody else, each after one of ours, are a contest."""
CONTEST_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is scaled, as it is now."""

    replicas: int
    """That its spec wants."""
    pods: tuple[str, ...]
    """Names of its pods that are not about to go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What this operator did before. Of a new one: nothing."""

    wanted: int | None = None
    """What it set last."""
    at: float = -math.inf
    """When; monotonic."""
    overruled: tuple[float, ...] = ()
    """When somebody else set another number after it had."""


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
    """When to look again at the latest, if the cooldown holds a step up."""
    past: Past
    contested: bool


def step(
    executors: Executors,
    need: Need | None,
    target: Target,
    past: Past,
    *,
    now: float,
    suspended: bool,
) -> Step:
    """Return what is to be done.

    Args:
        executors: of the job's spec.
        need: what its engine says; None: nothing, so nobody is known to be idle.
        target: as it is.
        past: what was done before.
        now: monotonic seconds.
        suspended: no task shall run.
    """
    past = _watched(past, target, now)
    contested = len(past.overruled) >= CONTESTED_TIMES
    if need is None:
        return Step(
            desired=target.replicas, releasable=0, replicas=None, costs={}, again_seconds=None,
            past=past, contested=contested,
        )  # fmt: skip
    idle = [pod for pod in target.pods if need.busy.get(pod) == 0]
    unknown = [pod for pod in target.pods if pod not in need.busy]
    busy = len(target.pods) - len(idle) - (len(unknown) if not need.tasks else 0)
    desired = _desired(executors, need, suspended=suspended)
    # A pod that nobody names is not known to be idle, unless its engine has nothing to do at all.
    releasable = len(target.pods) - busy
    replicas = desired if desired >= target.replicas else max(desired, busy)
    wait = _wait(executors, target, past, replicas, now, contested=contested)
    held = replicas == target.replicas or wait > 0
    return Step(
        desired=desired,
        releasable=releasable,
        replicas=None if held else replicas,
        costs=_costs(target.pods, need) if replicas < target.replicas else {},
        again_seconds=wait if wait > 0 else None,
        past=past if held else Past(wanted=replicas, at=now, overruled=past.overruled),
        contested=contested,
    )


def _desired(executors: Executors, need: Need, *, suspended: bool) -> int:
    if suspended or not need.tasks:
        return 0 if suspended else executors.idle
    wanted = math.ceil(need.tasks / executors.tasks_per_executor)
    return min(max(wanted, executors.min), executors.max)


def _wait(
    executors: Executors, target: Target, past: Past, replicas: int, now: float, *, contested: bool
) -> float:
    """Return for how long the cooldown holds a step up."""
    if replicas == target.replicas or (replicas > target.replicas and not contested):
        return 0.0
    return max(0.0, past.at + executors.cooldown_seconds - now)


def _watched(past: Past, target: Target, now: float) -> Past:
    """Return the past with what somebody else did since."""
    recent = tuple(at for at in past.overruled if now - at < CONTEST_SECONDS)
    if past.wanted is None or past.wanted == target.replicas:
        return Past(wanted=past.wanted, at=past.at, overruled=recent)
    return Past(wanted=None, at=past.at, overruled=(*recent, now)[-CONTESTED_TIMES:])


def _costs(pods: Iterable[str], need: Need) -> dict[str, int]:
    """Return deletion costs: of pods that nobody names, as if they had one task."""
    return {pod: need.busy.get(pod, 1) for pod in pods}
