"""ShuffleJobs: held before their first byte, and let go after the proof."""

import datetime as dt
from dataclasses import dataclass, field

import structlog

from crossdock.errors import ConfigError, CrossdockError
from crossdock_operator.ending.attempts import Attempts
from crossdock_operator.ending.listing import Listing
from crossdock_operator.ending.workers import Reach
from crossdock_operator.errors import NotAllowed, Refused, Stale, Vanished
from crossdock_operator.events import Events
from crossdock_operator.kinds import JOB, SECRET, SHUFFLE_CLUSTER, SHUFFLE_JOB, Kind
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.plan.conditions import Answer
from crossdock_operator.plan.ending import (
    cluster_uid,
    deleting,
    holding,
    is_abandoned,
    is_held,
    is_held_for_another,
    job_end_status,
    releasing,
    unfinished,
)
from crossdock_operator.records import Cluster, Item, Job
from crossdock_operator.storage.checks import Checks
from crossdock_operator.storage.copies import Copies
from crossdock_operator.storage.keepers import Keepers
from crossdock_operator.storage.tasks import Ended, EndJob, TaskFailed
from crossdock_operator.store import Store

_ABANDONED_SECONDS = 10.0
"""For workers that do not answer, where the store is left as it is."""

log = structlog.get_logger()


