"""A job, or a shuffle of one, deleted up to the proof that nothing of it is left.

What is to be done, and in which order, `lifecycle.deletion.Deletion` decides; here it is done.
Nothing is kept over a crash: whoever calls again finds what there is still to do.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol

from crossdock.cancel import Cancel
from crossdock.cleanup.clearing import Cleared, Part, clear
from crossdock.errors import CleanupUnfinished, CrossdockError, ProtocolError, Unavailable
from crossdock.lifecycle.deletion import Clear, Deletion, Done, Tell, Wait
from crossdock.lifecycle.stopping import Ender, Stopping
from crossdock.lifecycle.timing import Timing
from crossdock.retry import wait_seconds
from crossdock.store.accounting import Requests
from crossdock.store.api import Store
from crossdock.store.buckets import each_bucket
from crossdock.store.layout import ShuffleLayout, job_prefix, shuffle_of
from crossdock.views import ShuffleKey

_NEVER: Final = "deleting was cancelled"
_MOST_GENERATIONS: Final = 100
"""Of one shuffle that are listed one by one."""
_MOST_NAMED: Final = 3
_LISTINGS: Final = 6
"""That a deletion waits between, all being well: two that are empty, with intents twice, and more
for the first ones."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of telling workers to stop."""

    stopped: frozenset[str] = frozenset()
    """Ids of those that take and write nothing of it any more, and have deleted their files."""
    gone: frozenset[str] = frozenset()
    """Ids of those that were declared gone."""
    idle_seconds: Mapping[str, float] = field(default_factory=dict)
    """By id, for how long those that stopped had sent the store nothing that makes anything, by
    their clocks when they answered; 0 where it is not known."""


class Workers(Protocol):
    """The workers that may write what is deleted, as whoever deletes it reaches them."""

    def names(self) -> frozenset[str]:
        """Return the ids of all that are not declared gone."""

    def stop(self, names: frozenset[str]) -> Told:
        """Tell these to stop, and to delete their files; who does not answer is told again.

        Raises:
            StaleEpoch: the job was taken over: it is another's to delete.
        """

    def everybody(self) -> bool:
        """Whether these are all that ever wrote for it."""

    def untouched(self) -> bool:
        """Whether it is known for certain that nothing of it ever was in the store."""

    def emptied(self) -> None:
        """Tell those that have stopped that all there was in the store by then is deleted.

        What was under way may still come, until that is proved. Best effort.
        """

    def proved(self) -> None:
        """Tell all that nothing of it is left in the store. Best effort."""


class NoWorkers:
    """There are none any more: their processes have ended."""

    def names(self) -> frozenset[str]:
        """Return no id."""
        return frozenset()

    def stop(self, names: frozenset[str]) -> Told:
        """Nobody is told."""
        return Told(stopped=names)

    def everybody(self) -> bool:
        """They have written until just now."""
        return False

    def untouched(self) -> bool:
        """Nobody is left who could say so."""
        return False

    def emptied(self) -> None:
        """Nobody is told."""

    def proved(self) -> None:
        """Nobody is told."""


