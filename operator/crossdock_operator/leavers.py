"""Worker pods that are about to go, as each drains first, or that do not get ready."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from crossdock_operator.kinds import POD, SHUFFLE_CLUSTER
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.plan.cluster import replicas
from crossdock_operator.plan.status import moves
from crossdock_operator.plan.troubles import Pods, summary, trouble_of
from crossdock_operator.records import Child, Cluster, Item

LOOK_SECONDS: Final = 15.0
"""Pods that drain are looked at again after so long: what changes of them, no watch tells."""
NOT_READY_SECONDS: Final = 30.0
"""Others that are not ready: it may stay so for days."""


@dataclass(frozen=True, slots=True)
class Leavers:
    """Looks at them, in clusters where pods come or go, or are not all ready."""

    kube: Kube
    again: Callable[[Item, float], None]
    """Has an object looked at after so many seconds."""

    async def look(self, cluster: Cluster, workers: Child | None) -> Pods:
        """Return how many pods of a cluster are about to go, and why others are not ready.

        Raises:
            KubeError: they cannot be listed; look again later.
        """
        before = (cluster.status.get("workers") or {}).get("draining", 0)
        if workers is None or not (before or moves(cluster, workers)):
            return Pods()
        labels = names.pod_selector(cluster)
        count = draining = 0
        troubles = []
        async with aclosing(self.kube.every(POD, cluster.key.namespace, labels=labels)) as pods:
            async for pod in pods:
                count += 1
                if "deletionTimestamp" in pod["metadata"]:
                    draining += 1
                elif (trouble := trouble_of(pod)) is not None:
                    troubles.append(trouble)
        item = Item(SHUFFLE_CLUSTER.name, cluster.key)
        if draining:
            self.again(item, LOOK_SECONDS)
        elif moves(cluster, workers) and not cluster.paused:
            self.again(item, NOT_READY_SECONDS)
        said = summary(troubles, pods=count, wanted=replicas(cluster), owner=names.workers(cluster))
        return Pods(draining=draining, trouble=said)
