"""How many worker pods a cluster gets by use. Pure: readings, and the time, in; a number out.

Up at once, as far as two readings in a row ask for it: bytes in flight jump. Down by one, when all
readings for a while have asked for less: each pod drains before it goes, and then it begins anew.
Between the two lies room, so that a load that stays as it is moves nothing twice.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from crossdock.records import STAYING, WorkerInfo
from crossdock_operator.api.cluster import MIB, Autoscaling
from crossdock_operator.plan.conditions import NO, UNKNOWN, YES, Answer
from crossdock_operator.plan.contest import CONTEST_SECONDS, Contest

AUTOSCALED: Final = "Autoscaled"
CONTESTED: Final = "Contested"
"""Reason of the condition while the number is left to somebody else."""
TOLERANCE: Final = 0.1
"""Share of a target by which use may miss it before anything moves."""
_STEADY: Final = frozenset({"WithinTargets", "ScaledUp", "ScaledDown", "IntoBounds"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What all workers use, at one time."""

    at: float
    """Monotonic."""
    workers: int
    """Worker processes that take frames."""
    whole: bool
    """Whether every worker answered."""
    disk: float
    """Shares of their disks, added up."""
    inflight: float
    """Shares of `limits.maxInflight`, added up."""
    ingest: float | None = None
    """Bytes taken in a second, by all; None: not known yet."""
    ingested: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """Bytes that each process, by id and incarnation, has taken since it began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What was read since the number changed last. Of a new operator: nothing."""

    reading: Reading | None = None
    """The newest."""
    up: int = 0
    """Pods that it asked for."""
    low_since: float | None = None
    """Since when fewer pods would do."""
    contest: Contest = field(default_factory=Contest)
    """With who else sets the number; it goes on when the number changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many pods there shall be."""

    replicas: int
    answer: Answer | None
    """What the condition says; None: as before."""
    past: Past


@dataclass(frozen=True, slots=True)
class _Use:
    """One measure, in pods that would be used to the full."""

    what: str
    pods: float
    target: float


def read(
    workers: Iterable[WorkerInfo],
    *,
    at: float,
    whole: bool,
    max_inflight: int,
    last: Reading | None,
) -> Reading:
    """Return a reading.

    Args:
        workers: as they describe themselves.
        at: when; monotonic seconds.
        whole: whether all answered.
        max_inflight: bytes, of the cluster's limits.
        last: the one before, to tell rates.
    """
    staying = [worker for worker in workers if worker.state in STAYING]
    ingested = {(worker.id, worker.incarnation): worker.ingested_bytes for worker in staying}
    ingest = None
    if last is not None and at > last.at:
        known = ingested.keys() & last.ingested.keys()
        ingest = sum(ingested[key] - last.ingested[key] for key in known) / (at - last.at)
    return Reading(
        at=at,
        workers=len(staying),
        whole=whole,
        disk=sum(worker.disk_used for worker in staying),
        inflight=sum(worker.inflight_bytes for worker in staying) / max_inflight,
        ingest=ingest,
        ingested=ingested,
    )


def decide(
    scaling: Autoscaling,
    reading: Reading | None,
    past: Past,
    *,
    replicas: int,
    processes: int,
    settled: bool,
    now: float,
    before: str = "",
) -> Decision:
    """Return how many worker pods there shall be now, and are to be written.

    Args:
        scaling: of the cluster's spec.
        reading: a new one; None: no worker answers.
        past: what was read before.
        replicas: that the cluster's spec wants now.
        processes: of each pod.
        settled: whether all these pods are there, ready and of the newest spec.
        now: monotonic seconds.
        before: the reason of the condition as it was said last.
    """
    contest = past.contest.watched(replicas, now)
    past = replace(past, contest=contest)
    found = _decided(scaling, reading, past, replicas, processes, settled=settled, before=before)
    if found.replicas == replicas:
        return replace(found, past=replace(found.past, contest=contest))
    if contest.lost:
        kept = replace(past, reading=reading or past.reading)
        return Decision(replicas=replicas, answer=_contested(replicas, found), past=kept)
    stepped = contest.stepped(found.replicas)
    return replace(found, past=replace(found.past, contest=stepped))


