"""observe → plan → act → status, of one ShuffleCluster at a time."""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from crossdock_operator.ending.clusters import ClusterEnds
from crossdock_operator.errors import Refused, Vanished
from crossdock_operator.jobs.losses import Losses
from crossdock_operator.jobs.usages import Usages
from crossdock_operator.kinds import SHUFFLE_CLUSTER, STATEFUL_SET, Object
from crossdock_operator.kube import Kube
from crossdock_operator.leavers import Leavers
from crossdock_operator.monitors import Monitors
from crossdock_operator.plan import names
from crossdock_operator.plan.cluster import (
    Action,
    Applied,
    Given,
    Observed,
    RenewCertificate,
    RenewKeys,
    next_renewal,
    plan,
)
from crossdock_operator.plan.conditions import Answer
from crossdock_operator.plan.findings import NOTHING
from crossdock_operator.plan.status import cluster_status
from crossdock_operator.records import ChildKey, Cluster, Item, Key, mark_of
from crossdock_operator.scaling.workers import WorkerScaler
from crossdock_operator.secrets_of_clusters import ClusterSecrets
from crossdock_operator.storage.checks import Checks
from crossdock_operator.store import Store

MANAGER: Final = "crossdock-operator-cluster"
"""Field manager of what is applied for clusters."""

log = structlog.get_logger()


@dataclass(slots=True)
class Reconciler:
    """Brings clusters to what their specs say."""

    kube: Kube
    store: Store
    given: Given
    ends: ClusterEnds
    checks: Checks
    secrets: ClusterSecrets
    usages: Usages
    losses: Losses
    scaler: WorkerScaler
    monitors: Monitors
    leavers: Leavers
    again: Callable[[Item, float], None]
    """Has an object looked at after so many seconds."""
    _applied: dict[Key, dict[ChildKey, Applied]] = field(default_factory=dict)

    async def reconcile(self, key: Key) -> None:
        """Do for a cluster what is to be done now.

        Raises:
            KubeError: not all of it was done; look again later.
        """
        cluster = self.store.clusters.get(key)
        if cluster is None:
            self._applied.pop(key, None)
            self._forget(key)
            return
        if cluster.deleting:
            self._forget(key)
            await self.ends.end(cluster)
            return
        if not cluster.paused:
            cluster = await self.ends.hold(cluster)
        refusal: Refused | None = None
        for action in plan(self._observed(cluster), self.given):
            try:
                await self._act(cluster, action)
            except Refused as error:  # said in the status; the others are tried all the same
                refusal = error
        more = [await self._autoscale(cluster), await self.monitors.advance(cluster)]
        refused = refusal.message if refusal else ""
        await self._write_status(cluster, refused=refused, more=[each for each in more if each])
        due = next_renewal(self._observed(cluster))
        if due is not None and not cluster.paused:
            self.again(Item(SHUFFLE_CLUSTER.name, key), max(1.0, due - time.time()))
        if refusal is not None:
            raise refusal

    def _forget(self, key: Key) -> None:
        self.checks.forget(Item(SHUFFLE_CLUSTER.name, key))
        self.scaler.forget(key)
        self.monitors.forget(key)

    async def _autoscale(self, cluster: Cluster) -> Answer | None:
        if cluster.paused:
            self.scaler.forget(cluster.key)
            return None
        children = self.store.children(Item(SHUFFLE_CLUSTER.name, cluster.key))
        return await self.scaler.advance(cluster, children)

    def _observed(self, cluster: Cluster) -> Observed:
        return Observed(
            cluster=cluster,
            children=self.store.children(Item(SHUFFLE_CLUSTER.name, cluster.key)),
            applied=self._applied.get(cluster.key, {}),
            now=time.time(),
        )

    async def _act(self, cluster: Cluster, action: Action) -> None:
        if isinstance(action, RenewKeys):
            await self.secrets.renew_keys(cluster)
            return
        if isinstance(action, RenewCertificate):
            await self.secrets.renew_certificate(cluster)
            return
        body = await self.kube.apply(action.kind, action.body, manager=MANAGER)
        self.store.saw_child(action.kind.name, body)
        applied = Applied(digest=action.digest, mark=mark_of(body))
        self._applied.setdefault(cluster.key, {})[action.key] = applied
        log.info("applied", cluster=cluster.key, kind=action.kind.name, name=action.key.name)

    async def _write_status(
        self, cluster: Cluster, *, refused: str, more: Sequence[Answer]
    ) -> None:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = NOTHING if cluster.paused else self.checks.look(cluster)
        observed = self._observed(cluster)
        workers = observed.children.get(ChildKey(STATEFUL_SET.name, names.workers(cluster)))
        self.losses.saw(cluster, 0 if workers is None else workers.ready)
        status: Object = cluster_status(
            observed,
            refused=refused,
            now=now,
            found=found,
            usage=self.usages.of_cluster(cluster),
            more=more,
            draining=await self.leavers.count(cluster, workers),
        )
        if status == cluster.status:
            return
        try:
            body = await self.kube.write_status(
                SHUFFLE_CLUSTER, *cluster.key, status, uid=cluster.uid
            )
        except Vanished:
            return
        self.store.saw_cluster(body)
