"""What a ShuffleCluster needs: its objects, and which of them are to be applied now."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from crossdock_operator.api.cluster import AllowedNamespaces, NamespacesFrom, TlsMode
from crossdock_operator.api.schema import quantity
from crossdock_operator.kinds import (
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
    Kind,
    Object,
)
from crossdock_operator.plan import names
from crossdock_operator.plan.workers import pod_template
from crossdock_operator.records import Child, ChildKey, Cluster, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the operator's own settings give to every cluster."""

    worker_image: str
    namespace: str
    """Where the operator runs."""
    pull_secrets: tuple[str, ...] = ()
    """Names of Secrets for the registry of worker images, in each cluster's namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """An object as it was after we had applied it."""

    digest: str
    """Of what we wanted."""
    mark: str
    """Of what it was then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What is known of a cluster."""

    cluster: Cluster
    children: Mapping[ChildKey, Child] = field(default_factory=dict)
    """Its own."""
    others: Mapping[ChildKey, Child] = field(default_factory=dict)
    """What has a name that it needs, and is of another cluster: of the one before, mostly."""
    applied: Mapping[ChildKey, Applied] = field(default_factory=dict)
    """Of this operator process; one that starts applies everything once."""
    now: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Make an object be as `body` says."""

    kind: Kind
    body: Object
    digest: str

    @property
    def key(self) -> ChildKey:
        return ChildKey(self.kind.name, self.body["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class RenewKeys:
    """Make the Secret with the signing keys, or have them rotated."""

    name: str


@dataclass(frozen=True, slots=True)
class RenewCertificate:
    """Make the workers' certificate by the cluster's own authority, or make it anew."""

    name: str


Action: TypeAlias = Apply | RenewKeys | RenewCertificate


def plan(observed: Observed, given: Given) -> list[Action]:
    """Return what is to be done now. Where all is as it should be, nothing."""
    cluster = observed.cluster
    if cluster.deleting or cluster.paused:
        return []
    actions: list[Action] = []
    if _is_due(observed, names.signing_key(cluster)):
        actions.append(RenewKeys(names.signing_key(cluster)))
    if cluster.spec.security.tls.mode is TlsMode.OWN and (
        _is_due(observed, names.certificate(cluster))
    ):
        actions.append(RenewCertificate(names.certificate(cluster)))
    for kind, body in objects(cluster, given):
        action = Apply(kind, body, digest(body))
        child, applied = observed.children.get(action.key), observed.applied.get(action.key)
        # Over what is another's nothing is applied: it would be ours, and the garbage collector
        # leave it. Nor are workers begun beside it: it may be their keys, or their peers' names.
        if action.key in observed.others or (
            kind is STATEFUL_SET and child is None and observed.others
        ):
            continue
        if child is None or applied != Applied(digest=action.digest, mark=child.mark):
            actions.append(action)
    return actions


def _is_due(observed: Observed, name: str) -> bool:
    """Whether a Secret is to be made, or looked at again."""
    if any(key.kind == SECRET.name for key in observed.others):
        return False
    child = observed.children.get(ChildKey(SECRET.name, name))
    return child is None or 0 < child.renew_at <= observed.now


def unknown(observed: Observed, given: Given) -> list[tuple[Kind, str]]:
    """Return what is to be made by all that was seen: kinds and names."""
    wanted = [
        (kind, str(body["metadata"]["name"])) for kind, body in objects(observed.cluster, given)
    ]
    known = {*observed.children, *observed.others}
    return [(kind, name) for kind, name in wanted if ChildKey(kind.name, name) not in known]


def waits_for(observed: Observed) -> str:
    """Return what of an earlier cluster of the name has to go first; empty: nothing."""
    for key, child in sorted(observed.others.items()):
        if child.owner.name == observed.cluster.key.name:
            return f"the {key.kind} {key.name} of an earlier ShuffleCluster of this name is to go"
    return ""


def taken(observed: Observed) -> str:
    """Return which name of an object another cluster has, and what helps; empty: none."""
    for key, child in sorted(observed.others.items()):
        if child.owner.name != observed.cluster.key.name:
            return (
                f"the {key.kind} {key.name} is of the ShuffleCluster {child.owner.name}: "
                "delete one of the two clusters, and give it another name"
            )
    return ""


def next_renewal(observed: Observed) -> float | None:
    """Return when the next Secret is to be looked at again, seconds since 1970."""
    cluster = observed.cluster
    used = [names.signing_key(cluster)]  # of the token for metrics see `monitors`
    if cluster.spec.security.tls.mode is TlsMode.OWN:
        used.append(names.certificate(cluster))
    known = (observed.children.get(ChildKey(SECRET.name, name)) for name in used)
    return min((child.renew_at for child in known if child and child.renew_at), default=None)


def objects(cluster: Cluster, given: Given) -> list[tuple[Kind, Object]]:
    """Return all objects of a cluster but for its Secrets, in the order to make them."""
    name = names.workers(cluster)
    found: list[tuple[Kind, Object]] = []
    if cluster.spec.store.service_account_name is None:
        account = {"metadata": names.metadata(cluster, name), "automountServiceAccountToken": False}
        found.append((SERVICE_ACCOUNT, account))
    return [
        *found,
        (NETWORK_POLICY, _network_policy(cluster, given)),
        (SERVICE, _service(cluster, name, headless=True)),
        (SERVICE, _service(cluster, cluster.key.name, headless=False)),
        (POD_DISRUPTION_BUDGET, _budget(cluster)),
        (STATEFUL_SET, _stateful_set(cluster, given)),
    ]


def replicas(cluster: Cluster) -> int:
    """Return how many worker pods there shall be."""
    workers = cluster.spec.workers
    if workers.autoscaling is None:
        return workers.replicas
    least, most = workers.autoscaling.min_replicas, workers.autoscaling.max_replicas
    return min(max(workers.replicas, least), most)


def _stateful_set(cluster: Cluster, given: Given) -> Object:
    spec: Object = {
        "replicas": replicas(cluster),
        "serviceName": names.workers(cluster),
        "selector": {"matchLabels": names.pod_labels(cluster)},  # it can never be changed
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "revisionHistoryLimit": 3,
        "template": pod_template(cluster, given.worker_image, given.pull_secrets),
    }
    claim = cluster.spec.workers.storage.volume_claim
    if claim is not None:
        storage_class = {"storageClassName": claim.storage_class_name}
        spec["volumeClaimTemplates"] = [
            {
                "metadata": {"name": "data", "labels": names.pod_labels(cluster)},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": quantity(claim.size)}},
                    **(storage_class if claim.storage_class_name else {}),
                },
            }
        ]
        # A pod that could not drain before it was scaled away finds its data when it comes back.
        spec["persistentVolumeClaimRetentionPolicy"] = {
            "whenDeleted": "Delete",
            "whenScaled": "Retain",
        }
    return {"metadata": names.metadata(cluster, names.workers(cluster)), "spec": spec}


def _service(cluster: Cluster, name: str, *, headless: bool) -> Object:
    ports = [
        {
            "name": port,
            "port": names.PORT + n,
            "targetPort": names.PORT + n,
            "protocol": "TCP",
        }
        for n, port in enumerate(names.ports(cluster.spec.workers.processes if headless else 1))
    ]
    # A pod of an earlier cluster drains for up to an hour, and is no peer of this one's.
    spec: Object = {"selector": names.own_labels(cluster), "ports": ports, "type": "ClusterIP"}
    if headless:
        # A worker that takes no frames, since its disk is full, is still read from.
        spec |= {"clusterIP": "None", "publishNotReadyAddresses": True}
    metadata = names.metadata(cluster, name)
    metadata["labels"] |= {names.HEADLESS: "true"} if headless else {}
    return {"metadata": metadata, "spec": spec}


def _budget(cluster: Cluster) -> Object:
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": names.own_labels(cluster)},
        # A pod that is not ready may still be the only one with some frames.
        "unhealthyPodEvictionPolicy": "IfHealthyBudget",
    }
    return {"metadata": names.metadata(cluster, names.workers(cluster)), "spec": spec}