def _decided(
    scaling: Autoscaling,
    reading: Reading | None,
    past: Past,
    replicas: int,
    processes: int,
    *,
    settled: bool,
    before: str,
) -> Decision:
    """Return how many there shall be, whoever else sets the number."""
    bounded = min(max(replicas, scaling.min_replicas), scaling.max_replicas)
    if bounded != replicas:
        message = f"from {replicas} to {bounded} pods: minReplicas and maxReplicas bound them"
        return Decision(
            replicas=bounded, answer=Answer(AUTOSCALED, YES, "IntoBounds", message), past=Past()
        )
    if reading is None or not reading.workers:
        message = "no worker says what it uses: the number of pods stays as it is"
        answer = Answer(AUTOSCALED, UNKNOWN, "NoReadings", message)
        return Decision(replicas=replicas, answer=answer, past=Past())
    uses = _uses(scaling, reading, processes)
    up = _up(uses, replicas)
    agreed = min(up, past.up) if past.reading is not None else replicas
    if min(agreed, scaling.max_replicas) > replicas:
        return _moved(min(agreed, scaling.max_replicas), replicas, uses, reading)
    whole = reading.whole and reading.workers == replicas * processes
    low = settled and whole and _pods(uses, 1 - TOLERANCE) < replicas > scaling.min_replicas
    low_since = (reading.at if past.low_since is None else past.low_since) if low else None
    if low_since is not None and reading.at - low_since >= scaling.scale_down_after_seconds:
        return _moved(replicas - 1, replicas, uses, reading)
    return Decision(
        replicas=replicas,
        answer=_stays(scaling, agreed, uses, before),
        past=Past(reading=reading, up=up, low_since=low_since),
    )


def _uses(scaling: Autoscaling, reading: Reading, processes: int) -> list[_Use]:
    """Return what counts, of what there is a target for."""
    found = []
    if scaling.target_disk_percent:
        target = scaling.target_disk_percent / 100
        found.append(_Use("disk", reading.disk / processes, target))
    if scaling.target_inflight_percent:
        target = scaling.target_inflight_percent / 100
        found.append(_Use("bytes in flight", reading.inflight / processes, target))
    if scaling.target_ingest_per_second and reading.ingest is not None:
        found.append(_Use("ingest", reading.ingest, float(scaling.target_ingest_per_second)))
    return found


def _pods(uses: Iterable[_Use], share: float) -> int:
    """Return how many pods it takes for no use to be over so much of its target."""
    return max((math.ceil(use.pods / (use.target * share) - 1e-9) for use in uses), default=0)


def _up(uses: list[_Use], replicas: int) -> int:
    """Return how many pods a reading asks for, if that is more than there are."""
    return _pods(uses, 1.0) if _pods(uses, 1 + TOLERANCE) > replicas else replicas


def _moved(now: int, replicas: int, uses: list[_Use], reading: Reading) -> Decision:
    reason = "ScaledUp" if now > replicas else "ScaledDown"
    message = f"from {replicas} to {now} pods: {_said(uses, replicas)}"
    # Rates go on over a change; what was asked for, and for how long, does not.
    past = replace(Past(), reading=reading)
    return Decision(replicas=now, answer=Answer(AUTOSCALED, YES, reason, message), past=past)


def _contested(replicas: int, found: Decision) -> Answer:
    message = (
        f"somebody else sets {replicas} replicas again and again, where this operator sets "
        f"{found.replicas}: it leaves them alone for {CONTEST_SECONDS / 60:g} minutes after such a "
        "change; leave replicas out of what is applied, or take workers.autoscaling away"
    )
    return Answer(AUTOSCALED, NO, CONTESTED, message)


def _stays(scaling: Autoscaling, agreed: int, uses: list[_Use], before: str) -> Answer | None:
    if agreed > scaling.max_replicas:
        message = f"more than maxReplicas would be needed: {_most(uses)} is over its target"
        return Answer(AUTOSCALED, NO, "AtMaxReplicas", message)
    return None if before in _STEADY else Answer(AUTOSCALED, YES, "WithinTargets")


def _most(uses: list[_Use]) -> str:
    """Return the name of what asks for most."""
    return max(uses, key=lambda use: use.pods / use.target).what


def _said(uses: list[_Use], replicas: int) -> str:
    """Return what each measure was for a pod, and its target."""
    said = []
    for use in uses:
        each = use.pods / max(replicas, 1)
        if use.what == "ingest":
            said.append(f"{use.what} {each / MIB:.0f} MiB/s (target {use.target / MIB:.0f})")
        else:
            said.append(f"{use.what} {each:.0%} (target {use.target:.0%})")
    return ", ".join(said)
