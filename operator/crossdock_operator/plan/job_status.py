"""The status of a ShuffleJob, from what is observed."""

from crossdock_operator.kinds import Object
from crossdock_operator.plan.conditions import NO, YES, Answer, conditions, paused
from crossdock_operator.records import Cluster, Job


def job_status(job: Job, cluster: Cluster | None, *, now: str) -> Object:
    """Return the whole status.

    Args:
        job: the job.
        cluster: the one that serves it, if it is there.
        now: the time, as RFC 3339 has it.
    """
    accepted = Answer("Accepted", YES, "Accepted")
    if cluster is None:
        namespace, name = job.cluster
        message = f"there is no ShuffleCluster {name} in namespace {namespace}; the job waits"
        accepted = Answer("Accepted", NO, "ClusterNotFound", message)
    return {
        "observedGeneration": job.generation,
        "phase": "Deleting" if job.deleting else "Paused" if job.paused else "Pending",
        "conditions": conditions(
            [accepted, *paused(now=job.paused)],
            before=job.status.get("conditions", ()),
            generation=job.generation,
            now=now,
        ),
    }
