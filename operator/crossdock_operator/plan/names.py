"""Names and labels of what a cluster is made of."""

from typing import Final

from crossdock_operator.api.common import API_VERSION, GROUP
from crossdock_operator.kinds import SHUFFLE_CLUSTER, Object
from crossdock_operator.records import Cluster

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "crossdock-operator"
CLUSTER_LABEL: Final = f"{GROUP}/cluster"
JOB_LABEL: Final = f"{GROUP}/job"
"""Of what belongs to a ShuffleJob of the same namespace."""
PORT: Final = 7070
KEY_FILE: Final = "keys"
"""Of the Secret with the signing keys, as `crossdock worker --key-file` reads it."""


def workers(cluster: Cluster) -> str:
    """Return the name of the workers' StatefulSet and of what belongs to it."""
    return f"{cluster.key.name}-worker"


def signing_key(cluster: Cluster) -> str:
    """Return the name of the Secret with the signing keys."""
    return f"{cluster.key.name}-key"


def endpoint(cluster: Cluster) -> str:
    """Return the URL at which jobs reach any worker."""
    return f"{scheme(cluster)}://{cluster.key.name}.{cluster.key.namespace}.svc:{PORT}"


def scheme(cluster: Cluster) -> str:
    """Return http or https."""
    return "https" if cluster.spec.security.tls.secret_ref else "http"


def pod_labels(cluster: Cluster) -> dict[str, str]:
    """Return the labels by which worker pods are selected."""
    return {
        "app.kubernetes.io/name": "crossdock-worker",
        "app.kubernetes.io/instance": cluster.key.name,
    }


def metadata(cluster: Cluster, name: str) -> Object:
    """Return the metadata of an object that belongs to a cluster, and goes with it."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": SHUFFLE_CLUSTER.name,
        "name": cluster.key.name,
        "uid": cluster.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    labels = {**pod_labels(cluster), MANAGED_BY: MANAGER, CLUSTER_LABEL: cluster.key.name}
    return {
        "name": name,
        "namespace": cluster.key.namespace,
        "labels": labels,
        "ownerReferences": [owner],
    }