@dataclass(slots=True)
class Deleted:
    """What was deleted, and by how many requests."""

    uploads: int = 0
    """Unfinished ones, aborted."""
    objects: int = 0
    """Intents too."""
    nbytes: int = 0
    """Of the objects."""
    requests: int = 0
    """To the store, as far as they were metered."""
    seconds: float = 0.0
    silent: frozenset[str] = frozenset()
    """Workers that never answered. They cannot write any more; their files go when they are back
    and hear of it."""
    in_store: bool = False
    """Whether the store was looked at, and proved to be empty of it. False: nothing of it was
    ever there; or there is no way to it from here, and workers that have one clean up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionOptions:
    """Where something is deleted, and how long that may take."""

    cluster: str
    """Its uid: the first part of all keys."""
    store: Callable[[], Store] | None
    """Opens the store, which is left open; asked once there is a reason. None: there is none."""
    timing: Timing
    deadline_seconds: float
    """Beyond what it waits for the store; then it is given up for now."""
    silence_seconds: float = inf
    """How long workers that do not answer are waited for, if that is less: whoever comes back to it
    later need not hold a thread meanwhile."""
    emptied: bool = False
    """Whether it was cleared once already, without the proof: see `lifecycle.deletion`."""
    cancel: Cancel = field(default_factory=lambda: Cancel(_NEVER))
    """Ends it at the next wait or request, with `Closed`."""
    meter: Requests | None = None
    """Of the store, for the number of requests."""
    note: Callable[[CrossdockError], None] = lambda _: None
    """Is told, again and again, what is waited for: a store or workers that do not answer."""


def delete_job(
    uid: str, workers: Workers, how: DeletionOptions, *, ender: Ender, lease_seconds: float
) -> Deleted:
    """Delete a job: at all workers, and in the store.

    Args:
        uid: of the job.
        workers: who has to stop.
        how: where, and how long it may take.
        ender: who ends it.
        lease_seconds: of the job; a worker that does not answer is waited for so long.

    Raises:
        StaleEpoch: it was taken over.
        CleanupUnfinished: the deadline passed; the message says what is left. Call again.
        StoreDenied: the credentials do not list or delete.
        Closed: it was cancelled.
    """
    one = _Deletion(f"job {uid}", uid, workers, how, [Part(job_prefix(how.cluster, uid))])
    return one.run(ender, lease_seconds)


def clear_released(
    released: Mapping[str, Mapping[str, range]], workers: Workers, how: DeletionOptions
) -> Deleted:
    """Delete from the store what shuffles have there that were released; see `delete_job`.

    Args:
        released: by job and shuffle, which generations.
        workers: who has to know of the releases: all of them, or be declared gone.
        how: where, and how long it may take.
    """
    parts = [
        part
        for job, shuffles in released.items()
        for name, generations in shuffles.items()
        for part in _parts(how.cluster, job, name, generations)
    ]
    count = sum(len(shuffles) for shuffles in released.values())
    one = _Deletion(f"what {count} released shuffles have left", "", workers, how, parts)
    return one.run(Ender.OTHER, 0.0)


def _parts(cluster: str, job: str, name: str, generations: range) -> list[Part]:
    """Return where generations of a shuffle lie: each by itself, or all by the job's prefix."""
    if len(generations) <= _MOST_GENERATIONS:
        keys = [ShuffleKey(job, name, generation) for generation in generations]
        return [Part(ShuffleLayout.of(cluster, key).prefix) for key in keys]

    def is_of_it(key: str) -> bool:
        try:
            shuffle, _ = shuffle_of(key)
        except ProtocolError:  # it is of the job itself
            return False
        return shuffle.name == name and shuffle.generation in generations

    return [Part(job_prefix(cluster, job), is_of_it)]


