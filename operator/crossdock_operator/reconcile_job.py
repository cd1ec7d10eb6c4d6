"""observe → plan → act → status, of one ShuffleJob at a time."""

import datetime as dt
from dataclasses import dataclass

from crossdock.errors import ConfigError
from crossdock_operator.ending.jobs import JobEnds
from crossdock_operator.errors import Vanished
from crossdock_operator.kinds import SHUFFLE_JOB, Object
from crossdock_operator.kube import Kube
from crossdock_operator.plan.cluster import Given
from crossdock_operator.plan.job_status import job_status
from crossdock_operator.records import Job, Key
from crossdock_operator.store import Store


@dataclass(slots=True)
class JobReconciler:
    """Brings jobs to what their specs say."""

    kube: Kube
    store: Store
    given: Given
    ends: JobEnds

    async def reconcile(self, key: Key) -> None:
        """Do for a job what is to be done now.

        Raises:
            KubeError: not all of it was done; look again later.
            ConfigError: its cluster is not ready for it.
        """
        job = self.store.jobs.get(key)
        if job is None:
            return
        if job.deleting:
            await self.ends.end(job)
            return
        cluster = self.store.clusters.get(job.cluster)
        if cluster is not None and not cluster.deleting:
            try:
                job = await self.ends.hold(job, cluster)
            except ConfigError as error:
                await self._write_status(job, problem=str(error))
                raise
        await self._write_status(job)

    async def _write_status(self, job: Job, *, problem: str = "") -> None:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status: Object = job_status(
            job, self.store.clusters.get(job.cluster), now=now, problem=problem
        )
        if status == job.status:
            return
        try:
            body = await self.kube.write_status(SHUFFLE_JOB, *job.key, status)
        except Vanished:
            return
        self.store.saw_job(body)
