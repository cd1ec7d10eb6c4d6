"""What a viewer is shown of clusters and jobs: all at first, then what has changed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Final

from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB, Object
from crossdock_operator.plan.advice import Finding, wrong
from crossdock_operator.records import Cluster, Item, Job
from crossdock_operator.store import Store

_CLUSTER: Final = ("phase", "summary", "workers", "endpoint", "storage")
_JOB: Final = ("phase", "progress", "stages", "workerBytes", "storeBytes", "storeRequests",
               "executors")  # fmt: skip
"""What of a status is shown as it is; conditions are judged."""


def namespaces_of(store: Store) -> frozenset[str]:
    """Return where there is anything to be shown."""
    return frozenset(key.namespace for known in (store.clusters, store.jobs) for key in known)


def cluster_picture(cluster: Cluster) -> Object:
    """Return what is shown of a cluster."""
    findings = wrong(SHUFFLE_CLUSTER.name, *cluster.key, cluster.status)
    return {
        "namespace": cluster.key.namespace,
        "name": cluster.key.name,
        "deleting": cluster.deleting,
        **{name: cluster.status[name] for name in _CLUSTER if name in cluster.status},
        "findings": _shown(findings),
    }


def job_picture(job: Job) -> Object:
    """Return what is shown of a job."""
    findings = wrong(SHUFFLE_JOB.name, *job.key, job.status)
    return {
        "namespace": job.key.namespace,
        "name": job.key.name,
        "deleting": job.deleting,
        "created": job.created,
        "cluster": {"namespace": job.cluster.namespace, "name": job.cluster.name},
        **{name: job.status[name] for name in _JOB if name in job.status},
        "findings": _shown(findings),
    }


@dataclass(slots=True)
class Sight:
    """What one viewer was told last."""

    _told: dict[Item, str] = field(default_factory=dict)
    """By object, the version that was told."""
    _looked: tuple[int, frozenset[str]] | None = None
    """What the store had seen then, and where the viewer might look."""

    def look(self, store: Store, permitted: frozenset[str]) -> Object | None:
        """Return what is new for the viewer; None: nothing.

        Args:
            store: what is known.
            permitted: the namespaces of which the viewer is told.
        """
        if self._looked == (store.changes, permitted):
            return None
        first = self._looked is None
        self._looked = (store.changes, permitted)
        clusters = [c for c in store.clusters.values() if c.key.namespace in permitted]
        jobs = [j for j in store.jobs.values() if j.key.namespace in permitted]
        now = {Item(SHUFFLE_CLUSTER.name, c.key): c.version for c in clusters}
        now |= {Item(SHUFFLE_JOB.name, j.key): j.version for j in jobs}
        before, self._told = self._told, now
        news: Object = {
            "clusters": [
                cluster_picture(each)
                for each in clusters
                if before.get(Item(SHUFFLE_CLUSTER.name, each.key)) != each.version
            ],
            "jobs": [
                job_picture(each)
                for each in jobs
                if before.get(Item(SHUFFLE_JOB.name, each.key)) != each.version
            ],
            "gone": [[item.kind, *item.key] for item in before if item not in now],
        }
        return news if first or any(news.values()) else None


def _shown(findings: Iterable[Finding]) -> list[Object]:
    return [asdict(each) for each in findings]
