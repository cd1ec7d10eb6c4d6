"""Shuffles of a job that has ended."""

from contextlib import suppress

from crossdock.errors import JobFenced
from crossdock.job import Job as Handle
from crossdock.jobfile.advice import unread
from crossdock.jobfile.model import FilesInput, FilesOutput, ShuffleJob, ShuffleOutput
from crossdock.stages.podfiles import LIST, PUBLISH, Order


def release(job: ShuffleJob, handle: Handle, *, results: bool) -> None:
    """Have the workers drop the shuffles of a job.

    Args:
        job: its stages.
        handle: the job at its workers.
        results: also those that no stage reads: they are what a job that succeeded has made.

    Raises:
        Unavailable: some worker does not answer; call again.
    """
    kept = set() if results else set(unread(job))
    shuffles = {
        stage.name: stage.output.partitions
        for stage in job.stages
        if isinstance(stage.output, ShuffleOutput) and stage.name not in kept
    }
    for stage in job.stages:
        if any(isinstance(i, FilesInput) for i in stage.inputs):
            shuffles[Order(LIST, handle.uid, stage.name).shuffle] = 1
        if isinstance(stage.output, FilesOutput):
            shuffles[Order(PUBLISH, handle.uid, stage.name).shuffle] = 1
    with suppress(JobFenced):
        for name, partitions in shuffles.items():
            handle.shuffle(name, partitions=partitions).release()
