"""The objects of a ShuffleJob: Jobs of its stages, what they mount, and what keeps its state."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from crossdock.stagefile import ENV_ATTEMPT, ENV_JOB_INDEX, ENV_POD_UID, ENV_STAGE_FILE
from crossdock_operator.api.common import API_VERSION
from crossdock_operator.jobs.batch import STAGE, Batch, Role
from crossdock_operator.kinds import SHUFFLE_JOB, Object
from crossdock_operator.plan.names import JOB_LABEL, MANAGED_BY, MANAGER
from crossdock_operator.plan.workers import merge
from crossdock_operator.records import MADE_OF, RENEW_AT, Job

ACCESS: Final = "/var/run/crossdock/access"
"""Where pods find the job's token, and the authority of the workers' certificates."""
STAGE_FILE: Final = "/var/run/crossdock/stage"
TOKEN: Final = "token"  # noqa: S105 -- its file
AUTHORITY: Final = "ca.crt"
MOST_PODS: Final = 1000
"""Pods of a stage at once; the scheduler bounds them further."""
_HELPER_TRIES: Final = 3
_WRONG: Final = {
    "action": "FailJob",
    "onExitCodes": {"operator": "In", "values": [2]},  # `crossdock` says so of what is asked
}
_DISRUPTED: Final = {
    "action": "Ignore",
    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
}


def connection_name(job: str) -> str:
    """Return the name of the Secret with which tasks and engines reach the workers."""
    return f"{job}-connection"


def state_name(job: Job) -> str:
    """Return the name of the ConfigMap with what must survive the operator."""
    return f"{job.key.name[:40].rstrip('-')}-state-{job.uid[:8]}"


def file_name(job: Job, digest: str, part: str) -> str:
    """Return the name of a ConfigMap with a part of a stage file."""
    return f"{job.key.name[:24].rstrip('-')}-{digest[:16]}-{part}"


def metadata(job: Job, name: str, *, annotations: Mapping[str, str] | None = None) -> Object:
    """Return the metadata of an object that belongs to a job, and goes with it."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": SHUFFLE_JOB.name,
        "name": job.key.name,
        "uid": job.uid,
        "controller": True,
    }
    return {
        "name": name,
        "namespace": job.key.namespace,
        "labels": {MANAGED_BY: MANAGER, JOB_LABEL: job.key.name},
        "ownerReferences": [owner],
        **({"annotations": dict(annotations)} if annotations else {}),
    }


def connection(
    job: Job, *, endpoint: str, token: str, authority: str, made_of: str, renew_at: float
) -> Object:
    """Return the Secret with what opens the job at its workers."""
    data = {"endpoints": endpoint, "job": job.uid, TOKEN: token}
    data |= {AUTHORITY: authority} if authority else {}
    name = connection_name(job.key.name)
    return {
        "metadata": metadata(
            job, name, annotations={RENEW_AT: f"{renew_at:.0f}", MADE_OF: made_of}
        ),
        "type": "Opaque",
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()},
    }


def config_map(job: Job, name: str, data: Mapping[str, bytes], *, immutable: bool) -> Object:
    """Return a ConfigMap with bytes."""
    return {
        "metadata": metadata(job, name),
        "binaryData": {key: base64.b64encode(value).decode() for key, value in data.items()},
        **({"immutable": True} if immutable else {}),
    }


def stage_job(
    job: Job,
    batch: Batch,
    template: Mapping[str, Any],
    *,
    endpoint: str,
    tls: bool,
    files: Sequence[str],
    suspend: bool,
) -> Object:
    """Return the Job that runs a batch.

    A pod that is evicted or preempted is replaced by Kubernetes itself, also while no operator
    runs: each pod writes under an attempt of its own. What fails otherwise is not: whether another
    try is of any use depends on what it reads, and the machine finds out.

    Args:
        job: the ShuffleJob.
        batch: its tasks.
        template: the stage's pod template.
        endpoint: URL of the workers.
        tls: whether an authority is in the connection Secret.
        files: names of the ConfigMaps with the parts of the stage file.
        suspend: whether no pod is to run yet.
    """
    name = batch.name(job.key.name, job.uid)
    labels = {MANAGED_BY: MANAGER, JOB_LABEL: job.key.name, STAGE: batch.stage}
    meta = metadata(job, name, annotations=batch.annotations())
    meta["labels"] = labels
    count = len(batch.indexes())
    spec: Object = {
        "parallelism": min(count, MOST_PODS),
        "completions": count,
        "completionMode": "Indexed",
        "suspend": suspend,
        "template": _pod(batch, template, labels, endpoint=endpoint, tls=tls, files=files),
    }
    if batch.role is Role.TASKS:
        spec |= {"backoffLimitPerIndex": 0, "podFailurePolicy": {"rules": [_DISRUPTED]}}
    else:
        spec |= {
            "backoffLimit": _HELPER_TRIES,
            "podFailurePolicy": {"rules": [_WRONG, _DISRUPTED]},
        }
    return {"metadata": meta, "spec": spec}


def _pod(
    batch: Batch,
    template: Mapping[str, Any],
    labels: Mapping[str, str],
    *,
    endpoint: str,
    tls: bool,
    files: Sequence[str],
) -> Object:
    first, *others = template["spec"]["containers"]
    mounts = [
        {"name": "crossdock-access", "mountPath": ACCESS, "readOnly": True},
        {"name": "crossdock-stage", "mountPath": STAGE_FILE, "readOnly": True},
    ]
    ours = _environment(batch, endpoint=endpoint, tls=tls)
    names = {variable["name"] for variable in ours}
    container = {
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **first,
        "env": [*ours, *(v for v in first.get("env") or () if v["name"] not in names)],
        "volumeMounts": [*(first.get("volumeMounts") or ()), *mounts],
    }
    if batch.role is not Role.TASKS:
        container |= {"command": ["crossdock", "stage-files", str(batch.role)], "args": []}
    volumes = [
        {"name": "crossdock-access", "secret": {"secretName": connection_name(labels[JOB_LABEL])}},
        {
            "name": "crossdock-stage",
            "projected": {"sources": [{"configMap": {"name": name}} for name in files]},
        },
    ]
    spec = {
        **template["spec"],
        "restartPolicy": "Never",
        "containers": [container, *others],
        "volumes": [*(template["spec"].get("volumes") or ()), *volumes],
    }
    made: Object = merge(dict(template), {"metadata": {"labels": dict(labels)}})
    made["spec"] = spec
    made["metadata"] = {k: v for k, v in made["metadata"].items() if k in {"labels", "annotations"}}
    return made


def _environment(batch: Batch, *, endpoint: str, tls: bool) -> list[Object]:
    """Return what `crossdock.task` and `crossdock.connect` look for."""
    found: dict[str, str] = {
        "CROSSDOCK_ENDPOINTS": endpoint,
        "CROSSDOCK_TOKEN_FILE": f"{ACCESS}/{TOKEN}",
        ENV_STAGE_FILE: STAGE_FILE,
        ENV_ATTEMPT: str(batch.attempt),
    }
    if tls:
        found["CROSSDOCK_CA_FILE"] = f"{ACCESS}/{AUTHORITY}"
    if batch.index is not None:  # else Kubernetes says it, of each pod
        found[ENV_JOB_INDEX] = str(batch.index)
    uid = {"name": ENV_POD_UID, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}
    return [*({"name": name, "value": value} for name, value in found.items()), uid]
