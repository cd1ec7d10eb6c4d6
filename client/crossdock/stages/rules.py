"""A job file's stages, as the machine sees them."""

from crossdock.jobfile.model import FilesOutput, ShuffleJob
from crossdock.stages.states import StageRules


def rules_of(job: ShuffleJob) -> list[StageRules]:
    """Return what the machine must know of each stage, in the job's order."""
    return [
        StageRules(
            name=stage.name,
            upstream=tuple(s.name for s in job.upstream(stage)),
            tries=stage.retries + 1,
            final=isinstance(stage.output, FilesOutput),
        )
        for stage in job.stages
    ]
