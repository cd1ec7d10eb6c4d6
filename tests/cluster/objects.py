"""What the tests make: an S3 server, volumes, a job, the chart's values."""

import os
from pathlib import Path
from typing import Any, Final

from kube_client import NAMESPACE

Object = dict[str, Any]
HERE: Final = Path(__file__).parent
CHART: Final = HERE.parents[1] / "charts" / "crossdock"
IMAGES: Final = os.environ.get("CROSSDOCK_CLUSTER_IMAGES", "localhost")
"""Where another cluster finds crossdock, examples and versitygw, and under which tag."""
TAG: Final = os.environ.get("CROSSDOCK_CLUSTER_TAG", "e2e")
IMAGE: Final = f"{IMAGES}/crossdock:{TAG}"
NEXT_IMAGE: Final = f"{IMAGE}-next"
"""The same again: what workers are upgraded to."""
STORE_IMAGE: Final = f"{IMAGES}/versitygw:{TAG}"
BUCKET: Final = "shuffles"
KEYS: Final = {"AWS_ACCESS_KEY_ID": "crossdock", "AWS_SECRET_ACCESS_KEY": "crossdock-secret"}
RESULTS: Final = "/data"
_GIVEN: Final = os.environ.get("CROSSDOCK_CLUSTER_VOLUMES")
VOLUMES: Final = None if _GIVEN is None else Path(_GIVEN)
"""Where static volumes are: on our own node, which provisions none."""
LOCAL: Final = f"{NAMESPACE}-local"
LOCAL_VOLUMES: Final = 3
STAGE: Final = "crossdock.dev/stage"
RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
_SMALL: Final = {"requests": {"cpu": "50m", "memory": "128Mi"}}
_SIZE: Final = {"storage": "1Gi"}
POD: Final = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
DATA: Final = {"name": "data", "mountPath": RESULTS}
VOLUME: Final = {"name": "data", "persistentVolumeClaim": {"claimName": "results"}}


def named(
    api_version: str, kind: str, name: str, *, namespace: str = NAMESPACE, **fields: Any
) -> Object:
    """Return an object."""
    metadata: Object = {"name": name, "labels": {"app": name}}
    if kind not in ("PersistentVolume", "StorageClass"):
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def s3_server() -> list[Object]:
    """Return an S3 server whose disk can be looked at and outlives it, its name, and its keys."""
    start = f"mkdir -p /s3/{BUCKET} && exec versitygw --port :7070 --quiet posix /s3"
    keys = {"ROOT_ACCESS_KEY": "AWS_ACCESS_KEY_ID", "ROOT_SECRET_KEY": "AWS_SECRET_ACCESS_KEY"}
    container = {
        "name": "s3",
        "image": STORE_IMAGE,
        "command": ["sh", "-c", start],
        "env": [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": "s3-keys", "key": key}}}
            for name, key in keys.items()
        ],
        "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
        "securityContext": CONTAINER,
        "volumeMounts": [{"name": "s3", "mountPath": "/s3"}, DATA],
    }
    spec = {
        "securityContext": POD,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [VOLUME],
        "terminationGracePeriodSeconds": 1,
    }
    claim = {
        "metadata": {"name": "s3"},
        "spec": {**local_claim(), "accessModes": ["ReadWriteOnce"]},
    }
    servers = {
        "serviceName": "s3",
        "selector": {"matchLabels": {"app": "s3"}},
        "template": {"metadata": {"labels": {"app": "s3"}}, "spec": spec},
        "volumeClaimTemplates": [claim],
    }
    ports = {"selector": {"app": "s3"}, "ports": [{"port": 7070}]}
    return [
        named("apps/v1", "StatefulSet", "s3", spec=servers),
        named("v1", "Service", "s3", spec=ports),
        named("v1", "Secret", "s3-keys", stringData=KEYS),
    ]


def results() -> list[Object]:
    """Return a claim of a volume that all pods write to at once."""
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": _SIZE}}
    if VOLUMES is not None:
        claim |= {"storageClassName": "", "volumeName": f"{NAMESPACE}-results"}
    return [named("v1", "PersistentVolumeClaim", "results", spec=claim)]


def local_claim() -> Object:
    """Return what of a claim asks for a volume of the node on which its pod is."""
    wanted: Object = {"resources": {"requests": _SIZE}}
    return wanted if VOLUMES is None else {**wanted, "storageClassName": LOCAL}


