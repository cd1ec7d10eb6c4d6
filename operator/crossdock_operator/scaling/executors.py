"""Executors of attached engines: their target is looked at, and scaled by what the engine says."""

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import structlog

from crossdock_operator.api.job import Executors
from crossdock_operator.errors import KubeError, NotAllowed, Stale, Vanished
from crossdock_operator.events import Events
from crossdock_operator.jobs.tools import Tools
from crossdock_operator.kinds import HORIZONTAL_POD_AUTOSCALER, POD, SHUFFLE_JOB, Kind, Object
from crossdock_operator.plan.conditions import NO, Answer
from crossdock_operator.plan.scaling import Past, Step, Target, step
from crossdock_operator.plan.targets import (
    DELETION_COST,
    SCALABLE,
    SCALED,
    ExecutorsSeen,
    ended,
    kind_of,
    leaving,
    manager_of_replicas,
    not_allowed,
    problem_of,
    seen,
    unscaled,
)
from crossdock_operator.records import Item, Job, Key
from crossdock_operator.scaling.polls import Polls

MANAGER: Final = "crossdock-operator-executors"
"""Field manager of replicas that are set for jobs."""
SOON_SECONDS: Final = 3.0
"""A target whose pods come or go is looked at again after so long, and then less and less often."""
AT_ONCE_SECONDS: Final = 0.2
"""One that changed while it was looked at."""
LATER_SECONDS: Final = 120.0
"""One at which nothing happens: somebody else may have changed it."""
_SETTLED_SECONDS: Final = 10.0
"""A target at rest need not be looked at for so long to see that a word changes nothing."""
_AUTOSCALERS_SECONDS: Final = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Looked:
    """A target that may be scaled, as it is."""

    kind: Kind
    body: Object
    scale: Object
    pods: Mapping[str, Object]

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])

    @property
    def replicas(self) -> int:
        return int(self.scale["spec"].get("replicas", 0))

    @property
    def version(self) -> str:
        """Its resourceVersion when it was found that it may be scaled."""
        return str(self.body["metadata"]["resourceVersion"])

    @property
    def target(self) -> Target:
        ordinals = (self.body.get("spec") or {}).get("ordinals") or {}
        return Target(
            replicas=self.replicas,
            pods=tuple(self.pods),
            leaving=leaving(self.kind, self.body),
            first=ordinals.get("start", 0) if isinstance(ordinals, Mapping) else 0,
        )


@dataclass(slots=True)
class _Known:
    """Of one job."""

    past: Past
    uid: str = ""
    """Of its target, once it was looked at."""
    said: str = ""
    """Reason of the condition that was told last as an event."""
    settled: Target | None = None
    """The target, if it was at rest when it was looked at."""
    looked_at: float = 0.0


