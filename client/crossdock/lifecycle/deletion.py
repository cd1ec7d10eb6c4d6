"""Deleting a job, or a shuffle of one, up to the proof that nothing of it is left.

One procedure for the operator, the command line, the runner and the workers. `step` says what to
do; what comes of it is told to the methods. Nothing has to be kept over a crash: whoever begins
again finds what there is to do in the store and at the workers.

1. Every worker is told, and again until it has answered: it refuses frames, stops its uploads and
   deletes its files. Who does not answer is waited for: see `stopping.py`.
2. Once one has answered, what is in the store goes, but for intents: it is much, and need not wait.
   Not before: the job may have been taken over, and a worker that knows refuses.
3. When the store has settled since the last possible writer stopped, two listings in a row must
   show neither uploads nor objects; what they do show goes, and they are taken again. Who stopped
   long ago says so: then nothing is waited for.
4. Intents go last: where uploads cannot be listed by prefix, they say where to look.

Uploads are listed before objects: one that is completed between the two is then seen as either.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from crossdock.lifecycle.stopping import Stopping
from crossdock.lifecycle.timing import Timing

EMPTY_LISTINGS: Final = 2


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell these workers to stop and to delete their files; then `acked` for each that did."""

    workers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Clear:
    """List uploads, then objects, under the prefix; abort and delete them; then `cleared`."""

    intents: bool
    """Whether intents go too."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for this long, but `Tell` if it was asked for."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """It is proved: nothing is left in the store, nor at workers but those named."""

    silent: frozenset[str]
    """Workers that never answered. They cannot write any more; their files go when they come back
    and hear of the fence from a peer."""


Action: TypeAlias = Tell | Clear | Wait | Done


class Deletion:
    """One deletion. Not thread-safe. Times are of the caller's monotonic clock, in seconds."""

    def __init__(
        self,
        stopping: Stopping,
        *,
        timing: Timing,
        poll_seconds: float = 1.0,
        emptied: bool = False,
    ) -> None:
        """Begin.

        Args:
            stopping: who has to stop.
            timing: what the store and clocks may do.
            poll_seconds: how long to wait before workers that were silent are told again.
            emptied: whether somebody has cleared it once already, without the proof. Then only the
                proof is left to do, and the store is asked nothing before all have stopped.
        """
        self._stopping = stopping
        self._timing = timing
        self._poll_seconds = poll_seconds
        self._began_clearing = emptied
        self._empty = 0
        self._next_listing = float("-inf")
        self._intents = False

    def acked(self, worker: str, now: float, *, idle_seconds: float = 0.0) -> None:
        """Note that a worker has stopped, and deleted its files; see `Stopping.acked`."""
        self._stopping.acked(worker, now, idle_seconds=idle_seconds)

    def gone(self, workers: Iterable[str], now: float) -> None:
        """Note that workers were declared gone."""
        for worker in workers:
            self._stopping.gone(worker, now)

    def cleared(
        self, action: Clear, *, uploads: int, objects: int, intents: int, began: float
    ) -> None:
        """Note what a `Clear` has found.

        Args:
            action: which.
            uploads: how many, before they were aborted.
            objects: how many, before they were deleted; without intents.
            intents: how many, before they were deleted, if they were.
            began: when the first listing was asked for.
        """
        self._began_clearing = True
        self._intents = intents > 0 and not action.intents
        proves = began >= self._settled_at(began)
        empty = proves and not uploads and not objects and not (intents and action.intents)
        self._empty = self._empty + 1 if empty else 0
        self._next_listing = began + self._timing.outlast(self._timing.relist_seconds)

    def _settled_at(self, now: float) -> float:
        """Return when listings begin to prove something, as far as is known."""
        stopped = self._stopping.stopped(now)
        if stopped is None:
            return float("inf")
        return stopped + self._timing.settled_after

    def step(self, now: float) -> list[Action]:
        """Return what is to be done now, in this order."""
        waiting = self._stopping.waiting
        actions: list[Action] = [Tell(waiting)] if waiting else []
        if not self._stopping.accepted:
            return [*actions, Wait(self._poll_seconds)]
        if not self._began_clearing:
            return [*actions, Clear(intents=False)]
        if self._empty >= EMPTY_LISTINGS and not self._intents:
            return [Done(waiting)]
        due = max(self._settled_at(now), self._next_listing)
        if now < due:
            pause = min(due - now, self._poll_seconds) if waiting else due - now
            return [*actions, Wait(pause)]
        return [*actions, Clear(intents=self._empty >= EMPTY_LISTINGS)]
