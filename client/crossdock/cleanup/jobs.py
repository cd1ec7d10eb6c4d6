"""A client's job, ended by its owner or by somebody else."""

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from crossdock.cancel import Cancel
from crossdock.cleanup.deleting import Deleted, DeletionOptions, delete_job
from crossdock.cleanup.telling import ClusterWorkers
from crossdock.http import Response
from crossdock.lifecycle.stopping import Ender
from crossdock.lifecycle.timing import Timing
from crossdock.records import Owner
from crossdock.retry import patiently
from crossdock.store.accounting import Requests
from crossdock.store.api import Store

if TYPE_CHECKING:
    from crossdock.job import Job


def end_job(job: "Job", cancel: Cancel) -> Deleted:
    """Delete a job; see `crossdock.job.Job.end`."""
    pool, deadline = job.cluster.pool, job.cluster.options.deadline_seconds

    def command(url: str, more: str = "") -> Response:
        return pool.call("DELETE", url, f"{job.path}?epoch={job.epoch}{more}", cancel=cancel)

    with ExitStack() as stack:
        workers = patiently(
            lambda: ClusterWorkers(
                job.cluster,
                command,
                met=job.met,
                met_all=job.met_all,
                prove=partial(command, more="&proved=true"),
            ),
            deadline_seconds=deadline,
            cancel=cancel,
        )
        return delete_job(
            job.uid,
            workers,
            deletion_options(job, stack, cancel),
            ender=_ender(job),
            lease_seconds=job.record.lease_seconds,
        )


def deletion_options(job: "Job", stack: ExitStack, cancel: Cancel) -> DeletionOptions:
    """Return where things of a job are deleted; the store is closed with the stack."""
    options, meter = job.cluster.options, Requests()

    def opened() -> Store:
        store = job.cluster.open_store(meter)
        stack.callback(store.close)
        return store

    return DeletionOptions(
        cluster=options.store_cluster,
        store=opened if options.store else None,
        timing=Timing(settle_seconds=options.store_settle_seconds),
        deadline_seconds=options.deadline_seconds,
        cancel=cancel,
        meter=meter,
    )


def _ender(job: "Job") -> Ender:
    if not job.is_owner:
        return Ender.OTHER
    return Ender.OPERATOR if job.record.owner is Owner.CLUSTER else Ender.OWNER
