"""A job's pod templates, tried on the API server before the job is accepted."""

from crossdock_operator.errors import Refused
from crossdock_operator.jobs.acceptance import model
from crossdock_operator.jobs.batch import Batch, Role
from crossdock_operator.jobs.render import stage_job
from crossdock_operator.kinds import JOB
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.records import Cluster, Job

_MESSAGE_CHARACTERS = 2048


async def rehearse(kube: Kube, job: Job, cluster: Cluster) -> str:
    """Return what the API server says against the Jobs of a job's stages; empty: nothing.

    Raises:
        KubeError: it does not say.
    """
    for stage in model(job).stages:
        body = stage_job(
            job,
            Batch(role=Role.TASKS, stage=stage.name, attempt=0, tasks=1),
            stage.pod_template,
            endpoint=names.endpoint(cluster),
            tls=names.scheme(cluster) == "https",
            files=["rehearsal"],
            suspend=True,
        )
        try:
            await kube.create(JOB, body, dry_run=True)
        except Refused as error:
            return f"podTemplate of stage {stage.name}: {error.message}"[:_MESSAGE_CHARACTERS]
    return ""
