"""The newest state of what was seen, in small records."""

from collections import Counter
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


@dataclass(frozen=True, slots=True)
class Seen:
    """An object of any kind, as it was seen last."""

    uid: str
    version: int
    """Its resourceVersion, which only grows."""
    of: Item
    """What is looked at when it changes: itself, or what it is a child of."""


@dataclass(slots=True)
class Store:
    """What the watches told last. Of the event loop's thread alone."""

    clusters: dict[Key, Cluster] = field(default_factory=dict)
    jobs: dict[Key, Job] = field(default_factory=dict)
    changes: int = 0
    """How often something that was not known was seen: who looks again and again asks this."""
    _served: dict[Key, set[Key]] = field(default_factory=dict)
    """Jobs by cluster."""
    _children: dict[Item, dict[ChildKey, Child]] = field(default_factory=dict)
    _seen: dict[Item, Seen] = field(default_factory=dict)
    _gone: dict[str, int] = field(default_factory=dict)
    """Of the last objects that went, by uid, when: so that a late answer brings none back."""

    def saw_cluster(self, body: Object, *, deleted: bool = False) -> Key:
        """Take in a ShuffleCluster; return its key."""
        item = item_of(SHUFFLE_CLUSTER.name, body)
        if self._newer(item, body, of=item, deleted=deleted):
            if deleted:
                self._drop(item, item)
            else:
                self.clusters[item.key] = cluster_of(body)
        return item.key

    def saw_job(self, body: Object, *, deleted: bool = False) -> Key:
        """Take in a ShuffleJob; return its key."""
        item = item_of(SHUFFLE_JOB.name, body)
        if self._newer(item, body, of=item, deleted=deleted):
            self._drop(item, item)
            if not deleted:
                job = self.jobs[item.key] = job_of(body)
                self._served.setdefault(job.cluster, set()).add(item.key)
        return item.key

    def saw_child(self, kind: str, body: Object, *, deleted: bool = False) -> Item | None:
        """Take in an object with our label; return the cluster or job that it is of."""
        of = labelled(body)
        if of is None:
            return None
        item = item_of(kind, body)
        if self._newer(item, body, of=of, deleted=deleted):
            if deleted:
                self._drop(item, of)
            else:
                self._children.setdefault(of, {})[ChildKey(kind, item.key.name)] = child_of(body)
        return of

    def children(self, item: Item, uid: str) -> dict[ChildKey, Child]:
        """Return what is known of the objects of the cluster or job with this uid."""
        found = self._children.get(item, {})
        return {key: child for key, child in found.items() if not child.owner.is_other(uid)}

    def others(self, item: Item, uid: str) -> dict[ChildKey, Child]:
        """Return objects of the name that are not of the one with this uid: they are to go."""
        found = self._children.get(item, {})
        return {key: child for key, child in found.items() if child.owner.is_other(uid)}

    def jobs_of(self, cluster: Key) -> list[Job]:
        """Return the jobs that a cluster serves or shall serve."""
        return [self.jobs[key] for key in self._served.get(cluster, ())]

    def serving(self) -> set[Key]:
        """Return the clusters that have jobs."""
        return {cluster for cluster, jobs in self._served.items() if jobs}

    def knows(self, kind: str, body: Object) -> bool:
        """Return whether this state of an object was seen, or a later one."""
        seen = self._seen.get(item_of(kind, body))
        known = self._gone.get(body["metadata"]["uid"], -1) if seen is None else seen.version
        return known >= int(body["metadata"]["resourceVersion"])

    def known(self, kind: str, namespace: str = "") -> list[Item]:
        """Return all objects of a kind, of one namespace or of all."""
        return [
            item
            for item in self._seen
            if item.kind == kind and namespace in {"", item.key.namespace}
        ]

    def counts(self) -> Counter[str]:
        """Return how many objects are known, by kind."""
        return Counter(item.kind for item in self._seen)

    def lost(self, item: Item, version: int) -> Item | None:
        """Drop an object that is gone, though nobody said so.

        Args:
            item: the object.
            version: resourceVersion of a list that had it no more.

        Returns:
            What is to be looked at now; None: the object is newer than the list.
        """
        seen = self._seen.get(item)
        if seen is None or seen.version > version:
            return None
        self.changes += 1
        self._forget(item, seen.uid, version)
        self._drop(item, seen.of)
        return seen.of

    def _newer(self, item: Item, body: Object, *, of: Item, deleted: bool) -> bool:
        """Whether this is not older than what we have: answers to calls overtake the watch."""
        uid, version = body["metadata"]["uid"], int(body["metadata"]["resourceVersion"])
        seen = self._seen.get(item)
        if version <= self._gone.get(uid, -1) or (seen is not None and version < seen.version):
            return False
        self.changes += 1
        if seen is not None and seen.of != of:
            self._drop(item, seen.of)
        if deleted:
            self._forget(item, uid, version)
        else:
            self._seen[item] = Seen(uid, version, of)
        return True

    def _forget(self, item: Item, uid: str, version: int) -> None:
        self._seen.pop(item, None)
        self._gone[uid] = version
        if len(self._gone) > _GONE:
            del self._gone[next(iter(self._gone))]

    def _drop(self, item: Item, of: Item) -> None:
        """Take an object out of the records."""
        if item.kind == SHUFFLE_CLUSTER.name:
            self.clusters.pop(item.key, None)
        elif item.kind == SHUFFLE_JOB.name:
            job = self.jobs.pop(item.key, None)
            if job is not None and (served := self._served.get(job.cluster)) is not None:
                served.discard(item.key)
                if not served:
                    del self._served[job.cluster]
        elif (children := self._children.get(of)) is not None:
            children.pop(ChildKey(item.kind, item.key.name), None)
            if not children:
                del self._children[of]


def item_of(kind: str, body: Object) -> Item:
    """Return an object's own kind and name."""
    return Item(kind, Key(body["metadata"]["namespace"], body["metadata"]["name"]))


def labelled(body: Object) -> Item | None:
    """Return the cluster or job that an object is of, by its labels: the job, if it names both."""
    metadata = body["metadata"]
    labels = metadata.get("labels", {})
    for label, kind in ((JOB_LABEL, SHUFFLE_JOB), (CLUSTER_LABEL, SHUFFLE_CLUSTER)):
        if label in labels:
            return Item(kind.name, Key(metadata["namespace"], labels[label]))
    return None
