"""What released shuffles have in the store, deleted beside everything else: many in a batch.

A batch takes for most of its time what the store needs to settle. So a few overlap, each takes all
that waits, and however often jobs release something, nothing queues up. Nothing is kept over a
restart but what is released, and what of that is proved to be gone: who looks again goes on.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from crossdock.cancel import Cancel
from crossdock.cleanup.deleting import DeletionOptions, clear_released
from crossdock.cleanup.telling import ClusterWorkers
from crossdock.errors import Closed, CrossdockError, Gone, JobUnknown
from crossdock.http import Response
from crossdock.lifecycle.facts import Facts, to_clear
from crossdock.lifecycle.lease import is_turn_to_clear
from crossdock.wire import names
from crossdock.wire.tokens import Right
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
_FIRST_BACKOFF_SECONDS: Final = 2.0
_LONGEST_BACKOFF_SECONDS: Final = 120.0
_MOST_DOUBLINGS: Final = 8

Batch = Mapping[str, Mapping[str, range]]
"""By job and shuffle, which generations."""
Clear = Callable[[Batch, Cancel], frozenset[str]]
"""Deletes a batch up to the proof; returns the jobs of which nothing is proved. Blocks."""


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
        self._failures = 0
        self._put_off: dict[tuple[str, str], float] = {}
        """By (job, shuffle), until when it is left alone, so that the others have their turn."""
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="releaser")

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
            batch = self._next()
            if batch:
                self._batches += 1
                self._under_way |= _shuffles(batch)
                self._threads.submit(self._run, batch)

    def _next(self) -> Batch:
        """Return what waits, up to a bound. Generations of one shuffle go one after the other."""
        now, rank, timing = clock(), self._rank(), self._jobs.conditions.timing
        self._put_off = {key: until for key, until in self._put_off.items() if until > now}
        batch: dict[str, dict[str, range]] = {}
        room = _MOST_SHUFFLES
        for job in self._jobs:
            standing = job.standing
            for name, generations in to_clear(standing.facts).items():
                turn = is_turn_to_clear(
                    standing, now, since=job.gone.since(name), rank=rank, timing=timing
                )
                key = job.uid, name
                if turn and key not in self._under_way and key not in self._put_off:
                    batch.setdefault(job.uid, {})[name] = generations
                    room -= 1
                    if not room:
                        return batch
        return batch

    def _run(self, batch: Batch) -> None:
        try:
            unproved = self._clear(batch, self._cancel)
        except Closed:
            pass
        except CrossdockError as error:
            self._again_later(batch)
            log.warning("released shuffles stay in the store for now", problem=str(error))
        except Exception:  # a fault of ours must not stop the others, nor be met twice a second
            self._again_later(batch)
            log.exception("released shuffles stay in the store for now")
        else:
            self._note(batch, unproved)
        finally:
            with self._lock:
                self._batches -= 1
                self._under_way -= _shuffles(batch)

    def _note(self, batch: Batch, unproved: frozenset[str]) -> None:
        with self._lock:
            self._failures = 0
            left_out = _shuffles({uid: batch[uid] for uid in unproved & batch.keys()})
            self._put_off.update(dict.fromkeys(left_out, clock() + _FIRST_BACKOFF_SECONDS))
        proved = {uid: each for uid, each in batch.items() if uid not in unproved}
        for uid, shuffles in proved.items():
            self._learn(uid, shuffles)
        log.info("released shuffles are deleted", shuffles=len(_shuffles(proved)))

    def _learn(self, uid: str, shuffles: Mapping[str, range]) -> None:
        cleared = {name: generations.stop for name, generations in shuffles.items()}
        try:
            self._jobs.get(uid).learn(Facts(cleared=cleared))
        except (Gone, JobUnknown):  # the job was ended: all of it goes
            pass
        except CrossdockError as error:  # a full disk: it is looked for once more
            log.warning("what was deleted is not written down", job=uid, problem=str(error))

    def _again_later(self, batch: Batch) -> None:
        with self._lock:
            doubled = _FIRST_BACKOFF_SECONDS * 2.0 ** min(self._failures, _MOST_DOUBLINGS)
            self._failures += 1
            until = clock() + min(_LONGEST_BACKOFF_SECONDS, doubled)
            self._put_off.update(dict.fromkeys(_shuffles(batch), until))

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

    def __call__(self, batch: Batch, cancel: Cancel) -> frozenset[str]:
        """Delete a batch; return the jobs that some worker does not know, or has damaged.

        Raises:
            CleanupUnfinished: a worker, or the store, does not answer; what is left is found again.
            StoreDenied: the credentials do not list or delete.
        """
        worker = self._worker
        persister = worker.persister
        assert persister is not None
        unproved: set[str] = set()
        token = worker.auth.own_token(Right.ADMIN)
        with worker.client(token, deadline_seconds=_CALL_SECONDS) as cluster:

            def command(url: str, *, cleared: bool = False) -> Response:
                some = {
                    uid: {name: generations.stop for name, generations in shuffles.items()}
                    for uid, shuffles in batch.items()
                    if not cleared or uid not in unproved
                }
                body = json.dumps({"jobs": some, "cleared": cleared}).encode()
                return cluster.pool.call("POST", url, names.RELEASED, body=body, cancel=cancel)

            def note(answer: Mapping[str, object]) -> None:
                left_out = answer.get("left_out")
                unproved.update(map(str, left_out if isinstance(left_out, list) else batch))

            workers = ClusterWorkers(
                cluster,
                command,
                met=worker.gossip.counted,
                met_all=False,
                prove=partial(command, cleared=True),
                note=note,
            )
            how = DeletionOptions(
                cluster=worker.settings.cluster,
                store=lambda: persister.store,
                timing=worker.conditions.timing,
                deadline_seconds=_DEADLINE_SECONDS,
                cancel=cancel,
            )
            clear_released(batch, workers, how)
        return frozenset(unproved)
