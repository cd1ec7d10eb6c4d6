"""What released shuffles have in the store, deleted beside everything else: many in a batch.

A batch takes for most of its time what the store needs to settle. So a few overlap, each takes all
that waits, and however often jobs release something, nothing queues up. Nothing is kept over a
restart but what is released, and what of that is proved to be gone: who looks again goes on.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import structlog

from crossdock.cancel import Cancel
from crossdock.cleanup.deleting import DeletionOptions, clear_released
from crossdock.cleanup.telling import ClusterWorkers
from crossdock.cluster import Cluster
from crossdock.errors import Closed, CrossdockError, Gone, JobUnknown, Unavailable
from crossdock.http import Response
from crossdock.lifecycle.facts import Facts, to_clear
from crossdock.lifecycle.lease import is_turn_to_clear
from crossdock.lifecycle.words import NEVER
from crossdock.wire import names
from crossdock.wire.tokens import Right
from crossdock_worker.job import Job
from crossdock_worker.jobs import Jobs
from crossdock_worker.life import clock

if TYPE_CHECKING:
    from crossdock_worker.worker import Worker

log = structlog.get_logger()

_LOOK_SECONDS: Final = 0.5
_AT_ONCE: Final = 4
"""Batches; each listing is a request, and each thread waits for most of the time."""
_MOST_SHUFFLES: Final = 100
"""In a batch. Each takes some six listings."""
_CALL_SECONDS: Final = 10.0
_DEADLINE_SECONDS: Final = 120.0
"""Beyond the waits for the store; then others have their turn."""
_SILENT_SECONDS: Final = 10.0
"""So long a worker that does not answer holds a thread; then it is asked again later."""
_MOST_LOOKED_AT: Final = 200
"""Of one job, in one look, on the event loop: more than go in a batch."""
_FIRST_BACKOFF_SECONDS: Final = 2.0
_LONGEST_BACKOFF_SECONDS: Final = 120.0
_MOST_DOUBLINGS: Final = 8

Batch = Mapping[str, Mapping[str, range]]
"""By job and shuffle, which generations."""


@dataclass(slots=True)
class Attempt:
    """One try to delete a batch up to the proof."""

    batch: Batch
    emptied: bool = False
    """Whether all that there was is deleted, by an earlier attempt or this one: only the proof is
    left to do."""
    unproved: frozenset[str] = frozenset()
    """Jobs of which nothing is proved: some worker does not know them."""


Clear = Callable[[Attempt, Cancel], None]
"""Makes an attempt, and notes in it how far it came, also if it raises. Blocks."""


@dataclass(slots=True)
class _Later:
    """A shuffle of which nothing was proved yet."""

    failures: int = 0
    until: float = NEVER
    """Until then it is left alone: others have their turn, and a proof may be long in coming."""
    emptied: int = 0
    """Of the generations below this one all is deleted that there was."""


class Releaser:
    """One worker's. Lives on the event loop; batches are done in threads of its own."""

    def __init__(self, jobs: Jobs, *, rank: Callable[[], int], clear: Clear) -> None:
        """Args: `rank` tells how many workers with a store come first."""
        self._jobs = jobs
        self._rank = rank
        self._clear = clear
        self._cancel = Cancel("the worker ends")
        self._lock = threading.Lock()
        self._batches = 0
        self._under_way: set[tuple[str, str]] = set()
        """(job, shuffle)."""
        self._later: dict[str, dict[str, _Later]] = {}
        """By job and shuffle."""
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="releaser")

    @property
    def is_busy(self) -> bool:
        """Whether a batch is under way."""
        return self._batches > 0

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Begin to delete what is this worker's to delete now, if a thread is free."""
        with self._lock:
            if self._batches >= _AT_ONCE:
                return
            attempt = self._next()
            if attempt.batch:
                self._batches += 1
                self._under_way |= _shuffles(attempt.batch)
                self._threads.submit(self._run, attempt)

    def _next(self) -> Attempt:
        """Return what waits, up to a bound: what is to be emptied, or what is to be proved."""
        now, rank = clock(), self._rank()
        ways: dict[bool, dict[str, dict[str, range]]] = {False: {}, True: {}}
        room = _MOST_SHUFFLES
        live = set()
        for job in self._jobs:
            live.add(job.uid)
            for name, generations in self._waiting(job, now, rank) if room else ():
                emptied = self._later_of(job.uid, name).emptied >= generations.stop
                ways[emptied].setdefault(job.uid, {})[name] = generations
                room -= 1
                if not room:
                    break
        for uid in self._later.keys() - live:
            del self._later[uid]
        emptied = len(_shuffles(ways[True])) > len(_shuffles(ways[False]))
        return Attempt(ways[emptied], emptied)

    def _waiting(self, job: Job, now: float, rank: int) -> Iterator[tuple[str, range]]:
        """Yield what of a job this worker shall clear now. Generations go one after the other."""
        standing, timing = job.standing, self._jobs.conditions.timing
        for name, generations in to_clear(
            standing.facts, job.gone.unproved(_MOST_LOOKED_AT)
        ).items():
            turn = is_turn_to_clear(
                standing, now, since=job.gone.since(name), rank=rank, timing=timing
            )
            free = (job.uid, name) not in self._under_way
            if turn and free and self._later_of(job.uid, name).until <= now:
                yield name, generations

    def _later_of(self, uid: str, name: str) -> _Later:
        return self._later.get(uid, {}).get(name) or _Later()

    def _run(self, attempt: Attempt) -> None:
        try:
            self._try(attempt)
        except Exception:  # a fault of ours must not stop the others
            log.exception("what was released and deleted is not noted")
        finally:
            with self._lock:
                self._batches -= 1
                self._under_way -= _shuffles(attempt.batch)

    def _try(self, attempt: Attempt) -> None:
        batch, unproved = attempt.batch, frozenset(attempt.batch)
        try:
            self._clear(attempt, self._cancel)
            unproved &= attempt.unproved
        except Closed:
            pass
        except CrossdockError as error:
            log.warning("released shuffles stay in the store for now", problem=str(error))
        except Exception:  # nor be met twice a second
            log.exception("released shuffles stay in the store for now")
        self._put_off({uid: batch[uid] for uid in unproved}, emptied=attempt.emptied)
        self._note({uid: each for uid, each in batch.items() if uid not in unproved})

    def _put_off(self, batch: Batch, *, emptied: bool) -> None:
        now = clock()
        with self._lock:
            for uid, shuffles in batch.items():
                each = self._later.setdefault(uid, {})
                for name, generations in shuffles.items():
                    later = each.setdefault(name, _Later())
                    doubled = _FIRST_BACKOFF_SECONDS * 2.0 ** min(later.failures, _MOST_DOUBLINGS)
                    later.until = now + min(_LONGEST_BACKOFF_SECONDS, doubled)
                    later.failures += 1
                    if emptied:
                        later.emptied = generations.stop

    def _note(self, proved: Batch) -> None:
        for uid, shuffles in proved.items():
            self._learn(uid, shuffles)
            with self._lock:
                for name in shuffles:
                    self._later.get(uid, {}).pop(name, None)
        if proved:
            log.info("released shuffles are deleted", shuffles=len(_shuffles(proved)))

    def _learn(self, uid: str, shuffles: Mapping[str, range]) -> None:
        cleared = {name: generations.stop for name, generations in shuffles.items()}
        try:
            self._jobs.get(uid).learn(Facts(cleared=cleared))
        except (Gone, JobUnknown):  # the job was ended: all of it goes
            pass
        except CrossdockError as error:  # a full disk: it is looked for once more
            log.warning("what was deleted is not written down", job=uid, problem=str(error))

    def close(self) -> None:
        """End what is under way."""
        self._cancel.set()
        self._threads.shutdown(cancel_futures=True)