def _network_policy(cluster: Cluster, given: Given) -> Object:
    ports = [
        {"port": names.PORT + n, "protocol": "TCP"} for n in range(cluster.spec.workers.processes)
    ]
    operator = {"matchLabels": {"kubernetes.io/metadata.name": given.namespace}}
    scrapers = cluster.spec.monitoring.scraper_namespaces
    peers = [
        {"podSelector": {}},  # of the cluster's own namespace: its workers, and jobs there
        {"namespaceSelector": operator},
        *_namespaces(cluster.spec.allowed_namespaces),
        *([{"namespaceSelector": {"matchLabels": dict(scrapers)}}] if scrapers else []),
    ]
    spec = {
        # Pods of an earlier cluster too: what no policy selects is open to all.
        "podSelector": {"matchLabels": names.pod_labels(cluster)},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": peers, "ports": ports}],
    }
    return {"metadata": names.metadata(cluster, names.workers(cluster)), "spec": spec}


def _namespaces(allowed: AllowedNamespaces) -> list[Object]:
    if allowed.mode is NamespacesFrom.ALL:
        return [{"namespaceSelector": {}}]
    if allowed.mode is NamespacesFrom.SELECTOR:
        return [{"namespaceSelector": {"matchLabels": dict(allowed.selector or {})}}]
    return []
