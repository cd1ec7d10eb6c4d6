"""The lease of a job: an owner's word, said again and again until the owner is done."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from crossdock.errors import Closed, CrossdockError, JobFenced, StaleEpoch

log = logging.getLogger("crossdock")

_WORDS_PER_LEASE: Final = 6
_LEAST_SECONDS: Final = 0.05
_APART_SECONDS: Final = 1.0
"""Between words that a worker missed: one that cannot be given rights asks for them each time."""


class Renewal:
    """Renews one lease from a thread of its own, until it is stopped. Thread-safe."""

    def __init__(self, say: Callable[[], object], *, job: str, lease_seconds: float) -> None:
        """Begin.

        Args:
            say: says the word to all workers.
            job: uid, for the log and the thread's name.
            lease_seconds: of the job. A right counts from the answer to the word before, and a
                record is only sent to the store while more of it than the settle time is left: a
                word each third of a lease would be too few.
        """
        self._say = say
        self._job = job
        self._interval_seconds = max(_LEAST_SECONDS, lease_seconds / _WORDS_PER_LEASE)
        self._stopped = threading.Event()
        self._missed = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"crossdock-lease-{job}", daemon=True
        )
        self._thread.start()

    def soon(self) -> None:
        """Renew ahead of time: a worker has begun anew, and has not heard the owner since."""
        self._missed.set()

    def stop(self) -> None:
        """Renew no more, and wait for a word under way. Idempotent."""
        self._stopped.set()
        self._missed.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        said = time.monotonic()
        while self._wait(said):
            said = time.monotonic()
            try:
                self._say()
            except (Closed, JobFenced, StaleEpoch):
                return  # closed; or ended, or taken over: the next call of the caller says so
            except CrossdockError as error:
                # It may pass: the next round tries again, and the lease has room for some.
                log.warning("job %s: its lease was not renewed: %s", self._job, error)

    def _wait(self, said: float) -> bool:
        """Wait until a word is due; return whether to go on."""
        if self._missed.wait(self._interval_seconds):
            apart = min(_APART_SECONDS, self._interval_seconds)
            self._stopped.wait(max(0.0, said + apart - time.monotonic()))
            self._missed.clear()
        return not self._stopped.is_set()
