"""ShuffleClusters: held while a job has data there, and until the store has nothing of them."""

import datetime as dt
import time
from dataclasses import dataclass, field

import structlog

from crossdock.errors import ConfigError, CrossdockError
from crossdock_operator.api.cluster import DeletionPolicy, JobsOnDeletion
from crossdock_operator.ending.attempts import Attempts
from crossdock_operator.ending.listing import Listing
from crossdock_operator.ending.workers import Reach
from crossdock_operator.errors import Refused, Stale, Vanished
from crossdock_operator.events import Events
from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.plan.conditions import NO, Answer
from crossdock_operator.plan.ending import (
    cluster_end_status,
    cluster_uid,
    holding,
    is_abandoned,
    is_held,
    releasing,
    unfinished,
    waiting_for,
)
from crossdock_operator.records import Cluster, Item, Job
from crossdock_operator.storage.copies import Copies
from crossdock_operator.storage.keepers import Keepers
from crossdock_operator.storage.tasks import Audit, Audited, TaskFailed
from crossdock_operator.store import Store

_LOOK_SECONDS = 30.0
"""How often jobs are looked for that a cluster waits for, whatever was seen."""
_GRACE_SECONDS = 0.0
"""No job of the cluster lives: nothing is too young to be an orphan."""

log = structlog.get_logger()


@dataclass(slots=True)
class ClusterEnds:
    """Holds clusters, and ends those that are being deleted."""

    kube: Kube
    store: Store
    copies: Copies
    keepers: Keepers
    reach: Reach
    listing: Listing
    attempts: Attempts[Audited]
    events: Events = field(init=False)

    def __post_init__(self) -> None:
        self.events = Events(self.kube)

    async def hold(self, cluster: Cluster) -> Cluster:
        """Have a cluster stay until nothing of it is left.

        Raises:
            KubeError: it is not held; look again later.
        """
        patch = holding(cluster, {})
        if patch is None:
            return cluster
        self.store.saw_cluster(await self.kube.merge(SHUFFLE_CLUSTER, *cluster.key, patch))
        return self.store.clusters.get(cluster.key, cluster)

    async def end(self, cluster: Cluster) -> None:
        """Do for a cluster that is being deleted what is to be done now.

        Raises:
            KubeError: look again later.
        """
        item = Item(SHUFFLE_CLUSTER.name, cluster.key)
        if not is_held(cluster):
            self.attempts.forget(item)
            return
        jobs = [job for job in self.store.jobs.values() if cluster_uid(job) == cluster.uid]
        if not jobs:  # as far as was seen: an operator that has just begun may not know all
            jobs = await self.listing.of(cluster.uid)
        if jobs:
            await self._wait_for(cluster, jobs)
        elif not _may_have_objects(cluster):
            await self._release(cluster)
        else:
            await self._clear(item, cluster)

    async def _wait_for(self, cluster: Cluster, jobs: list[Job]) -> None:
        await self._write_status(cluster, waiting_for(jobs))
        self.attempts.again(Item(SHUFFLE_CLUSTER.name, cluster.key), _LOOK_SECONDS)
        if cluster.spec.jobs_on_deletion is not JobsOnDeletion.END:
            return
        for job in jobs:
            if not job.deleting:
                await self.kube.delete(SHUFFLE_JOB, *job.key, uid=job.uid)
                log.info("ends a job with its cluster", job=job.key, cluster=cluster.key)

    async def _clear(self, item: Item, cluster: Cluster) -> None:
        """Have all of the cluster go from the store, and then the cluster."""

        async def work() -> Audited:
            return await self._sweep(cluster)

        attempt = self.attempts.look(item, cluster.uid, work, group=cluster.uid)
        if attempt.result is not None:
            await self._release(cluster)
        elif attempt.problem is not None and is_abandoned(cluster):
            message = f"what it has in the store stays there, as {names.ABANDON} says"
            await self.events.tell(
                SHUFFLE_CLUSTER, cluster, "StorageAbandoned", message, warning=True
            )
            await self._release(cluster)
        else:
            await self._write_status(cluster, _said(attempt.problem))

    async def _sweep(self, cluster: Cluster) -> Audited:
        access = await self.copies.newest(cluster.uid, cluster)
        place = await self.reach.place(access, cluster)
        task = Audit(live=(), as_of=time.monotonic(), grace_seconds=_GRACE_SECONDS)
        found = await self.keepers.audit(access, place, task)
        left = found.orphans + found.unsure + found.young
        if left:
            silent = f"; these workers do not answer: {', '.join(found.silent)}"
            raise TaskFailed(
                f"{left} objects, uploads or files of jobs are left"
                + (silent if found.silent else "")
            )
        return found

    async def _release(self, cluster: Cluster) -> None:
        await self.copies.drop(cluster.uid)
        try:
            body = await self.kube.patch(SHUFFLE_CLUSTER, *cluster.key, releasing(cluster))
        except Vanished:
            return
        except Refused as error:  # another finalizer came or went; the watch tells
            raise Stale(error.message) from error
        log.info("a cluster is let go", cluster=cluster.key, uid=cluster.uid)
        self.attempts.forget(Item(SHUFFLE_CLUSTER.name, cluster.key))
        self.store.saw_cluster(body)

    async def _write_status(self, cluster: Cluster, answer: Answer) -> None:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = cluster_end_status(cluster, answer, now=now)
        if status == cluster.status:
            return
        try:
            body = await self.kube.write_status(
                SHUFFLE_CLUSTER, *cluster.key, status, uid=cluster.uid
            )
        except Vanished:
            return
        self.store.saw_cluster(body)


def _may_have_objects(cluster: Cluster) -> bool:
    """Whether the store is to be cleared: a job was there, and its objects are not to stay."""
    used = cluster.annotations.get(names.USED) == "true"
    return used and cluster.spec.deletion_policy is DeletionPolicy.DELETE


def _said(problem: CrossdockError | None) -> Answer:
    if problem is None:
        return Answer("StorageClean", NO, "Deleting", "all of the cluster goes from the store")
    reason = problem.reason if isinstance(problem, TaskFailed) else problem.code
    if isinstance(problem, ConfigError):
        reason = "config"
    return unfinished(str(problem), reason, kind="ShuffleCluster")
