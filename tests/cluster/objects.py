"""What the tests make: an S3 server, a volume for results, a job, the chart's values."""

import os
from pathlib import Path
from typing import Any, Final

from kube_client import NAMESPACE

Object = dict[str, Any]
HERE: Final = Path(__file__).parent
CHART: Final = HERE.parents[1] / "charts" / "crossdock"
IMAGE: Final = "localhost/crossdock:e2e"
STORE_IMAGE: Final = "localhost/versitygw:e2e"
BUCKET: Final = "shuffles"
KEYS: Final = {"AWS_ACCESS_KEY_ID": "crossdock", "AWS_SECRET_ACCESS_KEY": "crossdock-secret"}
RESULTS: Final = "/data"
_POD: Final = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_DATA: Final = {"name": "data", "mountPath": RESULTS}
_VOLUME: Final = {"name": "data", "persistentVolumeClaim": {"claimName": "results"}}


def _named(api_version: str, kind: str, name: str, **fields: Any) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def s3_server() -> list[Object]:
    """Return an S3 server whose disk can be looked at, its name, and its keys."""
    start = f"mkdir -p /s3/{BUCKET} && exec versitygw --port :7070 --quiet posix /s3"
    keys = {"ROOT_ACCESS_KEY": "crossdock", "ROOT_SECRET_KEY": "crossdock-secret"}
    container = {
        "name": "s3",
        "image": STORE_IMAGE,
        "command": ["sh", "-c", start],
        "env": [{"name": name, "value": value} for name, value in keys.items()],
        "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
        "securityContext": _CONTAINER,
        "volumeMounts": [{"name": "s3", "mountPath": "/s3"}, _DATA],
    }
    spec = {
        "securityContext": _POD,
        "containers": [container],
        "volumes": [{"name": "s3", "emptyDir": {}}, _VOLUME],
        "terminationGracePeriodSeconds": 1,
    }
    ports = {"selector": {"app": "s3"}, "ports": [{"port": 7070}]}
    return [
        _named("v1", "Pod", "s3", spec=spec),
        _named("v1", "Service", "s3", spec=ports),
        _named("v1", "Secret", "s3-keys", stringData=KEYS),
    ]


def results() -> list[Object]:
    """Return a volume that all pods write to at once: on our own node, a directory of it."""
    size = {"storage": "1Gi"}
    modes = ["ReadWriteMany"]
    wanted = {"accessModes": modes, "resources": {"requests": size}}
    at = os.environ.get("CROSSDOCK_CLUSTER_VOLUMES")
    if at is None:
        return [_named("v1", "PersistentVolumeClaim", "results", spec=wanted)]
    volume = _named("v1", "PersistentVolume", f"{NAMESPACE}-results")
    del volume["metadata"]["namespace"]
    volume["spec"] = {
        "capacity": size,
        "accessModes": modes,
        "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": NAMESPACE, "name": "results"},
        "hostPath": {"path": f"{at}/results", "type": "Directory"},
    }
    claim = {**wanted, "storageClassName": ""}
    return [volume, _named("v1", "PersistentVolumeClaim", "results", spec=claim)]


def tasks() -> Object:
    """Return the tasks' program."""
    return _named("v1", "ConfigMap", "tasks", data={"tally.py": (HERE / "tally.py").read_text()})


def job(name: str) -> Object:
    """Return two stages: four maps draw words, two tasks count them."""
    container = {
        "name": "task",
        "image": IMAGE,
        "command": ["python", "/tasks/tally.py"],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": _CONTAINER,
        "volumeMounts": [{"name": "tasks", "mountPath": "/tasks"}, _DATA],
    }
    template = {
        "spec": {
            "securityContext": _POD,
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": "tasks", "configMap": {"name": "tasks"}}, _VOLUME],
            "terminationGracePeriodSeconds": 1,
        }
    }
    stages = [
        {"name": "draw", "parallelism": 4, "output": {"shuffle": {"partitions": 8}}},
        {
            "name": "count",
            "inputs": [{"stage": "draw"}],
            "parallelism": 2,
            "output": {"files": f"{RESULTS}/{name}"},
        },
    ]
    spec = {"dataRoot": RESULTS, "stages": [{**each, "podTemplate": template} for each in stages]}
    return _named("crossdock.dev/v1alpha1", "ShuffleJob", name, spec=spec)


def values() -> Object:
    """Return the chart's values: two operators, and two workers that forget nothing on S3."""
    small = {"requests": {"cpu": "50m", "memory": "128Mi"}}
    store = {
        "url": f"s3://{BUCKET}/e2e",
        "endpoint": f"http://s3.{NAMESPACE}.svc:7070",
        "pathStyle": True,
        "region": "us-east-1",
        "credentialsSecretRef": {"name": "s3-keys"},
        "settleSeconds": 2,
        "lifecycleCheck": "Ignore",
    }
    return {
        "image": {"registry": "localhost", "repository": "crossdock", "tag": "e2e"},
        "operator": {"resources": small},
        "defaultCluster": {
            "enabled": True,
            "spec": {"workers": {"replicas": 2, "resources": small}, "store": store},
        },
        "uninstall": {"timeoutSeconds": 120},
    }
