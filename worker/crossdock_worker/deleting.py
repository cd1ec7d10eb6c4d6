"""Deletes a job for the reaper: at all workers and in the store, up to the proof."""

from functools import partial
from typing import TYPE_CHECKING, Final

from crossdock.cancel import Cancel
from crossdock.cleanup.deleting import DeletionOptions, delete_job
from crossdock.cleanup.telling import ClusterWorkers
from crossdock.http import Response
from crossdock.lifecycle.lease import Standing
from crossdock.lifecycle.stopping import Ender
from crossdock.wire import names
from crossdock.wire.tokens import Right

if TYPE_CHECKING:
    from crossdock_worker.worker import Worker

_CALL_SECONDS: Final = 10.0
_DEADLINE_SECONDS: Final = 60.0
"""Then it is begun anew, later: other jobs wait for the thread."""


class Everywhere:
    """Deletes as one worker (`reaper.Delete`)."""

    def __init__(self, worker: "Worker") -> None:
        """Args: `worker` has the store, and knows the others."""
        self._worker = worker

    def __call__(self, uid: str, standing: Standing, cancel: Cancel) -> bool:
        """Delete a job; return whether it is proved that nothing of it is left in the store.

        Raises:
            CleanupUnfinished: a worker, or the store, does not answer; what is left is found again.
            StoreDenied: the credentials do not list or delete.
        """
        worker = self._worker
        persister = worker.persister
        token = worker.auth.own_token(Right.ADMIN)
        with worker.client(token, deadline_seconds=_CALL_SECONDS) as cluster:

            def command(url: str, more: str = "") -> Response:
                path = names.job_path(uid)
                return cluster.pool.call("DELETE", url, f"{path}{more}", cancel=cancel)

            workers = ClusterWorkers(
                cluster,
                command,
                met=worker.gossip.counted,
                met_all=False,
                prove=partial(command, more="?proved=true"),
            )
            how = DeletionOptions(
                cluster=worker.settings.cluster,
                store=None if persister is None else lambda: persister.store,
                timing=worker.conditions.timing,
                deadline_seconds=_DEADLINE_SECONDS,
                cancel=cancel,
                meter=worker.store_requests,
            )
            deleted = delete_job(
                uid, workers, how, ender=Ender.OTHER, lease_seconds=standing.lease_seconds
            )
        return not deleted.silent and (deleted.in_store or not worker.may_be_stored)
