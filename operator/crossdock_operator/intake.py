"""What is seen of objects goes into the store, and into the queue what is to be looked at then."""

import dataclasses
from dataclasses import dataclass

from crossdock_operator.api.cluster import Monitoring, Workers
from crossdock_operator.kinds import SECRET, SHUFFLE_CLUSTER, SHUFFLE_JOB, Kind, Object
from crossdock_operator.queue import Queue
from crossdock_operator.records import Cluster, Item, Key
from crossdock_operator.store import Store


@dataclass(frozen=True, slots=True)
class Intake:
    """Takes in what watches and lists tell."""

    store: Store
    queue: Queue[Item]

    def saw(self, kind: Kind, body: Object, *, deleted: bool = False) -> None:
        """Take in an object of any kind that is watched."""
        if kind == SHUFFLE_CLUSTER:
            self._cluster(body, deleted=deleted)
        elif kind == SHUFFLE_JOB:
            key = self.store.saw_job(body, deleted=deleted)
            self.queue.add(Item(SHUFFLE_JOB.name, key))
        else:
            item = self.store.saw_child(kind.name, body, deleted=deleted)
            if item is not None:
                self.queue.add(item)
                if kind == SECRET and item.kind == SHUFFLE_CLUSTER.name:
                    # It may have keys that open the cluster, or its authority.
                    self._jobs_of(item.key)

    def lost(self, item: Item, version: int) -> bool:
        """Take in that a list of this resourceVersion lacks an object; return if it is news."""
        look_at = self.store.lost(item, version)
        if look_at is None:
            return False
        self.queue.add(look_at)
        if item.kind == SHUFFLE_CLUSTER.name:
            self._jobs_of(item.key)
        return True

    def _cluster(self, body: Object, *, deleted: bool) -> None:
        metadata = body["metadata"]
        before = self.store.clusters.get(Key(metadata["namespace"], metadata["name"]))
        key = self.store.saw_cluster(body, deleted=deleted)
        self.queue.add(Item(SHUFFLE_CLUSTER.name, key))
        if _serves(before) != _serves(self.store.clusters.get(key)):
            self._jobs_of(key)

    def _jobs_of(self, cluster: Key) -> None:
        for job in self.store.jobs_of(cluster):
            self.queue.add(Item(SHUFFLE_JOB.name, job.key))


def _serves(cluster: Cluster | None) -> tuple[object, ...]:
    """Return what jobs go by: a cluster has thousands, and is scaled often."""
    if cluster is None:
        return ()
    spec = dataclasses.replace(cluster.spec, workers=Workers(), monitoring=Monitoring())
    status = cluster.status
    return cluster.uid, cluster.deleting, spec, status.get("phase"), status.get("endpoint")
