"""The newest state of what was seen, in small records."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from crossdock_operator.kinds import Object
from crossdock_operator.plan.names import CLUSTER_LABEL
from crossdock_operator.records import Child, ChildKey, Cluster, Key, child_of, cluster_of

_GONE: Final = 4096
"""Objects that are remembered to be deleted."""


@dataclass(slots=True)
class Store:
    """What the watches told last. Of the event loop's thread alone."""

    clusters: dict[Key, Cluster] = field(default_factory=dict)
    _children: dict[Key, dict[ChildKey, Child]] = field(default_factory=dict)
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

    def saw_child(self, kind: str, body: Object, *, deleted: bool = False) -> Key | None:
        """Take in an object with our label; return the key of its cluster."""
        metadata = body["metadata"]
        name = metadata.get("labels", {}).get(CLUSTER_LABEL)
        if name is None:
            return None
        key = Key(metadata["namespace"], name)
        child = ChildKey(kind, metadata["name"])
        if not self._newer(body, deleted=deleted):
            return key
        children = self._children.setdefault(key, {})
        if deleted:
            children.pop(child, None)
        else:
            children[child] = child_of(body)
        if not children:
            del self._children[key]
        return key

    def children(self, key: Key) -> dict[ChildKey, Child]:
        """Return what is known of a cluster's objects."""
        return dict(self._children.get(key, {}))

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
