"""The end of jobs and clusters: what holds them, who may still write, what is said of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from crossdock_operator.kinds import Object
from crossdock_operator.plan import names
from crossdock_operator.plan.conditions import NO, Answer, conditions
from crossdock_operator.records import Cluster, Job

_NAMED: Final = 5
"""Jobs that a message names."""
_MESSAGE_CHARACTERS: Final = 2048


def is_held(thing: Job | Cluster) -> bool:
    """Whether it stays until nothing of it is left."""
    return names.FINALIZER in thing.finalizers


def is_abandoned(thing: Job | Cluster) -> bool:
    """Whether somebody has said that its objects may stay."""
    return thing.annotations.get(names.ABANDON) == names.ABANDON_VALUE


def is_held_for_another(job: Job) -> bool:
    """Whether what holds it came with the manifest of another job, and says nothing of this one."""
    notes = job.annotations
    return names.held_note(job.uid) not in notes and any(map(names.is_held_note, notes))


def cluster_uid(job: Job) -> str:
    """Return the uid of the cluster that has a job's data; "" while none can have any."""
    if not is_held(job) or is_held_for_another(job):
        return ""
    earlier = job.annotations.get(names.CLUSTER_UID, "")  # as the version before has noted it
    return job.annotations.get(names.held_note(job.uid), earlier)


def holding(thing: Job | Cluster, annotations: Mapping[str, str]) -> Object | None:
    """Return the merge patch that holds an object, and notes something on it; None: both are done.

    Where it is not held yet it fails if the object is no more what was seen: a list of finalizers
    is written as a whole.
    """
    missing = {k: v for k, v in annotations.items() if thing.annotations.get(k) != v}
    if is_held(thing) and not missing:
        return None
    metadata: Object = {"annotations": missing}
    if not is_held(thing):
        metadata["resourceVersion"] = thing.version
        metadata["finalizers"] = [*thing.finalizers, names.FINALIZER]
    return {"metadata": metadata}


def releasing(thing: Job | Cluster) -> list[Object]:
    """Return the steps that let an object go."""
    at = f"/metadata/finalizers/{thing.finalizers.index(names.FINALIZER)}"
    return [
        {"op": "test", "path": "/metadata/uid", "value": thing.uid},
        {"op": "test", "path": at, "value": names.FINALIZER},
        {"op": "remove", "path": at},
    ]


def worker_pods(pods: Iterable[Object]) -> list[str]:
    """Return the names of pods in which a worker may run, or have run and left a disk.

    A pod that is pending has never run: it holds nothing, and is told by its peers when it begins.
    One that failed or succeeded runs no more.
    """
    over = {"Pending", "Failed", "Succeeded"}
    phases = ((pod["metadata"]["name"], (pod.get("status") or {}).get("phase")) for pod in pods)
    return sorted(name for name, phase in phases if phase not in over)


def worker_urls(
    pods: Sequence[str], *, scheme: str, namespace: str, cluster: str, processes: int
) -> tuple[str, ...]:
    """Return the URLs of all workers of these pods, as they name themselves."""
    return tuple(
        f"{scheme}://{worker_host(pod, namespace, cluster)}:{names.PORT + n}"
        for pod in pods
        for n in range(processes)
    )


def worker_host(pod: str, namespace: str, cluster: str) -> str:
    """Return the name by which the workers of a pod are reached."""
    return f"{pod}.{cluster}-worker.{namespace}.svc"


def worker_addresses(
    pods: Iterable[Object], *, namespace: str, cluster: str
) -> tuple[tuple[str, str], ...]:
    """Return where the hosts of pods are, as the API server has it."""
    known = ((pod["metadata"]["name"], (pod.get("status") or {}).get("podIP")) for pod in pods)
    return tuple((worker_host(name, namespace, cluster), str(ip)) for name, ip in known if ip)


def sees_all_jobs(watched: Sequence[str], namespaces: Iterable[str]) -> bool:
    """Whether every job that a cluster may have is seen by this operator.

    Args:
        watched: namespaces that it looks after; none: all.
        namespaces: those whose jobs the cluster takes; "" for all.
    """
    return not watched or all(each in watched for each in namespaces)


def job_end_status(job: Job, answer: Answer, *, now: str) -> Object:
    """Return the status of a job that is being deleted: as before, but for phase and condition."""
    before = job.status.get("conditions", ())
    return {
        **job.status,
        "observedGeneration": job.generation,
        "phase": "Deleting",
        "conditions": _with(before, answer, generation=job.generation, now=now),
    }


def cluster_end_status(cluster: Cluster, answer: Answer, *, now: str) -> Object:
    """Return the status of a cluster that is being deleted."""
    before = cluster.status.get("conditions", ())
    return {
        **cluster.status,
        "observedGeneration": cluster.generation,
        "phase": "Deleting",
        "conditions": _with(before, answer, generation=cluster.generation, now=now),
    }


def _with(before: Iterable[Object], answer: Answer, *, generation: int, now: str) -> list[Object]:
    known = list(before)
    (made,) = conditions([answer], before=known, generation=generation, now=now)
    if all(each["type"] != answer.type for each in known):
        return [*known, made]
    return [made if each["type"] == answer.type else each for each in known]


def deleting(settle_seconds: float) -> Answer:
    """Return what is said of a job's data while all goes well."""
    message = (
        "workers refuse the job; its objects and uploads go, and when the store has had "
        f"{settle_seconds:.0f} s to settle, two listings must show none"
    )
    return Answer("StorageClean", NO, "Deleting", message)


def unfinished(problem: str, reason: str, *, kind: str) -> Answer:
    """Return what is said of data that could not be deleted yet.

    Args:
        problem: what is left, and why.
        reason: code of the error.
        kind: of the object that is deleted.
    """
    way_out = (
        f" It is tried again. If it can never work: the {kind} goes, and what is in the store "
        f"stays there, once it has the annotation {names.ABANDON}: {names.ABANDON_VALUE}"
    )
    room = _MESSAGE_CHARACTERS - len(way_out)
    return Answer("StorageClean", NO, _REASONS.get(reason, "Unfinished"), problem[:room] + way_out)


_REASONS: Final = {
    "store_unavailable": "StoreUnavailable",
    "store_denied": "StoreDenied",
    "unavailable": "WorkersUnavailable",
    "workers_lost": "WorkersUnavailable",
    "config": "NotConfigured",
    "unauthenticated": "WorkersRefuse",
    "forbidden": "WorkersRefuse",
}


def waiting_for(jobs: Sequence[Job]) -> Answer:
    """Return what is said of a cluster that is deleted while it has jobs."""
    shown = ", ".join(sorted(f"{job.key.namespace}/{job.key.name}" for job in jobs)[:_NAMED])
    more = f" and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""
    message = f"{len(jobs)} ShuffleJobs have data here, and are waited for: {shown}{more}"
    return Answer("StorageClean", NO, "JobsLeft", message)
