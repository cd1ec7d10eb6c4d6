"""What a viewer is shown of clusters and jobs: all at first, then what has changed."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final, TypeAlias

from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB, Object
from crossdock_operator.plan.advice import Finding, wrong
from crossdock_operator.records import Cluster, Item, Job
from crossdock_operator.store import Store

_CLUSTER: Final = ("phase", "summary", "workers", "endpoint", "storage")
_JOB: Final = ("phase", "progress", "stages", "workerBytes", "storeBytes", "storeRequests",
               "executors")  # fmt: skip
"""What of a status is shown as it is; conditions are judged."""


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


@dataclass(frozen=True, slots=True)
class Shown:
    """An object as everybody is shown it."""

    version: str
    picture: Object


_Namespace: TypeAlias = Mapping[Item, Shown]
"""What is shown of one; the same mapping while nothing of it changes."""


@dataclass(slots=True)
class Gallery:
    """Pictures of all that is known, made once for each change, however many look."""

    store: Store
    _changes: int = -1
    """What the store had seen when they were made."""
    _namespaces: dict[str, _Namespace] = field(default_factory=dict)

    def look(self) -> Mapping[str, _Namespace]:
        """Return what there is to be shown, by namespace."""
        if self._changes == self.store.changes:
            return self._namespaces
        found: dict[str, dict[Item, Shown]] = {}
        for cluster in self.store.clusters.values():
            item = Item(SHUFFLE_CLUSTER.name, cluster.key)
            known = self._known(item, cluster.version)
            shown = known or Shown(cluster.version, cluster_picture(cluster))
            found.setdefault(cluster.key.namespace, {})[item] = shown
        for job in self.store.jobs.values():
            item = Item(SHUFFLE_JOB.name, job.key)
            known = self._known(item, job.version)
            shown = known or Shown(job.version, job_picture(job))
            found.setdefault(job.key.namespace, {})[item] = shown
        before, self._changes = self._namespaces, self.store.changes
        self._namespaces = {
            name: before[name] if _same(before.get(name), now) else now
            for name, now in found.items()
        }
        return self._namespaces

    def forget(self) -> None:
        """Drop all pictures: nobody looks."""
        self._changes, self._namespaces = -1, {}

    def _known(self, item: Item, version: str) -> Shown | None:
        known = self._namespaces.get(item.key.namespace, {}).get(item)
        return known if known is not None and known.version == version else None


def _same(before: _Namespace | None, now: _Namespace) -> bool:
    return (
        before is not None
        and before.keys() == now.keys()
        and all(before[item] is shown for item, shown in now.items())
    )


@dataclass(slots=True)
class Sight:
    """What one viewer was told last."""

    _told: dict[str, _Namespace] | None = None

    def look(self, gallery: Gallery, permitted: frozenset[str]) -> Object | None:
        """Return what is new for the viewer; None: nothing.

        Args:
            gallery: what there is to be shown.
            permitted: the namespaces of which the viewer is told.
        """
        now = {name: each for name, each in gallery.look().items() if name in permitted}
        before, self._told = self._told, now
        told = before or {}
        news: Object = {"clusters": [], "jobs": [], "gone": []}
        for name in [*told, *(name for name in now if name not in told)]:
            was, shall = told.get(name, {}), now.get(name, {})
            if was is shall:
                continue
            for item, shown in shall.items():
                if was.get(item) is not shown:
                    news[_LIST[item.kind]].append(shown.picture)
            news["gone"] += [[item.kind, *item.key] for item in was if item not in shall]
        return news if before is None or any(news.values()) else None


_LIST: Final = {SHUFFLE_CLUSTER.name: "clusters", SHUFFLE_JOB.name: "jobs"}


def _shown(findings: Iterable[Finding]) -> list[Object]:
    return [asdict(each) for each in findings]
