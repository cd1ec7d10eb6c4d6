"""Shuffles that a job has released, deleted from the store beside its work."""

import logging
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from crossdock.cancel import Cancel
from crossdock.cleanup.deleting import NoWorkers, release_shuffles
from crossdock.cleanup.jobs import deletion_options
from crossdock.errors import Closed, CrossdockError
from crossdock.threads import Threads
from crossdock.views import ShuffleKey

if TYPE_CHECKING:
    from crossdock.job import Job

log = logging.getLogger("crossdock")

_AT_ONCE: Final = 4
"""Shuffles that are being deleted; each waits for the store to settle for most of its time."""


class Releases:
    """The released shuffles of one job. Thread-safe.

    What is not done when the job ends goes with all else of it.
    """

    def __init__(self, job: "Job") -> None:
        self._job = job
        self._lock = threading.Lock()
        self._threads: Threads | None = None
        self._cancel = Cancel("the job was closed", parent=job.cluster.pool.cancel)
        self._begun: dict[str, int] = {}
        """By shuffle, the first generation that was not given here."""

    def begin(self, key: ShuffleKey) -> None:
        """Begin to delete a shuffle's generations up to this one from the store.

        All workers have taken the release, so none writes to it any more.
        """
        with self._lock:
            first = self._begun.get(key.name, 0)
            keys = [ShuffleKey(key.job, key.name, g) for g in range(first, key.generation + 1)]
            if not keys or self._cancel.event.is_set():
                return
            self._begun[key.name] = key.generation + 1
            if self._threads is None:
                self._threads = Threads(_AT_ONCE, thread_name_prefix="crossdock-release")
            self._threads.submit(self._delete, keys)

    def _delete(self, keys: list[ShuffleKey]) -> None:
        try:
            with ExitStack() as stack:
                options = deletion_options(self._job, stack, self._cancel)
                done = release_shuffles(keys, NoWorkers(), options, lease_seconds=0.0)
        except Closed:
            return  # the job's end deletes it
        except CrossdockError as error:
            log.warning("job %s: a released shuffle stays in the store: %s", keys[-1].job, error)
            return
        log.debug("shuffle %s is released: %s", keys[-1], done)

    def close(self) -> None:
        """End what is under way, and wait for that. Idempotent."""
        self._cancel.set()
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.close()
