"""observe → plan → act → status, of one ShuffleCluster at a time."""

import base64
import datetime as dt
import secrets
from dataclasses import dataclass, field
from typing import Final

import structlog

from crossdock_operator.errors import Refused, Stale, Vanished
from crossdock_operator.kinds import SECRET, SHUFFLE_CLUSTER, Object
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.plan.cluster import Applied, Apply, Given, MakeKey, Observed, plan
from crossdock_operator.plan.status import cluster_status
from crossdock_operator.records import ChildKey, Cluster, Item, Key, mark_of
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
    _applied: dict[Key, dict[ChildKey, Applied]] = field(default_factory=dict)

    async def reconcile(self, key: Key) -> None:
        """Do for a cluster what is to be done now.

        Raises:
            KubeError: not all of it was done; look again later.
        """
        cluster = self.store.clusters.get(key)
        if cluster is None:
            self._applied.pop(key, None)
            return
        refusal: Refused | None = None
        for action in plan(self._observed(cluster), self.given):
            try:
                await self._act(cluster, action)
            except Refused as error:  # said in the status; the others are tried all the same
                refusal = error
        await self._write_status(cluster, refused=refusal.message if refusal else "")
        if refusal is not None:
            raise refusal

    def _observed(self, cluster: Cluster) -> Observed:
        return Observed(
            cluster=cluster,
            children=self.store.children(Item(SHUFFLE_CLUSTER.name, cluster.key)),
            applied=self._applied.get(cluster.key, {}),
        )

    async def _act(self, cluster: Cluster, action: Apply | MakeKey) -> None:
        if isinstance(action, MakeKey):
            await self._make_key(cluster, action)
            return
        body = await self.kube.apply(action.kind, action.body, manager=MANAGER)
        self.store.saw_child(action.kind.name, body)
        applied = Applied(digest=action.digest, mark=mark_of(body))
        self._applied.setdefault(cluster.key, {})[action.key] = applied
        log.info("applied", cluster=cluster.key, kind=action.kind.name, name=action.key.name)

    async def _make_key(self, cluster: Cluster, action: MakeKey) -> None:
        """Make the Secret, but never over one that is there: tokens of its key are in use."""
        keys = base64.b64encode(secrets.token_hex(32).encode() + b"\n").decode()
        body = {"metadata": names.metadata(cluster, action.name), "data": {names.KEY_FILE: keys}}
        try:
            made = await self.kube.create(SECRET, body)
        except Stale:
            found = await self.kube.get(SECRET, cluster.key.namespace, action.name)
            if found is None:
                raise
            if found["metadata"].get("labels", {}).get(names.CLUSTER_LABEL) != cluster.key.name:
                raise Refused(
                    f"the Secret {action.name} is there already, and is not of this cluster",
                    hint="delete it, or give the cluster another name",
                ) from None
            made = found
        self.store.saw_child(SECRET.name, made)

    async def _write_status(self, cluster: Cluster, *, refused: str) -> None:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status: Object = cluster_status(self._observed(cluster), refused=refused, now=now)
        if status == cluster.status:
            return
        namespace, name = cluster.key
        try:
            body = await self.kube.write_status(SHUFFLE_CLUSTER, namespace, name, status)
        except Vanished:
            return
        self.store.saw_cluster(body)
