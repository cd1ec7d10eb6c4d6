"""The worker pods of a cluster: their template, and the command that they run."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from crossdock_operator.api.cluster import Limits, Persisting, Store
from crossdock_operator.api.schema import quantity
from crossdock_operator.kinds import Object
from crossdock_operator.plan import names
from crossdock_operator.records import Cluster

CONTAINER: Final = "worker"
DRAIN_SECONDS: Final = 3600
"""How long a worker that is asked to go may take to hand over what it holds alone."""
_ENDING_SECONDS: Final = 60
"""Of a worker after that: requests under way, and what is cut off."""
_USER: Final = 65532
_DATA: Final = "/var/lib/crossdock"
_KEYS: Final = "/etc/crossdock/keys"
_TLS: Final = "/etc/crossdock/tls"
_CREDENTIALS: Final = "/etc/crossdock/store"
_MILLICORES: Final = 250
_MEMORY_MIB: Final = 256
"""What a process requests where nothing is said of it, so that no worker is BestEffort, which is
evicted first. Memory: docs/benchmarks.md, `worker_rss_mib`, and limits.maxRead above that."""


def pod_template(cluster: Cluster, default_image: str, pull_secrets: Sequence[str] = ()) -> Object:
    """Return the workers' PodTemplateSpec with the cluster's own merged over it."""
    spec = cluster.spec
    secrets = [{"name": name} for name in pull_secrets]
    ours = {
        "metadata": {"labels": names.own_labels(cluster)},
        "spec": {
            "serviceAccountName": spec.store.service_account_name or names.workers(cluster),
            "automountServiceAccountToken": spec.store.service_account_name is not None,
            "terminationGracePeriodSeconds": DRAIN_SECONDS + _ENDING_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": key,
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": names.pod_labels(cluster)},
                }
                for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
            ],
            **({"imagePullSecrets": secrets} if secrets else {}),
            "containers": [_container(cluster, default_image)],
            "volumes": _volumes(cluster),
        },
    }
    merged: Object = merge(ours, spec.workers.pod_template)
    merged["metadata"]["labels"] |= names.own_labels(cluster)  # else nothing would select them
    return merged


def command(cluster: Cluster) -> list[str]:
    """Return how a worker is started. `$(POD_NAME)` is replaced by Kubernetes."""
    spec = cluster.spec
    domain = f"{names.workers(cluster)}.{cluster.key.namespace}.svc:{names.PORT}"
    scheme = names.scheme(cluster)
    options: dict[str, object] = {
        "data-dir": _DATA,
        "listen": f"0.0.0.0:{names.PORT}",
        "advertise": f"{scheme}://$(POD_NAME).{domain}",
        "peers": f"dns+{scheme}://{domain}",
        "key-file": f"{_KEYS}/{names.KEY_FILE}",
        "cluster": cluster.uid,
        "processes": spec.workers.processes,
        "drain-grace-seconds": DRAIN_SECONDS,
        **_store(spec.store),
        **_persisting(spec.persistence),
        **_limits(spec.limits),
    }
    if names.certificate(cluster):
        options |= {
            "tls-cert": f"{_TLS}/tls.crt",
            "tls-key": f"{_TLS}/tls.key",
            "tls-ca": f"{_TLS}/ca.crt",
        }
    given = [f"--{name}={value}" for name, value in options.items()]
    return ["crossdock", "worker", *given, *_store_options(spec.store)]


def _container(cluster: Cluster, default_image: str) -> Object:
    spec = cluster.spec
    ports = [
        {"name": name, "containerPort": names.PORT + n}
        for n, name in enumerate(names.ports(spec.workers.processes))
    ]
    name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    mounts = [
        {"name": "data", "mountPath": _DATA},
        {"name": "keys", "mountPath": _KEYS, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 -- the pod's own
    ]
    if names.certificate(cluster):
        mounts.append({"name": "tls", "mountPath": _TLS, "readOnly": True})
    if spec.store.credentials_secret_ref:
        mounts.append({"name": "store", "mountPath": _CREDENTIALS, "readOnly": True})
    return {
        "name": CONTAINER,
        "image": spec.workers.image or default_image,
        "command": command(cluster),
        "env": [name],
        "ports": [{**port, "protocol": "TCP"} for port in ports],
        "resources": dict(spec.workers.resources) or _resources(spec.workers.processes),
        "volumeMounts": mounts,
        "startupProbe": _probe(cluster, "/healthz", period=2, failures=150),
        "livenessProbe": _probe(cluster, "/healthz", period=10, failures=6),
        "readinessProbe": _probe(cluster, "/readyz", period=5, failures=2),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _resources(processes: int) -> Object:
    cpu, memory = processes * _MILLICORES, processes * _MEMORY_MIB
    return {"requests": {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}}


def _probe(cluster: Cluster, path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": names.PORT, "scheme": names.scheme(cluster).upper()},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _volumes(cluster: Cluster) -> list[Object]:
    storage = cluster.spec.workers.storage
    found: list[Object] = [
        {"name": "keys", "secret": {"secretName": names.signing_key(cluster)}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if storage.volume_claim is None:
        limit = storage.empty_dir.size_limit if storage.empty_dir else None
        size = {"sizeLimit": quantity(limit)} if limit else {}
        found.append({"name": "data", "emptyDir": size})
    if certificate := names.certificate(cluster):
        found.append({"name": "tls", "secret": {"secretName": certificate}})
    if credentials := cluster.spec.store.credentials_secret_ref:
        found.append({"name": "store", "secret": {"secretName": credentials.name}})
    return found


def _store(store: Store) -> dict[str, object]:
    prices = {"store-prices": store.prices} if store.prices else {}
    files = {"store-credentials": _CREDENTIALS} if store.credentials_secret_ref else {}
    return {"store": store.url, "store-settle-seconds": store.settle_seconds, **prices, **files}


def _store_options(store: Store) -> list[str]:
    named: dict[str, object] = {
        "endpoint_url": store.endpoint,
        "region": store.region,
        "path_style": "true" if store.path_style else "",
    }
    return [f"--store-option={name}={value}" for name, value in named.items() if value]


def _persisting(persisting: Persisting) -> dict[str, object]:
    return {
        "persist-after-seconds": persisting.after_seconds,
        "disk-persist": persisting.disk_percent / 100,
        "segment-bytes": persisting.segment_size,
        "store-uploads": persisting.uploads,
        "store-compression": persisting.compression,
    }


def _limits(limits: Limits) -> dict[str, object]:
    return {
        "max-frame-bytes": limits.max_frame,
        "max-inflight-bytes": limits.max_inflight,
        "max-read-bytes": limits.max_read,
        "max-connections": limits.max_connections,
        "max-partitions": limits.max_partitions,
        "job-quota-bytes": limits.job_quota or 0,
    }


def merge(ours: Any, theirs: Any) -> Any:
    """Return `ours` with what `theirs` says: mappings by key, lists of named things by name."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        both = {k: merge(ours[k], theirs[k]) for k in ours if k in theirs}
        return {**ours, **theirs, **both}
    if _named(ours) and _named(theirs):
        by_name = {item["name"]: item for item in theirs}
        known = {item["name"] for item in ours}
        merged = [merge(i, by_name[i["name"]]) if i["name"] in by_name else i for i in ours]
        return merged + [item for item in theirs if item["name"] not in known]
    return theirs


def _named(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(i, Mapping) and "name" in i for i in value)
