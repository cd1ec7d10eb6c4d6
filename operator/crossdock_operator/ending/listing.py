"""All ShuffleJobs there are, as the API server says it now: what a watch has seen may lack some."""

from collections.abc import Sequence
from dataclasses import dataclass

from crossdock_operator.kinds import SHUFFLE_JOB
from crossdock_operator.kube import Kube
from crossdock_operator.plan.ending import cluster_uid
from crossdock_operator.records import Job, job_of


@dataclass(frozen=True, slots=True)
class Listing:
    """Asks for them."""

    kube: Kube
    namespaces: Sequence[str]
    """Those that the operator looks after; none: all."""

    async def every(self) -> list[Job]:
        """Return all jobs.

        Raises:
            KubeError: they are not known.
        """
        found = []
        for namespace in self.namespaces or ("",):
            found += [job_of(body) async for body in self.kube.every(SHUFFLE_JOB, namespace)]
        return found

    async def of(self, uid: str) -> list[Job]:
        """Return the jobs that have data in a cluster; see `every`."""
        return [job for job in await self.every() if cluster_uid(job) == uid]
