"""Workers of clusters are scaled by their use: `spec.workers.replicas` is moved, as people do it.

By the scale subresource, and only from the state that was decided on: who scales the cluster by
hand is not overruled, but goes on from there.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from crossdock_operator.events import Events
from crossdock_operator.kinds import SHUFFLE_CLUSTER, STATEFUL_SET
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.plan.conditions import UNKNOWN, Answer, said
from crossdock_operator.plan.sizing import AUTOSCALED, CONTESTED, Past, decide, read
from crossdock_operator.records import Child, ChildKey, Cluster, Key
from crossdock_operator.scaling.polls import LOAD_SECONDS, Heard, Polls

MANAGER: Final = "crossdock-operator-autoscaler"
"""Field manager of replicas that are set for use."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Known:
    """Of one cluster."""

    uid: str
    past: Past = field(default_factory=Past)
    heard: Heard | None = None
    """What was decided on last."""


@dataclass(slots=True)
class WorkerScaler:
    """Moves the number of workers of clusters that want it. Of the event loop alone."""

    kube: Kube
    polls: Polls
    _known: dict[Key, _Known] = field(default_factory=dict)

    async def advance(self, cluster: Cluster, children: Mapping[ChildKey, Child]) -> Answer | None:
        """Do for a cluster what is to be done now; return what its condition says.

        Args:
            cluster: as it is.
            children: its objects.

        Returns:
            The condition; None: the cluster does not want it.

        Raises:
            Stale: the cluster was changed meanwhile; look again.
            KubeError: it was not done; look again later.
        """
        scaling, workers = cluster.spec.workers.autoscaling, cluster.spec.workers
        if scaling is None:
            self.forget(cluster.key)
            return None
        heard = self.polls.load(cluster.key)
        known = self._known.get(cluster.key)
        if known is None or known.uid != cluster.uid:
            known = self._known[cluster.key] = _Known(cluster.uid)
        before = said(cluster.status, AUTOSCALED)
        bounded = scaling.min_replicas <= workers.replicas <= scaling.max_replicas
        if bounded and not _is_news(heard, known.heard):
            return before or Answer(AUTOSCALED, UNKNOWN, "NoReadings", "no worker was asked yet")
        reading = None
        if heard is not None:
            reading = read(
                heard.workers,
                at=heard.at,
                whole=heard.whole,
                max_inflight=cluster.spec.limits.max_inflight,
                last=known.past.reading,
            )
        found = decide(
            scaling,
            reading,
            known.past,
            replicas=workers.replicas,
            processes=workers.processes,
            settled=_settled(cluster, children),
            now=time.monotonic(),
            before="" if before is None else before.reason,
        )
        if found.replicas != workers.replicas and found.answer is not None:
            await self._scale(cluster, found.replicas, found.answer)
        known.past, known.heard = found.past, heard
        await self._tell_contest(cluster, found.answer, before)
        return found.answer or before

    def forget(self, key: Key) -> None:
        """Ask for a cluster's use no more."""
        self._known.pop(key, None)
        self.polls.forget_load(key)

    async def _scale(self, cluster: Cluster, replicas: int, why: Answer) -> None:
        made = await self.kube.scale(
            SHUFFLE_CLUSTER, *cluster.key, replicas, manager=MANAGER, version=cluster.version
        )
        log.info("workers are scaled", cluster=cluster.key, replicas=replicas, why=why.message)
        version = made["metadata"].get("resourceVersion", "")
        events = Events(self.kube)
        await events.tell(SHUFFLE_CLUSTER, cluster, why.reason, why.message, mark=version)

    async def _tell_contest(
        self, cluster: Cluster, now: Answer | None, before: Answer | None
    ) -> None:
        """Tell that the number is left to somebody else, once for each time that this begins."""
        if now is None or now.reason != CONTESTED or (before and before.reason == CONTESTED):
            return
        mark, events = cluster.version, Events(self.kube)
        await events.tell(SHUFFLE_CLUSTER, cluster, CONTESTED, now.message, mark=mark, warning=True)


def _is_news(heard: Heard | None, before: Heard | None) -> bool:
    """Whether it is time for another reading: workers may be asked more often for others' sake."""
    if heard is None or before is None:
        return heard is not None
    return heard.at - before.at >= LOAD_SECONDS - 1


def _settled(cluster: Cluster, children: Mapping[ChildKey, Child]) -> bool:
    """Whether all pods that are wanted are there, ready and of the newest spec."""
    found = children.get(ChildKey(STATEFUL_SET.name, names.workers(cluster)))
    wanted = cluster.spec.workers.replicas
    return (
        found is not None
        and found.settled
        and found.replicas == found.ready == found.updated == wanted
    )