def _shuffles(batch: Batch) -> set[tuple[str, str]]:
    return {(uid, name) for uid, shuffles in batch.items() for name in shuffles}


class ReleasedEverywhere:
    """Deletes as one worker (`Clear`): once all workers have agreed."""

    def __init__(self, worker: "Worker") -> None:
        """Args: `worker` has a store, and knows the others."""
        self._worker = worker

    def __call__(self, attempt: Attempt, cancel: Cancel) -> None:
        """Make an attempt.

        Raises:
            CleanupUnfinished: a worker, or the store, does not answer; what is left is found again.
            StoreDenied: the credentials do not list or delete.
        """
        worker = self._worker
        persister = worker.persister
        assert persister is not None
        token = worker.auth.own_token(Right.ADMIN)
        with worker.client(token, deadline_seconds=_CALL_SECONDS) as cluster:
            workers = _Workers(cluster, attempt, cancel, met=worker.gossip.counted)
            how = DeletionOptions(
                cluster=worker.settings.cluster,
                store=lambda: persister.store,
                timing=worker.conditions.timing,
                deadline_seconds=_DEADLINE_SECONDS,
                silence_seconds=_SILENT_SECONDS,
                emptied=attempt.emptied,
                cancel=cancel,
            )
            clear_released(attempt.batch, workers, how)


class _Workers(ClusterWorkers):
    """All workers, for one attempt."""

    def __init__(
        self, cluster: Cluster, attempt: Attempt, cancel: Cancel, *, met: Collection[str]
    ) -> None:
        self._attempt = attempt
        self._pool = cluster.pool
        self._cancel = cancel
        super().__init__(
            cluster,
            self._say,
            met=met,
            met_all=False,
            prove=partial(self._say, cleared=True),
            empty=partial(self._say, deleted=True),
            note=self._heard,
        )

    def emptied(self) -> None:
        """Note it, and tell those that have stopped."""
        self._attempt.emptied = True
        super().emptied()

    def _say(self, url: str, *, cleared: bool = False, deleted: bool = False) -> Response:
        attempt = self._attempt
        some = {
            uid: {name: generations.stop for name, generations in shuffles.items()}
            for uid, shuffles in attempt.batch.items()
            if not cleared or uid not in attempt.unproved
        }
        body = json.dumps({"jobs": some, "cleared": cleared, "deleted": deleted}).encode()
        response = self._pool.request("POST", url, names.RELEASED, body=[body], cancel=self._cancel)
        if response.status == HTTPStatus.NOT_FOUND:
            response.close()
            raise Unavailable(f"{url} takes no releases from others: it is of an older version")
        return response.check()

    def _heard(self, answer: Mapping[str, object]) -> None:
        left_out = answer.get("left_out")
        some = left_out if isinstance(left_out, list) else self._attempt.batch
        self._attempt.unproved |= frozenset(map(str, some))
