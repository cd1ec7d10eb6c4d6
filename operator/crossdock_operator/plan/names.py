"""Names and labels of what a cluster is made of."""

from typing import Final

from crossdock_operator.api.cluster import TlsMode
from crossdock_operator.api.common import API_VERSION, GROUP
from crossdock_operator.kinds import SHUFFLE_CLUSTER, Object
from crossdock_operator.records import Cluster

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "crossdock-operator"
PART_OF: Final = "app.kubernetes.io/part-of"
PART: Final = "crossdock"
"""What all of the chart's objects, and bindings of `roles/`, are part of."""
CLUSTER_LABEL: Final = f"{GROUP}/cluster"
JOB_LABEL: Final = f"{GROUP}/job"
"""Of what belongs to a ShuffleJob of the same namespace."""
FINALIZER: Final = f"{GROUP}/storage"
"""Holds a ShuffleJob or ShuffleCluster until nothing of it is left in the store."""
CLUSTER_UID: Final = f"{GROUP}/cluster-uid"
"""On a pod or a copy: whose it is. An earlier version noted it on jobs, too."""
_HELD: Final = f"{GROUP}/held-"
COPY_OF: Final = f"{GROUP}/copy-of"
USED: Final = f"{GROUP}/used"
"""On a ShuffleCluster that ever had a job: something of it may be in the store."""
KEY_ROLES: Final = f"{GROUP}/key-roles"
"""On the Secret with the signing keys: what each line is for, and since when."""
ABANDON: Final = f"{GROUP}/abandon-storage"
"""The way out where a store never comes back. Only this value counts:"""
ABANDON_VALUE: Final = "objects-may-stay"
AUDIT_ASKED_AT: Final = f"{GROUP}/audit-asked-at"
"""On a ShuffleCluster: when somebody asked for an audit, RFC 3339. One that ends later answers."""
HEADLESS: Final = f"{GROUP}/headless"
"""Label of the Service that has every worker: the other one has the same labels but for this."""
PORT: Final = 7070
KEY_FILE: Final = "keys"
"""Of the Secret with the signing keys, as `crossdock worker --key-file` reads it."""


def workers(cluster: Cluster) -> str:
    """Return the name of the workers' StatefulSet and of what belongs to it."""
    return f"{cluster.key.name}-worker"


def signing_key(cluster: Cluster) -> str:
    """Return the name of the Secret with the signing keys."""
    return f"{cluster.key.name}-key"


def access_copy(uid: str) -> str:
    """Return the name of the Secret with what deletion needs of a cluster, by its uid."""
    return f"crossdock-access-{uid}"


def authority(cluster: Cluster) -> str:
    """Return the name of the Secret with the cluster's own authorities; no pod has it."""
    return f"{cluster.key.name}-ca"


def certificate(cluster: Cluster) -> str:
    """Return the name of the Secret with the workers' certificate; "" without TLS."""
    tls = cluster.spec.security.tls
    if tls.mode is TlsMode.OWN:
        return f"{cluster.key.name}-tls"
    return tls.secret_ref.name if tls.secret_ref else ""


def metrics_token(cluster: Cluster) -> str:
    """Return the name of the Secret with a token that opens metrics alone."""
    return f"{cluster.key.name}-metrics"


def endpoint(cluster: Cluster) -> str:
    """Return the URL at which jobs reach any worker."""
    return f"{scheme(cluster)}://{cluster.key.name}.{cluster.key.namespace}.svc:{PORT}"


def scheme(cluster: Cluster) -> str:
    """Return http or https."""
    return "https" if certificate(cluster) else "http"


def ports(processes: int) -> list[str]:
    """Return the names of a worker pod's ports, from `PORT` up."""
    return [f"worker-{n}" if n else "worker" for n in range(processes)]


def pod_labels(cluster: Cluster) -> dict[str, str]:
    """Return the labels of worker pods, also of those of an earlier cluster of the name."""
    return {
        "app.kubernetes.io/name": "crossdock-worker",
        "app.kubernetes.io/instance": cluster.key.name,
    }


def held_note(job: str) -> str:
    """Return the annotation of a ShuffleJob that names the ShuffleCluster that has its data.

    That may be gone before the job, or be another one of the same name. The job's uid is in it, so
    that a manifest of another job, exported and applied again, says nothing of this one, however
    often it is applied.
    """
    return f"{_HELD}{job}"


def is_held_note(annotation: str) -> bool:
    """Whether an annotation is one of `held_note`, of whichever job."""
    return annotation.startswith(_HELD)


def own_labels(cluster: Cluster) -> dict[str, str]:
    """Return the labels of the worker pods of this very cluster."""
    return {**pod_labels(cluster), CLUSTER_UID: cluster.uid}


def pod_selector(cluster: Cluster) -> str:
    """Return the label selector of the cluster's worker pods."""
    return ",".join(f"{name}={value}" for name, value in own_labels(cluster).items())


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
