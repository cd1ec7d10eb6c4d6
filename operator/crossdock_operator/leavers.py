"""Worker pods that are about to go: each drains first, and that may take an hour."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from crossdock_operator.kinds import POD, SHUFFLE_CLUSTER
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.plan.status import moves
from crossdock_operator.records import Child, Cluster, Item

LOOK_SECONDS: Final = 15.0
"""Pods that go are looked at again after so long: what changes of them, no watch tells."""


@dataclass(frozen=True, slots=True)
class Leavers:
    """Counts them, in clusters where pods come or go."""

    kube: Kube
    again: Callable[[Item, float], None]
    """Has an object looked at after so many seconds."""

    async def count(self, cluster: Cluster, workers: Child | None) -> int:
        """Return how many pods of a cluster are about to go.

        Raises:
            KubeError: they cannot be listed; look again later.
        """
        before = (cluster.status.get("workers") or {}).get("draining", 0)
        if workers is None or not (before or moves(cluster, workers)):
            return 0
        labels = names.pod_selector(cluster)
        found = 0
        async with aclosing(self.kube.every(POD, cluster.key.namespace, labels=labels)) as pods:
            async for pod in pods:
                found += "deletionTimestamp" in pod["metadata"]
        if found:
            self.again(Item(SHUFFLE_CLUSTER.name, cluster.key), LOOK_SECONDS)
        return found
