"""What all that is done for jobs shares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from crossdock_operator.jobs.workers import Workers
from crossdock_operator.kube import Kube
from crossdock_operator.plan.job_status import is_true
from crossdock_operator.records import Item, Job, Key
from crossdock_operator.store import Store

LOOK_SECONDS: Final = 15.0
"""Between two looks at what no watch tells: owners of jobs, and what workers have."""
AGAIN_SECONDS: Final = 5.0
"""After so long workers are asked again that did not answer."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Of one operator process."""

    kube: Kube
    store: Store
    workers: Workers
    wake: Callable[[Item, float], None]
    """Has a job looked at, at the latest after so many seconds."""

    look_seconds: float = LOOK_SECONDS

    def served(self, cluster: Key) -> list[Job]:
        """Return the jobs that a cluster has taken: anybody may name it, and mean nothing by it."""
        jobs = self.store.jobs_of(cluster)
        return [job for job in jobs if is_true(job.status, "Accepted")]