@dataclass(slots=True)
class JobEnds:
    """Holds jobs, and ends those that are being deleted."""

    kube: Kube
    store: Store
    copies: Copies
    keepers: Keepers
    reach: Reach
    listing: Listing
    checks: Checks
    attempts: Attempts[Ended]
    events: Events = field(init=False)

    def __post_init__(self) -> None:
        self.events = Events(self.kube)

    async def hold(self, job: Job, cluster: Cluster) -> Job:
        """Have a job stay until nothing of it is left; to be called before it is registered.

        Then all that its end takes is kept outside of its namespace, too.

        Raises:
            ConfigError: a Secret that the cluster needs is not there, or the operator's own account
                does not open the store.
            KubeError: it is not held; look again later.
        """
        uid = cluster_uid(job)
        if uid and uid != cluster.uid:
            raise ConfigError(
                f"what the job has is in an earlier ShuffleCluster {cluster.key.name}",
                hint="make a new ShuffleJob",
            )
        patch = holding(job, {names.held_note(job.uid): cluster.uid})
        if patch is None:
            return job
        self.checks.demand(cluster)
        await self.copies.keep(cluster)
        used = holding(cluster, {names.USED: "true"})
        if used is not None:
            self.store.saw_cluster(await self.kube.merge(SHUFFLE_CLUSTER, *cluster.key, used))
        self.store.saw_job(await self.kube.merge(SHUFFLE_JOB, *job.key, patch))
        await self._check_still_there(cluster)
        return self.store.jobs.get(job.key, job)

    async def _check_still_there(self, cluster: Cluster) -> None:
        """Fail if the cluster was deleted meanwhile: its end may have looked for jobs before."""
        body = await self.kube.get(SHUFFLE_CLUSTER, *cluster.key)
        if body is not None:
            self.store.saw_cluster(body)
        now = self.store.clusters.get(cluster.key)
        if body is None or now is None or now.uid != cluster.uid or now.deleting:
            raise Stale(f"the ShuffleCluster {cluster.key.name} has just been deleted")

    async def end(self, job: Job) -> None:
        """Do for a job that is being deleted what is to be done now.

        Raises:
            KubeError: look again later.
        """
        item = Item(SHUFFLE_JOB.name, job.key)
        if not is_held(job):  # nothing of it was ever anywhere; or all is done
            self.attempts.forget(item)
            return
        if is_held_for_another(job):
            await self._release(job)
            return
        abandoned = is_abandoned(job)
        await self._shut_out(item, job.uid)

        async def work() -> Ended:
            return await self._end(job, abandoned=abandoned)

        tag = f"{job.uid} {abandoned}"
        attempt = self.attempts.look(item, tag, work, group=cluster_uid(job))
        if abandoned and attempt.ended:
            await self._abandon(job)
        elif attempt.result is not None:
            log.info("a job is deleted", job=job.key, uid=job.uid, result=attempt.result)
            await self._release(job)
        else:
            await self._write_status(job, _said(attempt.problem, self._settle_seconds(job)))

    async def _shut_out(self, item: Item, uid: str) -> None:
        """Delete what runs a job's tasks, and the Secret with which an engine's pods reach it.

        Tasks would meet a job that is fenced, again and again. Pods that begin for the next job of
        the name must wait for its Secret: the garbage collector may leave this one too long.
        """
        for child in self.store.children(item, uid):
            for kind in (JOB, SECRET):
                if child.kind == kind.name:
                    await self._delete(kind, item, child.name)

    async def _delete(self, kind: Kind, item: Item, name: str) -> None:
        try:
            await self.kube.delete(kind, item.key.namespace, name)
        except NotAllowed as error:
            if kind is not SECRET:
                raise
            # Roles of an earlier version do not allow it. It goes with the job, somewhat later.
            log.warning("a connection Secret stays", job=item.key, name=name, error=str(error))

    async def _end(self, job: Job, *, abandoned: bool) -> Ended:
        uid = cluster_uid(job)
        cluster = self.store.clusters.get(job.cluster)
        access = await self.copies.newest(uid, cluster)
        place = await self.reach.place(access, cluster)
        task = EndJob(job=job.uid)
        if abandoned:
            task = EndJob(job=job.uid, leave_store=True, deadline_seconds=_ABANDONED_SECONDS)
        item = Item(SHUFFLE_JOB.name, job.key)
        return await self.keepers.end_job(
            access, place, task, lambda problem: self.attempts.note(item, problem)
        )

    async def _abandon(self, job: Job) -> None:
        message = (
            "its workers were told as far as they answer; what it has in the store stays there, "
            f"as {names.ABANDON} says"
        )
        await self.events.tell(SHUFFLE_JOB, job, "StorageAbandoned", message, warning=True)
        log.warning("a job's objects are abandoned", job=job.key, uid=job.uid)
        await self._release(job)

    async def _release(self, job: Job) -> None:
        await self._drop_copy(job)
        try:
            body = await self.kube.patch(SHUFFLE_JOB, *job.key, releasing(job))
        except Vanished:
            return
        except Refused as error:  # another finalizer came or went; the watch tells
            raise Stale(error.message) from error
        self.attempts.forget(Item(SHUFFLE_JOB.name, job.key))
        self.store.saw_job(body)
        self.attempts.again(Item(SHUFFLE_CLUSTER.name, job.cluster), 0.0)  # it may wait for it

    async def _drop_copy(self, job: Job) -> None:
        """Drop the copy if this is the last that needs it: its cluster is gone by force."""
        uid, cluster = cluster_uid(job), self.store.clusters.get(job.cluster)
        if not uid or (cluster is not None and cluster.uid == uid):
            return  # there is none; or it goes with the cluster
        body = await self.kube.get(SHUFFLE_CLUSTER, *job.cluster)
        if body is not None and body["metadata"]["uid"] == uid:
            return
        if all(other.uid == job.uid for other in await self.listing.of(uid)):
            await self.copies.drop(uid)

    async def _write_status(self, job: Job, answer: Answer) -> None:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = job_end_status(job, answer, now=now)
        if status == job.status:
            return
        try:
            body = await self.kube.write_status(SHUFFLE_JOB, *job.key, status, uid=job.uid)
        except Vanished:
            return
        self.store.saw_job(body)

    def _settle_seconds(self, job: Job) -> float:
        cluster = self.store.clusters.get(job.cluster)
        return 30.0 if cluster is None else float(cluster.spec.store.settle_seconds)


def _said(problem: CrossdockError | None, settle_seconds: float) -> Answer:
    if problem is None:
        return deleting(settle_seconds)
    reason = problem.reason if isinstance(problem, TaskFailed) else problem.code
    if isinstance(problem, ConfigError):
        reason = "config"
    return unfinished(str(problem), reason, kind="ShuffleJob")
