"""Persists and frees by itself: looks at all shuffles again and again, and does what `policy` says.

In the same rounds the space of frames that are gone is given back once their readers have ended.
Without a store that is all. A round takes a thread of its own, and little time of it.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from crossdock.errors import CrossdockError, Gone, LeaseEnded
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock_worker import policy
from crossdock_worker.admission import DiskUse
from crossdock_worker.job import Job
from crossdock_worker.persist import Persister
from crossdock_worker.policy import Free, Persist, Rules, ShuffleState, Trigger
from crossdock_worker.settings import Settings
from crossdock_worker.shuffle_log import ShuffleLog

if TYPE_CHECKING:
    from crossdock_worker.worker import Worker

log = structlog.get_logger()

_PERIOD_SECONDS: Final = 1.0
_LEAST_PAUSE_SECONDS: Final = 0.1
_REST: Final = 20
"""A round is followed by a pause of so many times its length, at least: it holds the GIL."""
_RUNS_AT_ONCE: Final = 4
_FIRST_BACKOFF_SECONDS: Final = 2.0
_LONGEST_BACKOFF_SECONDS: Final = 120.0
_MOST_DOUBLINGS: Final = 16
"""Of a pause that is bounded anyway: a float has room for a thousand."""


def rules_of(settings: Settings, disk: DiskUse) -> Rules:
    """Return the marks and times that settings mean on this disk."""
    limits = settings.limits
    return Rules(
        persist_bytes=limits.disk_persist * disk.capacity_bytes,
        urgent_bytes=max(limits.disk_persist, limits.disk_low) * disk.capacity_bytes,
        segment_bytes=limits.segment_bytes,
        persist_after_seconds=settings.persist_after_seconds,
        eager_quiet_seconds=settings.eager_quiet_seconds,
    )


@dataclass(slots=True)
class _Failures:
    """Failures in a row of one shuffle."""

    count: int
    not_before: float


class Keeper:
    """Looks after what one worker holds. `run` lives on the event loop, `round` in a thread."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._pressed = False
        self._lock = threading.Lock()
        self._failures: dict[ShuffleKey, _Failures] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keeper")

    async def run(self) -> None:
        """Make rounds until cancelled: one a period, and when the disk gets full."""
        loop = asyncio.get_running_loop()
        pressed = self._worker.admission.pressed
        while True:
            pressed.clear()
            started = time.monotonic()
            await loop.run_in_executor(self._thread, self._guarded_round)
            await asyncio.sleep(max(_LEAST_PAUSE_SECONDS, _REST * (time.monotonic() - started)))
            with suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD_SECONDS):
                    await pressed.wait()

    def close(self) -> None:
        """Wait for the end of a round under way."""
        self._thread.shutdown()

    def _guarded_round(self) -> None:
        try:
            self.round()
        except (CrossdockError, OSError) as error:
            log.warning("a round over all shuffles failed", problem=str(error))

    def round(self) -> None:
        """Look at all shuffles once, and begin what is to be done."""
        held = [(job, shuffle) for job in self._worker.jobs for shuffle in job.logs()]
        for _, shuffle in held:
            if shuffle.space.pins.is_due:
                shuffle.reclaim()
        persister = self._worker.persister
        if persister is None:
            return
        persister.look_after()
        by_key = {shuffle.key: (job, shuffle) for job, shuffle in held}
        with self._lock:
            self._failures = {k: f for k, f in self._failures.items() if k in by_key}
        disk = self._worker.admission.disk_use()
        rules = rules_of(self._worker.settings, disk)
        going = sum(_going_bytes(shuffle, persister) for _, shuffle in held)
        use_bytes = disk.used_bytes - going
        self._pressed = policy.is_pressed(use_bytes, rules, before=self._pressed)
        states = [self._state(job, shuffle, persister) for job, shuffle in held]
        for (_, shuffle), state in zip(held, states, strict=True):
            if shuffle.runs.logs() and not (state.complete_bytes or state.unfinished_bytes):
                persister.drop_logs(shuffle)  # a run's end does it; this is for what failed then
        actions = policy.decide(
            states, use_bytes=use_bytes, pressed=self._pressed, rules=rules, now=time.monotonic()
        )
        hopeless = use_bytes >= rules.urgent_bytes and not going and not actions
        self._worker.admission.relieved = not hopeless
        room = _RUNS_AT_ONCE - sum(state.busy for state in states)
        for action in actions:
            job, shuffle = by_key[action.key]
            if isinstance(action, Free):
                self._try(shuffle, partial(self._free, job, shuffle))
            elif room > 0:  # what finds none is decided about again
                room -= 1
                self._try(shuffle, partial(self._persist, persister, job, shuffle, action))

    def _state(self, job: Job, shuffle: ShuffleLog, persister: Persister) -> ShuffleState:
        holdings = shuffle.holdings()
        with self._lock:
            failures = self._failures.get(shuffle.key)
        return ShuffleState(
            key=shuffle.key,
            persistence=job.record.persistence,
            complete_bytes=holdings.complete_bytes,
            unfinished_bytes=holdings.unfinished_bytes,
            persisted_bytes=holdings.persisted_bytes,
            oldest=holdings.oldest,
            last_write=shuffle.last_write,
            last_read=shuffle.last_read,
            busy=persister.under_way(shuffle.key) is not None,
            not_before=self._not_before(job, shuffle, failures),
        )

    def _not_before(self, job: Job, shuffle: ShuffleLog, failures: _Failures | None) -> float:
        """Return when a shuffle may be persisted: not while its job has no right to."""
        if not job.leaves.of(shuffle.key.name, shuffle.key.generation).may_write():
            return float("inf")
        return failures.not_before if failures is not None else float("-inf")

    def _persist(
        self, persister: Persister, job: Job, shuffle: ShuffleLog, action: Persist
    ) -> None:
        frames = shuffle.complete_frames() if action.complete_only else shuffle.frames()
        keys = tables.frame_keys(frames[~shuffle.runs.has(frames)])
        done = partial(self._done, job, shuffle, action)
        outcome = persister.persist(shuffle, keys, trigger=action.trigger, done=done)
        if outcome.progress is None:
            shuffle.note_persisted(frames)

    def _done(
        self, job: Job, shuffle: ShuffleLog, action: Persist, problem: BaseException | None
    ) -> None:
        """Take note of the end of a run; called in its thread."""
        if problem is not None:
            self._failed(shuffle, problem)
            return
        with self._lock:
            before = self._failures.pop(shuffle.key, None)
        if before is not None:
            log.info("persisting works again", shuffle=shuffle.key.name, job=shuffle.key.job)
        if action.then_free:
            self._try(shuffle, partial(self._free, job, shuffle))

    def _free(self, job: Job, shuffle: ShuffleLog) -> None:
        """Drop what the store has; also on a disk that has no room for saying so."""
        frames = shuffle.frames()
        keys = tables.frame_keys(frames[shuffle.runs.has(frames)])
        freed = job.trash.free(partial(shuffle.free, keys))
        self._worker.metrics.freed_bytes.inc(freed)
        log.info("freed", job=shuffle.key.job, shuffle=shuffle.key.name,
                 generation=shuffle.key.generation, frames=len(keys), disk_bytes=freed)  # fmt: skip

    def _try(self, shuffle: ShuffleLog, work: Callable[[], None]) -> None:
        try:
            work()
        except Gone:  # released, or its job ended, meanwhile
            pass
        except CrossdockError as error:
            self._failed(shuffle, error)

    def _failed(self, shuffle: ShuffleLog, problem: BaseException) -> None:
        """Leave a shuffle alone for a while, longer each time; say so the first time only."""
        if isinstance(problem, Gone | LeaseEnded):
            return
        with self._lock:
            count = self._failures[shuffle.key].count + 1 if shuffle.key in self._failures else 1
            doublings = min(count - 1, _MOST_DOUBLINGS)
            seconds = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0**doublings)
            self._failures[shuffle.key] = _Failures(count, time.monotonic() + seconds)
        if count == 1:
            log.warning(
                "persisting failed and is tried again", job=shuffle.key.job,
                shuffle=shuffle.key.name, generation=shuffle.key.generation, problem=str(problem),
            )  # fmt: skip


def _going_bytes(shuffle: ShuffleLog, persister: Persister) -> int:
    """Return how many bytes of a shuffle are about to go from the disk."""
    progress = persister.under_way(shuffle.key)
    coming = progress.total_bytes if progress and progress.trigger is Trigger.PRESSURE else 0
    return shuffle.space.leaving_bytes + coming
