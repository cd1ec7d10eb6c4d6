"""A queue of keys: each once, of those that are due the most urgent, again later if it failed."""

import asyncio
import heapq
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

FIRST_SECONDS: Final = 0.5
MOST_SECONDS: Final = 300.0
"""Longest pause between two tries of a key that fails."""

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much there is to do."""

    due: int
    """Keys that wait for a taker."""
    later: int
    """Keys that are not due yet."""
    taken: int
    """Keys that are being worked on."""
    oldest_seconds: float
    """For how long a key has been due."""
    stalled_seconds: float
    """For how long keys have been due while none was taken or done."""


def pause_seconds(failures: int, jitter: float) -> float:
    """Return how long a key waits that failed so often in a row.

    Args:
        failures: 1 or more.
        jitter: from 0 to 1.
    """
    pause = FIRST_SECONDS * 2.0 ** min(failures - 1, 30)
    return float(min(pause, MOST_SECONDS) * (0.5 + jitter / 2))


class Queue(Generic[K]):
    """Keys to be worked on, by any number of takers. A key is with one taker at a time."""

    def __init__(
        self,
        clock: Callable[[], float],
        jitter: Callable[[], float] = random.random,
        *,
        rank: Callable[[K], int] = lambda _: 0,
    ) -> None:
        """Begin empty.

        Args:
            clock: seconds of the event loop.
            jitter: from 0 to 1.
            rank: of several keys that are due, one of the lowest rank is taken.
        """
        self._clock = clock
        self._jitter = jitter
        self._rank = rank
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        """All keys, by when they are due; entries that do not count any more are passed over."""
        self._ready: list[tuple[int, float, int, K]] = []
        """Those that were due when somebody looked, by rank."""
        self._order = itertools.count()
        self._taken: set[K] = set()
        self._again: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()
        self._progress = clock()

    def __len__(self) -> int:
        """Return how many keys wait or are being worked on."""
        return len(self._due) + len(self._taken)

    def depth(self) -> Depth:
        """Return how much there is to do now."""
        now = self._clock()
        due = [at for at in self._due.values() if at <= now]
        oldest = now - min(due, default=now)
        return Depth(
            due=len(due),
            later=len(self._due) - len(due),
            taken=len(self._taken),
            oldest_seconds=oldest,
            stalled_seconds=min(oldest, now - self._progress),
        )

    def add(self, key: K, *, after_seconds: float = 0.0) -> None:
        """Have a key worked on, at the latest after so long.

        One that is being worked on comes again when that is done.
        """
        at = self._clock() + after_seconds
        if key in self._taken:
            self._again[key] = min(at, self._again.get(key, at))
        elif at < self._due.get(key, float("inf")):
            self._due[key] = at
            heapq.heappush(self._heap, (at, next(self._order), key))
            self._changed.set()

    def forget(self, key: K) -> None:
        """Drop a key of what is no longer there."""
        self._due.pop(key, None)
        self._again.pop(key, None)
        self._failures.pop(key, None)

    @asynccontextmanager
    async def taking(self) -> AsyncIterator[K]:
        """Wait for a key, and give it; one whose work raises comes again after a pause."""
        key = await self._next()
        try:
            yield key
        except Exception:
            self._failures[key] = self._failures.get(key, 0) + 1
            self._done(key)
            self.add(key, after_seconds=pause_seconds(self._failures[key], self._jitter()))
            raise
        except BaseException:
            self._done(key)
            raise
        self._failures.pop(key, None)
        self._done(key)

    def _done(self, key: K) -> None:
        """Let the key be taken again: soon, if there was news of it meanwhile."""
        self._taken.discard(key)
        self._progress = self._clock()
        again = self._again.pop(key, None)
        if again is not None:
            self.add(key, after_seconds=max(0.0, again - self._clock()))

    async def _next(self) -> K:
        while True:
            self._changed.clear()
            wait = self._sort_out_due()
            while self._ready:
                _, at, _, key = heapq.heappop(self._ready)
                if self._due.get(key) != at:  # it was taken, or forgotten
                    continue
                del self._due[key]
                self._taken.add(key)
                self._progress = self._clock()
                return key
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _sort_out_due(self) -> float | None:
        """Sort by rank what is due now; return the seconds until the next one is."""
        while self._heap:
            at, order, key = self._heap[0]
            if self._due.get(key) != at:  # it was moved forward, or forgotten
                heapq.heappop(self._heap)
                continue
            if at > self._clock():
                return at - self._clock()
            heapq.heappop(self._heap)
            heapq.heappush(self._ready, (self._rank(key), at, order, key))
        return None
