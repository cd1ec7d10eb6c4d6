"""What a run leaves in its store, deleted: at its end, and for runs whose runners died."""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from crossdock.cancel import Cancel
from crossdock.cleanup.deleting import DeletionOptions, NoWorkers, delete_job
from crossdock.errors import CrossdockError
from crossdock.lifecycle.stopping import Ender
from crossdock.lifecycle.timing import Timing
from crossdock.stages.rundir import RunDirectory, RunRecord, worker_data
from crossdock.store.layout import DEFAULT_CLUSTER
from crossdock.store.marks import is_unmarked
from crossdock.store.opening import open_store
from crossdock.store.settings import store_options

_DEADLINE_SECONDS: Final = 120.0


def clear_store(path: Path, record: RunRecord, cancel: Cancel | None = None) -> None:
    """Delete what a run has in its store; its processes have ended.

    No request is sent if the disk of its worker, the only one, says that nothing can be there.

    Args:
        path: of the run.
        record: of the run.
        cancel: ends it at the next wait or request.

    Raises:
        CrossdockError: it is not proved to be gone; the message says what is left.
        Closed: it was cancelled.
    """
    if not record.store or is_unmarked(worker_data(path), record.job):
        return
    with closing(open_store(record.store, store_options(record.store_options))) as store:
        delete_job(
            record.job,
            NoWorkers(),
            DeletionOptions(
                cluster=DEFAULT_CLUSTER,
                store=lambda: store,
                timing=_timing(record),
                deadline_seconds=_DEADLINE_SECONDS,
                cancel=cancel or Cancel("clearing the store was cancelled"),
            ),
            ender=Ender.OWNER,
            lease_seconds=0.0,
        )


def _timing(record: RunRecord) -> Timing:
    if record.store.startswith("file:"):  # nothing of a process comes after its end
        return Timing(settle_seconds=0.0, relist_seconds=0.0)
    return Timing(settle_seconds=record.store_settle_seconds)


class DeadRuns:
    """Temporary runs whose runners died, cleared beside a run: a store takes time to settle."""

    def __init__(self, runs: list[RunDirectory], note: Callable[[str], None]) -> None:
        """Clear at once those without a store, and begin with the others.

        Args:
            runs: all of them, locked.
            note: is told what was done, in the caller's thread.
        """
        self._note = note
        self._cancel = Cancel("the run ended first")
        self._said: list[str] = []
        stored = []
        for run in runs:
            if _has_store(run):
                stored.append(run)
            else:
                note(_cleared(run))
        self._thread = threading.Thread(
            target=self._clear_all, args=(stored,), name="crossdock-dead-runs"
        )
        self._thread.start()

    def _clear_all(self, runs: list[RunDirectory]) -> None:
        for run in runs:
            try:
                clear_store(run.path, run.record(), self._cancel)
            except CrossdockError as error:
                run.leave()
                if not self._cancel.event.is_set():  # the next run tries again
                    self._said.append(
                        f"a dead run in {run.path} is not cleared from its store: {error}"
                    )
                continue
            self._said.append(_cleared(run))

    def finish(self, *, wait: bool) -> None:
        """Wait for the end, or leave what is not done to the next run."""
        if not wait:
            self._cancel.set()
        self._thread.join()
        for line in self._said:
            self._note(line)


def _has_store(run: RunDirectory) -> bool:
    record = run.known_record()
    return record is not None and bool(record.store)


def _cleared(run: RunDirectory) -> str:
    try:
        run.remove()
    except OSError as error:  # not what this run is about
        return f"cannot clear what a dead run left in {run.path}: {error}"
    return f"cleared what a dead run left in {run.path}"
