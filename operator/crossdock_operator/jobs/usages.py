"""What the jobs of each cluster take up: its workers are asked where there are jobs."""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from crossdock.errors import CrossdockError
from crossdock_operator.guard import apart
from crossdock_operator.jobs.tools import Tools
from crossdock_operator.jobs.usage import ClusterUsage, usage_of_cluster
from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB
from crossdock_operator.plan.usage import Usage
from crossdock_operator.records import Cluster, Item, Job

_NOTHING: Final = Usage()

log = structlog.get_logger()


@dataclass(slots=True)
class Usages:
    """Of all clusters, as it was told last. Of the event loop's thread."""

    tools: Tools
    _told: dict[str, ClusterUsage] = field(default_factory=dict)
    """By uid of the cluster."""
    _asked: set[str] = field(default_factory=set)

    def of(self, job: Job) -> Usage | None:
        """Return what a job takes up; None: no worker has told, or it never took anything."""
        cluster = self.tools.store.clusters.get(job.cluster)
        told = None if cluster is None else self._told.get(cluster.uid)
        if told is None:
            return None
        found = told.jobs.get(job.uid, Usage(whole=told.total.whole))
        something = found.worker_bytes or found.store_bytes or found.store_requests
        return found if something or "workerBytes" in job.status else None

    def of_cluster(self, cluster: Cluster) -> Usage | None:
        """Return what all jobs of a cluster take up; None: no worker has told."""
        told = self._told.get(cluster.uid)
        return None if told is None else told.total

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await asyncio.sleep(self.tools.look_seconds)
            clusters = list(self.tools.store.clusters.values())
            for uid in self._told.keys() - {cluster.uid for cluster in clusters}:
                del self._told[uid]
            for cluster in clusters:
                if not cluster.deleting and cluster.uid not in self._asked and self._has(cluster):
                    with apart("asks workers what they have", cluster=cluster.key):
                        await self._ask(cluster)

    def _has(self, cluster: Cluster) -> bool:
        """Whether there are jobs, or were when it was told last."""
        told = self._told.get(cluster.uid)
        return bool(self.tools.served(cluster.key)) or bool(told and told.jobs)

    async def _ask(self, cluster: Cluster) -> None:
        try:
            client = await self.tools.workers.client(cluster)
        except CrossdockError as error:
            log.info("workers are not asked what they have", cluster=cluster.key, error=str(error))
            return
        self._asked.add(cluster.uid)
        self.tools.workers.ask(partial(usage_of_cluster, client), partial(self._heard, cluster))

    def _heard(self, cluster: Cluster, future: "asyncio.Future[ClusterUsage]") -> None:
        self._asked.discard(cluster.uid)
        if future.cancelled() or future.exception() is not None:
            return
        before, now = self._told.get(cluster.uid, ClusterUsage()), future.result()
        self._told[cluster.uid] = now
        if before.total != now.total:
            self.tools.wake(Item(SHUFFLE_CLUSTER.name, cluster.key), 0.0)
        for job in self.tools.served(cluster.key):
            if before.jobs.get(job.uid, _NOTHING) != now.jobs.get(job.uid, _NOTHING):
                self.tools.wake(Item(SHUFFLE_JOB.name, job.key), 0.0)
