"""observe → plan → act → status, of one ShuffleCluster at a time."""

import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    taken,
    unknown,
)
from crossdock_operator.plan.conditions import Answer
from crossdock_operator.plan.findings import NOTHING
from crossdock_operator.plan.status import cluster_status
from crossdock_operator.records import (
    Child,
    ChildKey,
    Cluster,
    Item,
    Key,
    child_of,
    mark_of,
    owner_of,
)
from crossdock_operator.scaling.workers import WorkerScaler
from crossdock_operator.secrets_of_clusters import ClusterSecrets
from crossdock_operator.storage.checks import Checks
from crossdock_operator.store import Store

MANAGER: Final = "crossdock-operator-cluster"
"""Field manager of what is applied for clusters."""
_OTHERS_SECONDS: Final = 10.0
"""What is another cluster's is looked at again after so long, if no watch tells that it went."""

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
        observed = await self._look(cluster)
        for action in plan(observed, self.given):
            try:
                await self._act(cluster, action)
            except Refused as error:  # said in the status; the others are tried all the same
                refusal = error
        answers = [await self._autoscale(cluster), await self.monitors.advance(cluster)]
        refused = refusal.message if refusal else taken(observed)
        more = [each for each in answers if each]
        await self._write_status(cluster, others=observed.others, refused=refused, more=more)
        due = next_renewal(self._observed(cluster))
        if due is not None and not cluster.paused:
            self.again(Item(SHUFFLE_CLUSTER.name, key), max(1.0, due - time.time()))
        if observed.others and not cluster.paused:
            self.again(Item(SHUFFLE_CLUSTER.name, cluster.key), _OTHERS_SECONDS)
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
        children = self.store.children(Item(SHUFFLE_CLUSTER.name, cluster.key), cluster.uid)
        return await self.scaler.advance(cluster, children)

    async def _look(self, cluster: Cluster) -> Observed:
        """Return what is known of a cluster, and whose that is that has a name it needs.

        Of what an earlier cluster has left no watch may have told yet; and what is of a cluster of
        another name is told to that one.
        """
        observed = self._observed(cluster)
        if cluster.paused:
            return observed
        others = dict(observed.others)
        for kind, name in unknown(observed, self.given):
            found = await self.kube.named(kind, cluster.key.namespace, name)
            if found is not None and owner_of(found).is_other(cluster.uid):
                self.store.saw_child(kind.name, found)
                others[ChildKey(kind.name, name)] = child_of(found)
        return replace(observed, others=others)

    def _observed(self, cluster: Cluster) -> Observed:
        item = Item(SHUFFLE_CLUSTER.name, cluster.key)
        return Observed(
            cluster=cluster,
            children=self.store.children(item, cluster.uid),
            others=self.store.others(item, cluster.uid),
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
        self,
        cluster: Cluster,
        *,
        others: Mapping[ChildKey, Child],
        refused: str,
        more: Sequence[Answer],
    ) -> None:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = NOTHING if cluster.paused else self.checks.look(cluster)
        observed = replace(self._observed(cluster), others=others)
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
