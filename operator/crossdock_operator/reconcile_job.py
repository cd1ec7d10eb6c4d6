"""observe → plan → act → status, of one ShuffleJob at a time."""

import datetime as dt
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from crossdock.errors import ConfigError
from crossdock.stages.states import Phase
from crossdock_operator.ending.jobs import JobEnds
from crossdock_operator.errors import NotAllowed, Stale, Vanished
from crossdock_operator.jobs.acceptance import spec_of
from crossdock_operator.jobs.accepting import Accepting, fresh
from crossdock_operator.jobs.attached import AttachedEnds
from crossdock_operator.jobs.keeping import Kept
from crossdock_operator.jobs.owners import Owners
from crossdock_operator.jobs.registering import Registry
from crossdock_operator.jobs.render import connection_name
from crossdock_operator.jobs.state import document_of
from crossdock_operator.jobs.telling import Teller
from crossdock_operator.jobs.tools import AGAIN_SECONDS, Tools
from crossdock_operator.jobs.usages import Usages
from crossdock_operator.kinds import SHUFFLE_JOB, Object
from crossdock_operator.plan.conditions import YES, Answer
from crossdock_operator.plan.job_status import (
    Seen,
    StageRow,
    has_ended,
    is_true,
    job_status,
    only_numbers_differ,
    paused_status,
    row_after,
)
from crossdock_operator.plan.lifetimes import Lifetimes, lifetimes
from crossdock_operator.plan.owners import OwnerEnd, Verdict
from crossdock_operator.plan.targets import ENDED, ExecutorsSeen
from crossdock_operator.plan.usage import data_durable
from crossdock_operator.records import Cluster, Item, Job, Key
from crossdock_operator.scaling.executors import ExecutorScaler

if TYPE_CHECKING:
    from crossdock_operator.jobs.running import Running

NOT_READY_SECONDS: Final = 10.0
"""After so long a job is looked at again whose cluster or target is not ready for it."""
_PROGRESS_SECONDS: Final = 1.0
"""Numbers of the status are not written more often."""
_PHASES: Final = {
    Phase.WAITING: "Waiting",
    Phase.PLANNING: "Waiting",
    Phase.OBSERVING: "Running",
    Phase.RUNNING: "Running",
    Phase.RECORDING: "Running",
    Phase.DONE: "Done",
}


