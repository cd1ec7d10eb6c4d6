"""How fast a store may be asked: learnt from its refusals, of whatever verb.

Requests go unhindered until the first 503 or 429. Then the rate is cut to half of what was sent,
and rises again by a fixed step for each second in which requests succeed (additive increase,
multiplicative decrease, as in TCP), until it is so high that it is no limit.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from crossdock.cancel import Stop
from crossdock.store.errors import StoreUnavailable

DECREASE: Final = 0.5
MIN_RATE: Final = 4.0
"""Requests a second that are always tried, to notice when the store is well again."""
MAX_RATE: Final = 10_000.0
"""Requests a second beyond which there is no limit: twice what S3 serves for one prefix."""
BURST_SECONDS: Final = 0.1
"""Worth of requests that may go at once after a pause."""

_RISE: Final = 0.1  # of the rate that was refused, each second: back there in five
_MIN_RISE: Final = 2.0  # requests a second, each second
_WINDOW_SECONDS: Final = 1.0
_LONGEST_STEP_SECONDS: Final = 1.0  # a pause is no proof that more would have been served


class Rate:
    """The rule, without a clock. Times are seconds that only grow. Not thread-safe."""

    def __init__(self) -> None:
        self.rate = math.inf
        """Requests a second."""
        self._rise = 0.0
        self._next = -math.inf
        """When the next request may go."""
        self._cut = -math.inf
        """When the rate was cut last."""
        self._raised = -math.inf
        self._sent = 0.0
        """Requests sent, each weighed less the longer ago it was."""
        self._sent_at = -math.inf

    def take(self, now: float, longest: float) -> float | None:
        """Return for how long a request has to wait, or None for longer than `longest`.

        A request that may go is counted as sent at its time.
        """
        at = now
        if self.rate < math.inf:
            free = max(now - BURST_SECONDS, self._next)
            at = max(now, free)
            if at - now > longest:
                return None
            self._next = free + 1 / self.rate
        self._count(now)
        return at - now

    def refused(self, now: float, sent: float) -> None:
        """Take notice that the store would not serve a request that was sent then.

        Those that were under way when the rate was cut say nothing about the new one.
        """
        if sent < self._cut:
            return
        observed = self._sent * math.exp((self._sent_at - now) / _WINDOW_SECONDS) / _WINDOW_SECONDS
        refused = min(self.rate, max(observed, MIN_RATE))
        self.rate = max(MIN_RATE, refused * DECREASE)
        self._rise = max(_MIN_RISE, refused * _RISE)
        self._cut = self._raised = now
        self._next = now + 1 / self.rate

    def served(self, now: float) -> None:
        """Take notice that the store served a request."""
        if self.rate == math.inf:
            return
        self.rate += self._rise * min(max(0.0, now - self._raised), _LONGEST_STEP_SECONDS)
        self._raised = now
        if self.rate > MAX_RATE:
            self.rate = math.inf

    def _count(self, now: float) -> None:
        self._sent = 1 + self._sent * math.exp((self._sent_at - now) / _WINDOW_SECONDS)
        self._sent_at = now


class Throttle:
    """The rate of one bucket and prefix, shared by all threads that ask it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rate = Rate()

    @property
    def rate(self) -> float:
        """Requests a second that are let through now."""
        with self._lock:
            return self._rate.rate

    def wait(self, longest: float, cancel: Stop) -> float:
        """Wait for a request's turn; return the time at which it goes.

        Raises:
            StoreUnavailable: its turn would come later than `longest` seconds from now.
            Closed: `cancel` was set.
        """
        cancel.check()
        with self._lock:
            now = self._clock()
            seconds = self._rate.take(now, longest)
        if seconds is None:
            raise StoreUnavailable(
                f"the store throttles: more requests wait than it serves in {longest:.1f} s"
            )
        if seconds:
            cancel.event.wait(seconds)
            cancel.check()
        return now + seconds

    def refused(self, sent: float) -> None:
        """Take notice of a 503 or 429 for a request that went at this time."""
        with self._lock:
            self._rate.refused(self._clock(), sent)

    def served(self) -> None:
        """Take notice of an answer that was neither."""
        with self._lock:
            self._rate.served(self._clock())
