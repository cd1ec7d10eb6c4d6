"""When nobody writes for a job, or a shuffle, any more: everybody said so, or lost the right."""

from collections.abc import Iterable
from enum import StrEnum

from crossdock.lifecycle.timing import Timing
from crossdock.lifecycle.words import NEVER


class Ender(StrEnum):
    """Who has a job stopped: what a worker that does not answer may still hear depends on it."""

    OWNER = "owner"
    """Who gives its words: from now on none, or none without the new fact. A worker that does
    not answer stops a lease later. One has to answer all the same: else an owner that is cut off
    from all of them would not learn that another has taken the job over."""
    OPERATOR = "operator"
    """The same, for jobs whose owner is the operator. Such a worker also goes on as long as all
    its peers answer; it stops a lease after one of them knows."""
    OTHER = "other"
    """Another process than the owner, which may still be speaking to a worker that is cut off.
    Time proves nothing: each worker has to answer, or be declared gone."""


def idle_since(ended: float | None, began: float) -> float:
    """Return since when a worker's disk has sent the store nothing that makes anything for a job.

    Args:
        ended: when the last such request of this process ended; None for none.
        began: when this process began: whatever an earlier one on its disk sent, it sent before.
    """
    return began if ended is None else ended


class Stopping:
    """Who has stopped. Times are of the caller's monotonic clock."""

    def __init__(
        self,
        workers: Iterable[str],
        *,
        ender: Ender,
        lease_seconds: float,
        began: float,
        timing: Timing,
        everybody: bool = False,
    ) -> None:
        """Begin.

        Args:
            workers: ids of all that are not declared gone.
            ender: who asks.
            lease_seconds: of the job.
            began: from when on no word goes out without the new fact.
            timing: how far clocks may differ.
            everybody: whether `workers` are all that ever wrote. Else somebody who is no more may
                have done so until now, whatever they say of themselves.
        """
        self._waiting = set(workers)
        self._timing = timing
        self._ender = ender
        self._wait = timing.outlast(lease_seconds)
        self._began = began
        self._acks: list[float] = []
        self._last = NEVER if everybody and self._waiting else began

    @property
    def waiting(self) -> frozenset[str]:
        """Workers that have not answered, and are to be asked on."""
        return frozenset(self._waiting)

    @property
    def accepted(self) -> bool:
        """Whether a worker has taken the fact, or there is none left to ask."""
        return bool(self._acks) or not self._waiting

    def acked(self, worker: str, now: float, *, idle_seconds: float = 0.0) -> None:
        """Note that a worker has stopped, and keeps the fact on its disk.

        Args:
            worker: which.
            now: when its answer came.
            idle_seconds: for how long, by its clock when it answered, it had sent the store nothing
                that makes anything.
        """
        self._acks.append(now)
        self._drop(worker, now - self._timing.at_least(idle_seconds))

    def gone(self, worker: str, now: float) -> None:
        """Note that a worker was declared gone: it has died, and never comes back."""
        self._drop(worker, now)

    def _drop(self, worker: str, now: float) -> None:
        if worker in self._waiting:
            self._waiting.discard(worker)
            self._last = max(self._last, now)

    def stopped(self, now: float) -> float | None:
        """Return when the last possible writer had stopped; None while one may be left.

        Where all say for how long they have written nothing, that was before it was asked for.
        """
        if not self._waiting:
            return self._last
        ends = self._out_at()
        return ends if ends is not None and ends <= now else None

    def _out_at(self) -> float | None:
        """Return when those that have not answered will have stopped by themselves."""
        if self._ender is Ender.OTHER or not self._acks:
            return None
        since = self._began if self._ender is Ender.OWNER else min(self._acks)
        return max(self._last, since + self._wait)