def static_volumes() -> list[Object]:
    """Return volumes of our own node: directories of it, since nothing there provisions any."""
    if VOLUMES is None:
        return []
    (VOLUMES / "results").mkdir(exist_ok=True)
    (VOLUMES / "results").chmod(0o777)
    shared = {
        "capacity": _SIZE,
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": f"{VOLUMES}/results", "type": "Directory"},
    }
    local_class = named("storage.k8s.io/v1", "StorageClass", LOCAL)
    local_class["provisioner"] = "kubernetes.io/no-provisioner"
    local_class["volumeBindingMode"] = "WaitForFirstConsumer"
    found = [local_class, named("v1", "PersistentVolume", f"{NAMESPACE}-results", spec=shared)]
    return found + [_local_volume(n) for n in range(LOCAL_VOLUMES)]


def _local_volume(number: int) -> Object:
    assert VOLUMES is not None
    path = VOLUMES / f"local-{number}"
    path.mkdir(exist_ok=True)
    path.chmod(0o777)
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}
    spec = {
        "capacity": _SIZE,
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": LOCAL,
        "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": str(path)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    }
    return named("v1", "PersistentVolume", f"{NAMESPACE}-local-{number}", spec=spec)


def tasks(namespace: str = NAMESPACE) -> Object:
    """Return the tasks' program."""
    program = (HERE / "tally.py").read_text()
    return named("v1", "ConfigMap", "tasks", namespace=namespace, data={"tally.py": program})


def pod_template(container: Object, *, volumes: tuple[Object, ...] = (VOLUME,)) -> Object:
    """Return a stage's template: one container as restricted pod security wants it."""
    given = {
        "name": "task",
        "image": IMAGE,
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": CONTAINER,
        **container,
    }
    spec = {
        "securityContext": POD,
        "automountServiceAccountToken": False,
        "containers": [given],
        "volumes": list(volumes),
        "terminationGracePeriodSeconds": 1,
    }
    return {"spec": spec}


def job(name: str, **spec: Any) -> Object:
    """Return two stages: four maps draw words, two tasks count them. Each waits for its gate."""
    template = pod_template(
        {
            "command": ["python", "/tasks/tally.py", name],
            "volumeMounts": [{"name": "tasks", "mountPath": "/tasks"}, DATA],
        },
        volumes=({"name": "tasks", "configMap": {"name": "tasks"}}, VOLUME),
    )
    stages = [
        {"name": "draw", "parallelism": 4, "output": {"shuffle": {"partitions": 8}}},
        {
            "name": "count",
            "inputs": [{"stage": "draw"}],
            "parallelism": 2,
            "output": {"files": f"{RESULTS}/{name}"},
        },
    ]
    whole = {"dataRoot": RESULTS, "stages": [{**each, "podTemplate": template} for each in stages]}
    return named("crossdock.dev/v1alpha1", "ShuffleJob", name, spec=whole | spec)


def guest_job(namespace: str) -> Object:
    """Return a job of another namespace: a stage writes something, and the next one stays."""
    write = "writer.write(0, bytes(1 << 20), rows=1)"
    programs = {
        "write": f"with crossdock.task().output.writer() as writer: {write}",
        "stay": "import time; time.sleep(3600)",
    }
    stages = [
        {
            "name": name,
            "parallelism": 2,
            "inputs": [{"stage": "write"}] if name == "stay" else [],
            "podTemplate": pod_template(
                {"command": ["python", "-c", f"import crossdock\n{program}"]}, volumes=()
            ),
            "output": {"shuffle": {"partitions": 1}},
        }
        for name, program in programs.items()
    ]
    spec = {
        "clusterRef": {"name": "default", "namespace": NAMESPACE},
        "persistence": "Eager",
        "stages": stages,
    }
    return named("crossdock.dev/v1alpha1", "ShuffleJob", "guest", namespace=namespace, spec=spec)


def store() -> Object:
    """Return the `store` of a ShuffleCluster."""
    return {
        "url": f"s3://{BUCKET}/e2e",
        "endpoint": f"http://s3.{NAMESPACE}.svc:7070",
        "pathStyle": True,
        "region": "us-east-1",
        "credentialsSecretRef": {"name": "s3-keys"},
        "settleSeconds": 2,
        "lifecycleCheck": "Ignore",
    }


def workers(**given: Any) -> Object:
    """Return the `workers` of a small ShuffleCluster."""
    return {"replicas": 2, "resources": _SMALL, **given}


def values() -> Object:
    """Return the chart's values: two operators, and two workers that forget nothing on S3."""
    return {
        "image": {"registry": IMAGES, "repository": "crossdock", "tag": TAG},
        "operator": {"resources": _SMALL},
        "defaultCluster": {"enabled": True, "spec": {"workers": workers(), "store": store()}},
        "uninstall": {"timeoutSeconds": 120},
    }
