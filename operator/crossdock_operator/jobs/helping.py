"""Questions that a pod has to answer first: what files there are, and those of the result."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from crossdock.jobfile.model import FilesInput, FilesOutput, ShuffleJob
from crossdock.stages.events import Ask, Plan, Record
from crossdock.stages.podfiles import PUBLISH, Order, list_order
from crossdock_operator.jobs.batch import Batch, Role


@dataclass(frozen=True, slots=True)
class Helper:
    """A pod that does something for a question."""

    ask: Ask
    batch: Batch
    order: Order


def needs_listing(job: ShuffleJob, ask: Ask) -> bool:
    """Return whether a stage is planned that reads files."""
    inputs = job.stage(ask.stage).inputs
    return isinstance(ask, Plan) and any(isinstance(i, FilesInput) for i in inputs)


def needs_publishing(job: ShuffleJob, ask: Ask) -> bool:
    """Return whether a stage is recorded whose output are files."""
    return isinstance(ask, Record) and isinstance(job.stage(ask.stage).output, FilesOutput)


def lister(job: ShuffleJob, ask: Ask, *, uid: str, root: str) -> Helper:
    """Return the pod that lists what a stage reads."""
    batch = Batch(role=Role.LIST, stage=ask.stage, attempt=0, tasks=1)
    return Helper(ask, batch, list_order(job.stage(ask.stage), job=uid, root=root))


def publisher(ask: Record, *, uid: str, output: str, wrote: Mapping[int, int]) -> Helper:
    """Return the pod that publishes what the winners wrote.

    Args:
        ask: to record the stage.
        uid: of the job.
        output: where the result goes.
        wrote: index → attempt of the pod that succeeded.
    """
    # Other winners are another Job: one of the same name would publish those of before.
    batch = Batch(role=Role.PUBLISH, stage=ask.stage, attempt=max(wrote.values()), tasks=1)
    order = Order(PUBLISH, uid, ask.stage, output=output, winners=tuple(sorted(wrote.items())))
    return Helper(replace(ask, winners=dict(wrote)), batch, order)