class _Deletion:
    """One that is under way."""

    def __init__(
        self, what: str, uid: str, workers: Workers, how: DeletionOptions, parts: list[Part]
    ) -> None:
        self._what = what
        self._uid = uid
        self._workers = workers
        self._how = how
        self._parts = parts
        self._stores: list[Store] | None = None
        self._problem: Unavailable | None = None
        """Of the store, the last time."""
        self._failures = 0
        self._found = Cleared()
        self._began = time.monotonic()
        self._until = self._began + how.deadline_seconds
        self._silent_until = self._began + min(how.deadline_seconds, how.silence_seconds)
        if how.store is not None:
            timing = how.timing
            relists = timing.outlast(_LISTINGS * timing.relist_seconds)
            self._until += timing.settled_after + relists

    def run(self, ender: Ender, lease_seconds: float) -> Deleted:
        """Do it all."""
        how, workers = self._how, self._workers
        requests = self._requests()
        timing = how.timing
        if how.store is None:  # there is nothing that could come late
            timing = Timing(
                settle_seconds=0.0, clock_margin=timing.clock_margin, relist_seconds=0.0
            )
        stopping = Stopping(
            workers.names(),
            ender=ender,
            lease_seconds=lease_seconds,
            began=time.monotonic(),
            timing=timing,
            everybody=workers.everybody(),
        )
        machine = Deletion(stopping, timing=timing, emptied=how.emptied)
        silent = self._drive(machine, stopping)
        if not silent and (how.store is not None or workers.untouched()):
            workers.proved()
        found = self._found
        return Deleted(
            found.uploads,
            found.objects,
            found.nbytes,
            self._requests() - requests,
            time.monotonic() - self._began,
            silent,
            self._stores is not None,
        )

    def _drive(self, machine: Deletion, stopping: Stopping) -> frozenset[str]:
        """Do what the machine says; return who never answered."""
        while True:
            self._how.cancel.check()
            for action in machine.step(time.monotonic()):
                match action:
                    case Tell(names):
                        if self._tell(machine, names):
                            break  # it changes what comes next
                    case Clear():
                        if not stopping.waiting and self._is_untouched():
                            return frozenset()
                        self._clear(machine, action)
                    case Wait(seconds):
                        self._wait(seconds, stopping.waiting)
                    case Done(silent):
                        return silent

    def _tell(self, machine: Deletion, names: frozenset[str]) -> bool:
        """Tell workers to stop; return whether that has changed anything."""
        told = self._workers.stop(names)
        now = time.monotonic()
        for name in told.stopped & names:
            machine.acked(name, now, idle_seconds=told.idle_seconds.get(name, 0.0))
        machine.gone(told.gone & names, now)
        silent = names - told.stopped - told.gone
        if silent:
            self._how.note(self._unfinished(silent))
        return bool((told.stopped | told.gone) & names)

    def _is_untouched(self) -> bool:
        return self._stores is None and self._workers.untouched()

    def _clear(self, machine: Deletion, action: Clear) -> None:
        began = time.monotonic()
        found = Cleared()
        try:
            for store in self._opened():
                for part in self._parts:
                    found += clear(store, part, intents=action.intents, cancel=self._how.cancel)
        except Unavailable as error:
            self._problem = error
            self._failures += 1
            self._how.note(error)
            self._wait(wait_seconds(self._failures, error), frozenset())
            return
        self._problem, self._failures = None, 0
        self._found.uploads += found.uploads
        self._found.objects += found.objects + (found.intents if action.intents else 0)
        self._found.nbytes += found.nbytes
        machine.cleared(
            action,
            uploads=found.uploads,
            objects=found.objects,
            intents=found.intents,
            began=began,
        )
        self._workers.emptied()

    def _opened(self) -> list[Store]:
        if self._stores is None and self._how.store is not None:
            self._stores = each_bucket(self._how.store())
        return self._stores or []

    def _wait(self, seconds: float, waiting: frozenset[str]) -> None:
        left = (self._silent_until if waiting else self._until) - time.monotonic()
        if left <= 0:
            raise self._unfinished(waiting)
        if self._how.cancel.event.wait(min(seconds, left)):
            self._how.cancel.check()

    def _unfinished(self, waiting: frozenset[str]) -> CleanupUnfinished:
        if waiting:
            listed = ", ".join(sorted(waiting))
            return CleanupUnfinished(
                f"{self._what} is not deleted: these workers do not answer: {listed}",
                hint="delete it again once they are back, or declare those gone that never are",
            )
        stores = self._stores or []
        prefixes = list(dict.fromkeys(part.prefix for part in self._parts))
        named = [f"{store.url}/{p}" for store in stores for p in prefixes[:_MOST_NAMED]]
        where = ", ".join(named) + (", …" if len(prefixes) > _MOST_NAMED else "")
        said = "that took too long"
        if self._problem is not None:
            said = self._problem.message
        return CleanupUnfinished(
            f"{self._what} is not deleted: what is left lies below {where}: {said}",
            hint="delete it again, or let `crossdock audit --delete` find it",
        )

    def _requests(self) -> int:
        meter = self._how.meter
        if meter is None:
            return 0
        return sum(count.requests for count in meter.of_job(self._uid).values())
