"""The newest state of what was seen, in small records."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB, Object
from crossdock_operator.plan.names import CLUSTER_LABEL, JOB_LABEL
from crossdock_operator.records import (
    Child,
    ChildKey,
    Cluster,
    Item,
    Job,
    Key,
    child_of,
    cluster_of,
    job_of,
)

_GONE: Final = 4096
"""Objects that are remembered to be deleted."""


@dataclass(slots=True)
class Store:
    """What the watches told last. Of the event loop's thread alone."""

    clusters: dict[Key, Cluster] = field(default_factory=dict)
    jobs: dict[Key, Job] = field(default_factory=dict)
    _children: dict[Item, dict[ChildKey, Child]] = field(default_factory=dict)
    _versions: dict[str, int] = field(default_factory=dict)
    """Of the newest state seen, by uid."""
    _gone: deque[str] = field(default_factory=deque)

    def saw_cluster(self, body: Object, *, deleted: bool = False) -> Key:
        """Take in a ShuffleCluster; return its key."""
        key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
        if not self._newer(body, deleted=deleted):
            return key
        if deleted:
            self.clusters.pop(key, None)
        else:
            self.clusters[key] = cluster_of(body)
        return key

    def saw_job(self, body: Object, *, deleted: bool = False) -> Key:
        """Take in a ShuffleJob; return its key."""
        key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
        if not self._newer(body, deleted=deleted):
            return key
        if deleted:
            self.jobs.pop(key, None)
        else:
            self.jobs[key] = job_of(body)
        return key

    def saw_child(self, kind: str, body: Object, *, deleted: bool = False) -> Item | None:
        """Take in an object with our label; return the cluster or job that it is of."""
        item = owner_of(body)
        if item is None or not self._newer(body, deleted=deleted):
            return item
        child = ChildKey(kind, body["metadata"]["name"])
        children = self._children.setdefault(item, {})
        if deleted:
            children.pop(child, None)
        else:
            children[child] = child_of(body)
        if not children:
            del self._children[item]
        return item

    def children(self, item: Item) -> dict[ChildKey, Child]:
        """Return what is known of the objects of a cluster or job."""
        return dict(self._children.get(item, {}))

    def jobs_of(self, cluster: Key) -> list[Job]:
        """Return the jobs that a cluster serves or shall serve."""
        return [job for job in self.jobs.values() if job.cluster == cluster]

    def _newer(self, body: Object, *, deleted: bool) -> bool:
        """Whether this is not older than what we have: answers to calls overtake the watch."""
        uid, version = body["metadata"]["uid"], int(body["metadata"]["resourceVersion"])
        if version < self._versions.get(uid, 0):
            return False
        self._versions[uid] = version
        if deleted:  # remembered for a while, so that a late answer does not bring it back
            self._gone.append(uid)
            if len(self._gone) > _GONE:
                self._versions.pop(self._gone.popleft(), None)
        return True


def owner_of(body: Object) -> Item | None:
    """Return the cluster or job that an object is of, by its labels: the job, if it names both."""
    metadata = body["metadata"]
    labels = metadata.get("labels", {})
    for label, kind in ((JOB_LABEL, SHUFFLE_JOB), (CLUSTER_LABEL, SHUFFLE_CLUSTER)):
        if label in labels:
            return Item(kind.name, Key(metadata["namespace"], labels[label]))
    return None