@dataclass(slots=True)
class ExecutorScaler:
    """Scales the targets of attached jobs. Of the event loop alone."""

    tools: Tools
    polls: Polls
    kinds: Sequence[Kind] = SCALABLE
    _known: dict[str, _Known] = field(default_factory=dict)
    """By uid of the job."""
    _rested: dict[Key, str] = field(default_factory=dict)
    """Jobs that have ended, whose targets were let go, and their uids."""
    _autoscalers: dict[str, tuple[float, list[Object]]] = field(default_factory=dict)
    """By namespace, HorizontalPodAutoscalers, and when they were listed."""

    async def refusal(self, job: Job, executors: Executors) -> Answer | None:
        """Return why a job is not accepted for its target; None: it can be scaled.

        Raises:
            KubeError: it cannot be looked at now.
        """
        looked = await self._look(job, executors, fresh=True)
        if isinstance(looked, Answer):
            return Answer("Accepted", NO, looked.reason, looked.message)
        return None

    async def advance(self, job: Job, executors: Executors) -> ExecutorsSeen:
        """Look at a job's target, and do what is to be done now.

        Raises:
            KubeError: it could not be looked at, or not be scaled; look again later.
        """
        now = time.monotonic()
        # After a restart nobody knows when the last step was: the cooldown begins anew.
        known = self._known.setdefault(job.uid, _Known(Past(at=now)))
        if known.settled is not None and now - known.looked_at < _SETTLED_SECONDS:
            found = self._step(job, executors, known.settled, known.past, now)
            if found.replicas is None:
                pause = known.looked_at + LATER_SECONDS - now
                self._wake(job, min(pause, found.again_seconds or pause))
                return self._seen(job, known.settled, found)
        looked = await self._look(job, executors)
        if isinstance(looked, Answer):
            self._known[job.uid] = _Known(Past(at=now), said=known.said)
            await self._tell_problem(job, looked)
            self._wake(job, LATER_SECONDS)
            return unscaled(looked)
        target, now = looked.target, time.monotonic()
        if known.uid not in {"", looked.uid}:  # made again: what it has nobody set against us
            known = self._known[job.uid] = _Known(Past(at=now), said=known.said)
        known.uid = looked.uid
        found = self._step(job, executors, target, known.past, now)
        if found.overruled:
            await self._tell_overruled(job, looked, known.past)
        known.past = found.seen
        try:
            await self._carry_out(job, looked, found)
        except Stale as error:
            log.debug("a target changed meanwhile", job=job.key, error=str(error))
            self._wake(job, AT_ONCE_SECONDS)
            return self._seen(job, target, found)
        rests = found.replicas is None and found.desired == target.replicas == len(target.pods)
        known.past, known.looked_at = found.past, now
        known.settled = target if rests else None
        self._wake(job, _pause_seconds(found, now, rests=rests))
        answer = self._seen(job, target, found)
        await self._tell_problem(job, answer.scaled)
        return answer

    def _step(self, job: Job, executors: Executors, target: Target, past: Past, now: float) -> Step:
        need, whole = self.polls.need(job)
        return step(executors, need, target, past, now=now, suspended=job.spec.suspend, whole=whole)

    def _seen(self, job: Job, target: Target, found: Step) -> ExecutorsSeen:
        need, whole = self.polls.need(job)
        return seen(
            found,
            current=len(target.pods),
            said=need is not None,
            suspended=job.spec.suspend,
            whole=whole,
        )

    def _wake(self, job: Job, seconds: float) -> None:
        self.tools.wake(Item(SHUFFLE_JOB.name, job.key), seconds)

    async def rest(self, job: Job, executors: Executors) -> ExecutorsSeen | None:
        """Set a job's target to `idle` at most, since it has ended, and touch it no more.

        What is in the way of that is no reason to hold up the end of a job: it is logged, and done
        at the next look (None).
        """
        self.polls.forget_job(job.uid)
        self._known.pop(job.uid, None)
        if self._rested.get(job.key) == job.uid:
            return ended()
        try:
            looked = await self._look(job, executors, fresh=True)
            if not isinstance(looked, Answer) and looked.replicas > executors.idle:
                await self._scale(job, looked, executors.idle, "the job has ended")
        except KubeError as error:
            log.warning("executors of a job that ended stay", job=job.key, error=str(error))
            self._wake(job, SOON_SECONDS)
            return None
        self._rested[job.key] = job.uid
        return ended()

    def forget(self, uid: str) -> None:
        """Drop what was kept of a job that has gone, or is another operator's."""
        self._known.pop(uid, None)
        self.polls.forget_job(uid)

    def gone(self, key: Key) -> None:
        """Drop what was kept of a job that was deleted."""
        self._rested.pop(key, None)

    # -- looking ---------------------------------------------------------------------------

    async def _look(
        self, job: Job, executors: Executors, *, fresh: bool = False
    ) -> Answer | _Looked:
        """Return the target, or why it is not scaled."""
        ref, namespace = executors.scale_target_ref, job.key.namespace
        kind = kind_of(ref, self.kinds)
        if kind is None:
            return not_allowed(ref, self.kinds)
        kube = self.tools.kube
        try:
            body = await kube.get(kind, namespace, ref.name)
            autoscalers = await self._autoscalers_of(namespace, fresh=fresh) if body else ()
            problem = problem_of(job, ref, kind, body, autoscalers)
            if problem is not None or body is None:
                assert problem is not None
                return problem
            scale = await kube.get(kind, namespace, ref.name, sub="scale")
        except NotAllowed as error:
            return Answer(SCALED, NO, "NotAllowed", error.message)
        if scale is None:
            message = f"{kind.name} {ref.name} has no scale subresource"
            return Answer(SCALED, NO, "TargetNotFound", message)
        selector = (scale.get("status") or {}).get("selector", "")
        return _Looked(kind, body, scale, await self._pods(namespace, selector))

    async def _autoscalers_of(self, namespace: str, *, fresh: bool) -> list[Object]:
        at, known = self._autoscalers.get(namespace, (float("-inf"), []))
        now = time.monotonic()
        if not fresh and now - at < _AUTOSCALERS_SECONDS:
            return known
        async with aclosing(self.tools.kube.every(HORIZONTAL_POD_AUTOSCALER, namespace)) as found:
            known = [
                {"metadata": {"name": each["metadata"]["name"]}, "spec": each["spec"]}
                async for each in found
            ]
        self._autoscalers[namespace] = now, known
        return known

    async def _pods(self, namespace: str, selector: str) -> dict[str, Object]:
        """Return the target's pods that are not about to go, by name."""
        found: dict[str, Object] = {}
        if not selector:
            return found
        async with aclosing(self.tools.kube.every(POD, namespace, labels=selector)) as pods:
            async for pod in pods:
                over = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
                if not over and "deletionTimestamp" not in pod["metadata"]:
                    found[pod["metadata"]["name"]] = pod
        return found

    # -- doing -----------------------------------------------------------------------------

    async def _carry_out(self, job: Job, looked: _Looked, found: Step) -> None:
        if found.replicas is None:
            return
        for pod, cost in found.costs.items():
            annotations = looked.pods[pod]["metadata"].get("annotations") or {}
            # One without is as one with 0.
            if annotations.get(DELETION_COST, "0") != str(cost):
                await self._mark(job.key.namespace, pod, cost)
        why = "as the engine needs them"
        if job.spec.suspend:
            why = "the job is suspended"
        await self._scale(job, looked, found.replicas, why)

    async def _mark(self, namespace: str, pod: str, cost: int) -> None:
        annotations = {DELETION_COST: str(cost)}
        try:
            await self.tools.kube.merge(
                POD, namespace, pod, {"metadata": {"annotations": annotations}}
            )
        except Vanished:
            return

    async def _scale(self, job: Job, looked: _Looked, replicas: int, why: str) -> None:
        namespace = job.key.namespace
        made = await self.tools.kube.scale(
            looked.kind,
            namespace,
            looked.name,
            replicas,
            manager=MANAGER,
            version=looked.version,
        )
        said = f"{looked.kind.name} {looked.name}: from {looked.replicas} to {replicas}, {why}"
        log.info("executors are scaled", job=job.key, target=looked.name, replicas=replicas)
        version = made["metadata"].get("resourceVersion", "")
        await self._tell(job, "ExecutorsScaled", said, mark=version)

    async def _tell_problem(self, job: Job, scaled: Answer) -> None:
        """Tell why the target is not scaled, once for each time that this begins."""
        known = self._known[job.uid]
        if known.said != scaled.reason and scaled.status == NO:
            await self._tell(job, scaled.reason, scaled.message, warning=True)
        known.said = scaled.reason

    async def _tell_overruled(self, job: Job, looked: _Looked, past: Past) -> None:
        said = f"{looked.kind.name} {looked.name}: somebody else set {looked.replicas} replicas"
        if who := manager_of_replicas(looked.body):
            said += f" ({who})"
        said += f" where this operator had set {past.contest.wanted}"
        version = looked.scale["metadata"].get("resourceVersion", "")
        await self._tell(job, "ReplicasChanged", said, mark=version, warning=True)

    async def _tell(
        self, job: Job, reason: str, message: str, *, mark: str = "", warning: bool = False
    ) -> None:
        events = Events(self.tools.kube)
        await events.tell(SHUFFLE_JOB, job, reason, message, mark=mark, warning=warning)


def _pause_seconds(found: Step, now: float, *, rests: bool) -> float:
    """Return after how long a target is looked at again, if the workers tell no news."""
    age = now - found.past.at
    pause = LATER_SECONDS if rests else min(max(SOON_SECONDS, age / 2), LATER_SECONDS)
    return pause if found.again_seconds is None else min(pause, found.again_seconds)