@dataclass(slots=True)
class JobReconciler:
    """Brings jobs to what their specs say."""

    tools: Tools
    ends: JobEnds
    scaler: ExecutorScaler
    owners: Owners
    usages: Usages
    _registry: Registry = field(init=False)
    _accepting: Accepting = field(init=False)
    _attached: AttachedEnds = field(init=False)
    _running: "dict[str, Running]" = field(default_factory=dict)
    """By uid, the jobs whose stages are under way."""
    _uids: dict[Key, str] = field(default_factory=dict)
    _written: dict[str, float] = field(default_factory=dict)
    """By uid, when the status was written last; monotonic."""

    def __post_init__(self) -> None:
        self._registry = Registry(self.tools)
        self._accepting = Accepting(self.tools, self.ends, self.scaler, self.owners)
        self._attached = AttachedEnds(self.tools)

    async def reconcile(self, key: Key) -> None:
        """Do for a job what is to be done now.

        Raises:
            KubeError: not all of it was done; look again later.
            ConfigError: its cluster is not ready for it.
        """
        job = self.tools.store.jobs.get(key)
        known = self._uids.get(key)
        if known is not None and (job is None or job.uid != known or job.deleting):
            self._drop(key, known)
        if job is None:
            self.scaler.gone(key)
            return
        if job.deleting:
            await self._rest(job)
            await self.ends.end(job)
            return
        self._uids[key] = job.uid
        if job.paused and not job.deleting:
            await self._write(job, paused_status(job, now=_now()))
            return
        cluster = self.tools.store.clusters.get(job.cluster)
        try:
            seen = await self._look_after(job, cluster)
        except (Stale, Vanished):
            self._drop(key, job.uid)  # what this operator thinks of it is not true any more
            raise
        await self._write_status(job, self._with_usage(job, cluster, seen))

    def close(self) -> None:
        """Let go of all jobs: another operator goes on with them."""
        for key, uid in list(self._uids.items()):
            self._drop(key, uid)

    def _drop(self, key: Key, uid: str) -> None:
        self._uids.pop(key, None)
        self._written.pop(uid, None)
        self.scaler.forget(uid)
        self._let_go(uid)

    def _let_go(self, uid: str) -> None:
        """End what is held for a job: connections too, where no other job needs them."""
        running = self._running.pop(uid, None)
        if running is not None:
            running.close()
        self._registry.forget(uid)
        self._attached.forget(uid)
        self.tools.workers.keep(self.tools.store.serving() | self.scaler.polls.clusters())

    # -- one look --------------------------------------------------------------------------

    async def _look_after(self, job: Job, cluster: Cluster | None) -> Seen:
        limits = lifetimes(job, cluster)
        if has_ended(job.status):
            return await self._after_the_end(job, cluster, limits)
        owner = await self.owners.verdict(job)
        accepted = await self._accepting.accepted(job, cluster, owner)
        job = self._newest(job)  # it may have been held meanwhile
        seen = await self._live(job, cluster, limits, accepted, owner)
        return replace(seen, owner_uid=owner.uid)

    async def _live(
        self,
        job: Job,
        cluster: Cluster | None,
        limits: Lifetimes,
        accepted: Answer,
        owner: Verdict,
    ) -> Seen:
        if accepted.status != YES or cluster is None:
            gone = f"ShuffleCluster {job.cluster.name} is gone" if accepted.status == YES else ""
            end = self._too_old(job, limits) or owner.end
            if end is not None:
                return replace(_ended(accepted, end, staged=bool(job.spec.stages)), over=True)
            return Seen(accepted=accepted, waits_for=gone)
        try:
            job = await self.ends.hold(job, cluster)
        except ConfigError as error:
            return Seen(accepted=accepted, waits_for=str(error))
        end = self._too_old(job, limits) or owner.end
        if end is not None and not job.spec.stages:
            return await self._end_attached(job, cluster, limits, _ended(accepted, end))
        ready = await self._registry.ready(job, cluster)
        connection = "" if ready else connection_name(job.key.name)
        if not job.spec.stages or (ready and job.uid not in self._running):
            executors = None
            if job.spec.executors is not None and not ready:
                executors = await self.scaler.advance(job, job.spec.executors)
            return Seen(accepted=accepted, ready=ready, connection=connection, executors=executors)
        return await self._run(job, cluster, limits, ready, end)

    async def _run(
        self,
        job: Job,
        cluster: Cluster,
        limits: Lifetimes,
        ready: str,
        end: OwnerEnd | None = None,
    ) -> Seen:
        now = time.time()
        running = self._running.get(job.uid)
        if running is None:
            # Only where a job runs: the machine and all that it needs take 2 MiB.
            from crossdock_operator.jobs.running import Running  # noqa: PLC0415

            handle = self._registry.handle(job.uid)
            kept = await Kept.take_up(self.tools.kube, job, fresh(job, now))
            running = await Running.take_up(self.tools, job, kept, handle)
            self._running[job.uid] = running
        if end is not None:
            running.stop(end.reason, end.message)
        not_allowed = ""
        try:
            await running.advance(job, cluster, limits, now=now)
        except NotAllowed as error:  # it may be a quota's or a policy's answer: it goes on later
            not_allowed = error.message
            self.tools.wake(Item(SHUFFLE_JOB.name, job.key), AGAIN_SECONDS)
        ended = running.state.ended
        return Seen(
            accepted=_pinned(job, running),
            ready=ready,
            connection=connection_name(job.key.name),
            stages=_rows(job, running),
            waits_for=not_allowed or running.waits_for,
            ended=ended is not None,
            failure=None if ended is None else ended.failure,
            reason="" if ended is None else ended.reason,
            over=running.state.released,
            usage=running.usage,
        )

    def _newest(self, job: Job) -> Job:
        known = self.tools.store.jobs.get(job.key)
        return job if known is None or known.uid != job.uid else known

    # -- the end ---------------------------------------------------------------------------

    async def _end_attached(
        self, job: Job, cluster: Cluster | None, limits: Lifetimes, seen: Seen
    ) -> Seen:
        """Have the workers drop a job without stages that has ended, but for what is to stay."""
        keep = seen.failure is not None and limits.keep_on_failure
        if keep or cluster is None or cluster.deleting:
            return replace(seen, over=True)
        waits_for = await self._attached.drop(job, cluster)
        return replace(seen, over=not waits_for, waits_for=waits_for)

    async def _after_the_end(self, job: Job, cluster: Cluster | None, limits: Lifetimes) -> Seen:
        """See to what is left of a job that has ended; delete it when its time has come."""
        conditions = {c["type"]: c for c in job.status["conditions"]}
        failed = conditions["Failed"]["status"] == YES
        over = conditions["Running"]["reason"] == "Ended"
        said = conditions["Accepted"]
        accepted = Answer("Accepted", said["status"], said["reason"], said.get("message", ""))
        seen = Seen(
            accepted=accepted,
            ended=True,
            failure=conditions["Failed"].get("message", "") if failed else None,
            reason=conditions["Failed"]["reason"],
            over=over,
            executors=await self._rest(job),
        )
        if not over and not job.spec.stages:
            seen = await self._end_attached(job, cluster, limits, seen)
        elif not over and cluster is not None:
            ready = await self._registry.ready(job, cluster)
            if not ready or job.uid in self._running:
                seen = await self._run(job, cluster, limits, ready)
        if seen.over:
            self._let_go(job.uid)
        await self._expire(job, conditions["Failed" if failed else "Complete"], limits)
        return seen

    async def _rest(self, job: Job) -> ExecutorsSeen | None:
        """Let go of the executors of a job that has ended."""
        if job.spec.executors is None or not is_true(job.status, "Accepted") or job.paused:
            return None
        said = {c["type"]: c["reason"] for c in job.status["conditions"]}
        if said.get("ExecutorsScaled") == ENDED:
            return None
        return await self.scaler.rest(job, job.spec.executors)

    async def _expire(self, job: Job, ended: Object, limits: Lifetimes) -> None:
        ttl = limits.ttl_seconds(failed=ended["type"] == "Failed")
        if ttl is None:
            return
        at = dt.datetime.fromisoformat(ended["lastTransitionTime"]).timestamp()
        left = at + ttl - time.time()
        if left > 0:
            self.tools.wake(Item(SHUFFLE_JOB.name, job.key), left)
            return
        await self.tools.kube.delete(SHUFFLE_JOB, *job.key, uid=job.uid)

    def _too_old(self, job: Job, limits: Lifetimes) -> OwnerEnd | None:
        """Return that a job ends by its age, if so; else it is looked at when it will."""
        if limits.max_age_seconds is None:
            return None
        left = job.created + limits.max_age_seconds - time.time()
        if left > 0:
            self.tools.wake(Item(SHUFFLE_JOB.name, job.key), left)
            return None
        return OwnerEnd("TooOld", f"the job is older than {limits.max_age_seconds} s")

    # -- the status ------------------------------------------------------------------------

    def _with_usage(self, job: Job, cluster: Cluster | None, seen: Seen) -> Seen:
        """Return what is seen with what the job takes up, as far as workers were asked."""
        usage = seen.usage or self.usages.of(job)
        if usage is None or cluster is None or seen.accepted.status != YES:
            return seen
        policy = job.spec.persistence or cluster.spec.persistence.policy
        return replace(seen, usage=usage, durable=data_durable(policy, usage))

    async def _write_status(self, job: Job, seen: Seen) -> None:
        job = self._newest(job)
        status = job_status(job, seen, now=_now())
        if status == job.status:
            return
        passed = time.monotonic() - self._written.get(job.uid, float("-inf"))
        if passed < _PROGRESS_SECONDS and only_numbers_differ(status, job.status):
            self.tools.wake(Item(SHUFFLE_JOB.name, job.key), _PROGRESS_SECONDS - passed)
            return
        if seen.ended and not has_ended(job.status):
            # Before the status: whoever finds the end in it tells nothing any more.
            teller = Teller(self.tools.kube)
            if seen.failure is None:
                await teller.tell(job, "Complete", seen.done)
            else:
                await teller.tell(job, "Failed", seen.failure, warning=True)
        if await self._write(job, status):
            self._written[job.uid] = time.monotonic()

    async def _write(self, job: Job, status: Object) -> bool:
        """Write a status that differs; return whether the job is there still."""
        if status == job.status:
            return True
        try:
            body = await self.tools.kube.write_status(SHUFFLE_JOB, *job.key, status, uid=job.uid)
        except Vanished:
            return False
        self.tools.store.saw_job(body)
        return True


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ended(accepted: Answer, end: OwnerEnd, *, staged: bool = False) -> Seen:
    """Return that a job has ended. One whose stages are not done has failed, whatever ended it."""
    failure = None if end.good and not staged else end.message
    return Seen(accepted=accepted, ended=True, failure=failure, reason=end.reason, done=end.message)


def _pinned(job: Job, running: "Running") -> Answer:
    """Say so where the spec is no longer what runs."""
    if document_of(job.key.name, spec_of(job)) == running.state.document:
        return Answer("Accepted", YES, "Accepted")
    message = "a pod template was changed since; the job runs as it was accepted"
    return Answer("Accepted", YES, "RunsAsAccepted", message)


def _rows(job: Job, running: "Running") -> list[StageRow]:
    rows = []
    failed = running.state.ended is not None and running.state.ended.failure is not None
    for name, state in running.staged.machine.stages.items():
        facts = running.facts(name)
        phase = _PHASES[state.phase]
        row = StageRow(
            name=name,
            phase="Failed" if failed and phase == "Running" else phase,
            tasks=len(state.tasks),
            done=len(state.winners),
            attempts=state.attempts,
            partitions=facts.partitions,
            bytes=facts.bytes_out,
        )
        rows.append(row_after(row, job.status))
    return rows
