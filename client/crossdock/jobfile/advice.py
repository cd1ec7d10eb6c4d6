"""What is allowed in a job and should still be said."""

from crossdock.jobfile.model import ShuffleJob, ShuffleOutput, Stage
from crossdock.jobfile.pod import left_over


def ignored(stage: Stage) -> list[str]:
    """Return the fields of the stage's pod template that a process cannot honour."""
    return [f"podTemplate.{field}" for field in left_over(stage.pod_template)]


def unread(job: ShuffleJob) -> list[str]:
    """Return the names of stages whose shuffle no stage reads."""
    read = {up.name for stage in job.stages for up in job.upstream(stage)}
    return [
        s.name for s in job.stages if isinstance(s.output, ShuffleOutput) and s.name not in read
    ]


def warnings(job: ShuffleJob) -> list[str]:
    """Return what to tell the user before a run: at most one line on each subject."""
    said = []
    if names := unread(job):
        said.append(f"no stage reads the shuffle of {', '.join(names)}: its data are dropped")
    if job.for_clusters:
        said.append(f"only a cluster honours these fields: {', '.join(job.for_clusters)}")
    fields = [f"{stage.name}: {', '.join(f)}" for stage in job.stages if (f := ignored(stage))]
    if fields:
        said.append(f"a process cannot honour these pod fields: {'; '.join(fields)}")
    return said
