"""Whether a cluster takes a job: what CEL cannot check, since it needs more than one object."""

from collections.abc import Mapping
from typing import Any

from crossdock.errors import CrossdockError, JobFileError
from crossdock.jobfile.build import build
from crossdock.jobfile.checks import check
from crossdock.jobfile.model import FilesInput, FilesOutput, ShuffleJob
from crossdock.jobfile.report import Report
from crossdock_operator.api.cluster import NamespacesFrom
from crossdock_operator.api.schema import quantity
from crossdock_operator.jobs.state import document_of
from crossdock_operator.plan.conditions import NO, YES, Answer
from crossdock_operator.records import Cluster, Job

_MESSAGE_CHARACTERS = 2048


def needs_labels(job: Job, cluster: Cluster | None) -> bool:
    """Return whether the labels of the job's namespace decide."""
    return (
        cluster is not None
        and cluster.spec.allowed_namespaces.mode is NamespacesFrom.SELECTOR
        and job.key.namespace != cluster.key.namespace
    )


def judge(job: Job, cluster: Cluster | None, labels: Mapping[str, str]) -> Answer:
    """Return the condition `Accepted`.

    Args:
        job: the job.
        cluster: the one that it names, if it is there.
        labels: of the job's namespace, if `needs_labels`.
    """
    namespace, name = job.cluster
    if cluster is None or cluster.deleting:
        message = f"there is no ShuffleCluster {name} in namespace {namespace}; the job waits"
        return Answer("Accepted", NO, "ClusterNotFound", message)
    if not _allows(cluster, job.key.namespace, labels):
        message = (
            f"ShuffleCluster {name} in namespace {namespace} takes no jobs of namespace "
            f"{job.key.namespace}: see its allowedNamespaces"
        )
        return Answer("Accepted", NO, "NamespaceNotAllowed", message)
    most = cluster.spec.jobs.most_quota
    if most is not None and job.spec.quota is not None and job.spec.quota > most:
        message = (
            f"quota is {quantity(job.spec.quota)}, and the cluster's mostQuota {quantity(most)}"
        )
        return Answer("Accepted", NO, "QuotaTooLarge", message)
    if job.spec.stages:
        try:
            model(job)
        except CrossdockError as error:
            return Answer("Accepted", NO, "InvalidStages", _problems(error)[:_MESSAGE_CHARACTERS])
    return Answer("Accepted", YES, "Accepted")


def model(job: Job) -> ShuffleJob:
    """Return a job's stages as a job file's.

    Raises:
        JobFileError: stages do not fit together.
    """
    return model_of(document_of(job.key.name, spec_of(job)))


def spec_of(job: Job) -> dict[str, Any]:
    """Return the part of a job's spec that a job file has too, as it was written."""
    spec = job.spec
    return {
        "stages": [_as_written(stage) for stage in spec.stages],
        "dataRoot": spec.data_root,
        "persistence": spec.persistence,
        "activeDeadlineSeconds": spec.active_deadline_seconds,
    }


def _as_written(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage without the defaults that the API server writes where they mean nothing."""
    found = dict(stage)
    if "inputs" in found:
        found["inputs"] = [
            {k: v for k, v in each.items() if "files" not in each or k not in {"read", "split"}}
            for each in found["inputs"]
        ]
    return found


def model_of(document: Mapping[str, Any]) -> ShuffleJob:
    """Return the job of a document that the API server has validated.

    Raises:
        JobFileError: stages do not fit together.
    """
    report = Report("the job")
    check(document, report)
    report.raise_if_any()
    job = build(document, for_clusters=())
    _check_root(job, report)
    report.raise_if_any()
    return job


def _check_root(job: ShuffleJob, report: Report) -> None:
    """Files lie on volumes of the pods, so their place is one in a pod."""
    root = (job.data_root or "").removeprefix("file://")
    if root.startswith("/") or "://" in root:
        return
    for n, stage in enumerate(job.stages):
        files = [i.files for i in stage.inputs if isinstance(i, FilesInput)]
        files += [stage.output.files] if isinstance(stage.output, FilesOutput) else []
        if any("://" not in name and not name.startswith("/") for name in files):
            remedy = "name the directory at which the pods of the stages mount the data's volume"
            what = f"is no absolute path, and stages[{n}] has files relative to it"
            report.add(("spec", "dataRoot"), what, remedy)
            return


def _problems(error: CrossdockError) -> str:
    if not isinstance(error, JobFileError):
        return str(error)
    return "; ".join(
        f"{p.field}: {p.what}" + (f" ({p.remedy})" if p.remedy else "") for p in error.problems
    )


def _allows(cluster: Cluster, namespace: str, labels: Mapping[str, str]) -> bool:
    allowed = cluster.spec.allowed_namespaces
    if namespace == cluster.key.namespace or allowed.mode is NamespacesFrom.ALL:
        return True
    if allowed.mode is not NamespacesFrom.SELECTOR:
        return False
    return all(labels.get(name) == value for name, value in (allowed.selector or {}).items())
