"""Jobs that nobody ends any more: found, and deleted by the worker whose turn it is.

Whose turn it is says `lifecycle.lease.must_clean`. Nothing is kept over a restart: who looks again
finds what there is still to do.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol

import structlog

from crossdock.cancel import Cancel
from crossdock.errors import CrossdockError
from crossdock.lifecycle import lease
from crossdock.lifecycle.facts import Facts, Stage
from crossdock.lifecycle.lease import Standing
from crossdock_worker.jobs import Jobs
from crossdock_worker.life import clock

log = structlog.get_logger()

_LOOK_SECONDS: Final = 0.5
_KEPT_AT_ONCE: Final = 50
"""Small files that are written on the event loop, in each look."""
_TOMBSTONES_EVERY_SECONDS: Final = 600.0
_AT_ONCE: Final = 32
"""Jobs that are deleted at once: each waits for most of its time until the store has settled."""
_FIRST_BACKOFF_SECONDS: Final = 2.0
_LONGEST_BACKOFF_SECONDS: Final = 300.0
_MOST_DOUBLINGS: Final = 16
"""Of a pause that is bounded anyway: a float has room for a thousand."""


class Delete(Protocol):
    """Deletes a job: at all workers, and in the store."""

    def __call__(self, uid: str, standing: Standing, cancel: Cancel) -> bool:
        """Return whether it is proved that nothing of it is left in the store; blocks.

        Args:
            uid: of the job, which is fenced here and has no files here any more.
            standing: of the job.
            cancel: ends it, with `Closed`.
        """


class Reaper:
    """One worker's. Lives on the event loop; deletions are done in threads of its own."""

    def __init__(
        self,
        jobs: Jobs,
        *,
        rank: Callable[[], int],
        delete: Delete,
        listens: Callable[[], bool] = lambda: True,
    ) -> None:
        """Make one.

        Args:
            jobs: of the worker.
            rank: tells how many workers come first.
            delete: deletes a job.
            listens: whether this worker listens to owners; else it judges nobody's silence.
        """
        self._jobs = jobs
        self._listens = listens
        self._rank = rank
        self._delete = delete
        self._cancel = Cancel("the worker ends")
        self._under_way: set[str] = set()
        self._not_before: dict[str, float] = {}
        """Of jobs whose deletion failed, and of those of which nothing could be proved."""
        self._failures: dict[str, int] = {}
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="reaper")

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        forgot = clock()
        while True:
            self.keep_silence()
            self.look()
            if clock() - forgot > _TOMBSTONES_EVERY_SECONDS:
                forgot = clock()
                await loop.run_in_executor(None, self._jobs.forget_old)
            await asyncio.sleep(_LOOK_SECONDS)

    def keep_silence(self) -> None:
        """Write down how long owners were silent, for whoever starts on this disk again."""
        if not self._listens():
            return
        written = 0
        for job in self._jobs:
            with suppress(CrossdockError):  # a full disk: then a restart begins anew
                written += job.life.keep_silence(job.record)
            if written == _KEPT_AT_ONCE:
                break

    def look(self) -> None:
        """Begin to delete what is this worker's to delete now."""
        now, rank = clock(), self._rank()
        for uid, standing, fenced in self._jobs.standings():
            waits = uid in self._under_way or self._not_before.get(uid, now) > now
            if not waits and self._must_clean(standing, now, fenced, rank):
                self._under_way.add(uid)
                self._threads.submit(self._clean, uid, standing)

    def _must_clean(self, standing: Standing, now: float, fenced: float, rank: int) -> bool:
        conditions = self._jobs.conditions
        if standing.facts.stage is Stage.LIVE and not self._listens():
            return False
        return lease.must_clean(
            standing,
            conditions.around,
            now,
            fenced=fenced,
            rank=rank,
            timing=conditions.timing,
        )

    def _clean(self, uid: str, standing: Standing) -> None:
        try:
            proved = self._end(uid, standing)
        except CrossdockError as error:
            self._again_later(uid)
            log.warning("an abandoned job is not deleted yet", job=uid, problem=str(error))
        except Exception:  # a fault of ours must not stop the others, nor be met twice a second
            self._again_later(uid)
            log.exception("an abandoned job is not deleted yet", job=uid)
        else:
            self._failures.pop(uid, None)
            self._not_before.pop(uid, None)
            if proved is not None:
                self._not_before[uid] = float("inf")
                log.info("an abandoned job is deleted", job=uid, proved=proved)
        finally:
            self._under_way.discard(uid)

    def _again_later(self, uid: str) -> None:
        failures = self._failures[uid] = self._failures.get(uid, 0) + 1
        doubled = _FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, _MOST_DOUBLINGS)
        self._not_before[uid] = clock() + min(_LONGEST_BACKOFF_SECONDS, doubled)

    def _end(self, uid: str, standing: Standing) -> bool | None:
        """Delete a job; return whether that is proved, or None: its owner has spoken meanwhile."""
        if standing.facts.stage is Stage.LIVE and not self._fence(uid):
            return None
        proved = self._delete(uid, standing, self._cancel)
        if proved:
            self._jobs.learn_ended(uid, Facts(standing.facts.epoch, Stage.CLEAN), None)
        return proved

    def _fence(self, uid: str) -> bool:
        """Fence a job here, unless its owner has spoken meanwhile; returns whether it is."""
        return self._jobs.abandon(uid)

    def close(self) -> None:
        """End what is under way."""
        self._cancel.set()
        self._threads.shutdown(cancel_futures=True)
