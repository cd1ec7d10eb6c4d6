"""ServiceMonitors of clusters' workers, and the Secrets with the tokens that they name."""

import base64
from typing import Final

from crossdock_operator.kinds import SERVICE_MONITOR, Object
from crossdock_operator.plan import keys, names
from crossdock_operator.plan.conditions import NO, YES, Answer
from crossdock_operator.records import MADE_OF, RENEW_AT, Cluster

MONITORED: Final = "Monitored"
TOKEN_SECONDS: Final = 5 * 86_400.0
"""So long metrics are read while no operator runs."""
RENEW_SECONDS: Final = 86_400.0
"""A token is made anew at this age: Prometheus takes minutes to read it again."""
_TOKEN: Final = "token"  # noqa: S105 -- its field

assert TOKEN_SECONDS < keys.RETIRED_SECONDS, "no token may outlive the key that signed it"


def service_monitor(cluster: Cluster) -> Object | None:
    """Return the ServiceMonitor of a cluster's workers; None: it wants none."""
    wanted = cluster.spec.monitoring.service_monitor
    if wanted is None:
        return None
    metadata = names.metadata(cluster, names.workers(cluster))
    metadata["labels"] = {**wanted.labels, **metadata["labels"]}
    endpoint: Object = {
        "path": "/metrics",
        "scheme": names.scheme(cluster),
        "interval": f"{wanted.interval_seconds}s",
        "authorization": {
            "type": "Bearer",
            "credentials": {"name": names.metrics_token(cluster), "key": _TOKEN},
        },
    }
    if certificate := names.certificate(cluster):
        # Pods are asked by their addresses, and the certificate is good for names.
        server = f"{names.workers(cluster)}.{cluster.key.namespace}.svc"
        authority = {"secret": {"name": certificate, "key": "ca.crt"}}
        endpoint["tlsConfig"] = {"ca": authority, "serverName": server}
    return {
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": {**names.pod_labels(cluster), names.HEADLESS: "true"}},
            "endpoints": [
                {"port": name, **endpoint} for name in names.ports(cluster.spec.workers.processes)
            ],
        },
    }


def token_secret(
    cluster: Cluster, token: str, *, monitor_uid: str, made_of: str, now: float
) -> Object:
    """Return the Secret with the token. It belongs to the ServiceMonitor, and goes with it."""
    name = names.metrics_token(cluster)
    owner = {
        "apiVersion": SERVICE_MONITOR.api_version,
        "kind": SERVICE_MONITOR.name,
        "name": names.workers(cluster),
        "uid": monitor_uid,
    }
    metadata = names.metadata(cluster, name) | {
        "ownerReferences": [owner],
        "annotations": {RENEW_AT: f"{now + RENEW_SECONDS:.0f}", MADE_OF: made_of},
    }
    data = {_TOKEN: base64.b64encode(token.encode()).decode()}
    return {"metadata": metadata, "type": "Opaque", "data": data}


def monitor_of(secret: Object) -> str | None:
    """Return the uid of the ServiceMonitor that a Secret belongs to; None: it is another's."""
    for owner in secret["metadata"].get("ownerReferences") or ():
        if owner["kind"] == SERVICE_MONITOR.name:
            return str(owner["uid"])
    return None


def applied(cluster: Cluster) -> Answer:
    """Return what is said of a ServiceMonitor that is there."""
    what = f"ServiceMonitor {names.workers(cluster)}, Secret {names.metrics_token(cluster)}"
    return Answer(MONITORED, YES, "Applied", what)


def unknown_kind() -> Answer:
    """Return what is said where the API server does not know the kind."""
    message = (
        f"the API server does not know {SERVICE_MONITOR.name}s of {SERVICE_MONITOR.api_version}: "
        "install the CRDs of the Prometheus operator, or take monitoring.serviceMonitor away"
    )
    return Answer(MONITORED, NO, "KindNotThere", message)
