"""Patience: unavailable is not lost, so calls wait, with jitter, until their deadline."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

import tenacity

from crossdock.errors import CrossdockError, Unavailable

T = TypeVar("T")

_FIRST_WAIT_SECONDS: Final = 0.05
_LONGEST_WAIT_SECONDS: Final = 3.0

_backoff = tenacity.wait_random_exponential(
    multiplier=2 * _FIRST_WAIT_SECONDS, max=_LONGEST_WAIT_SECONDS
)


def _wait(state: tenacity.RetryCallState) -> float:
    """Back off, but never longer than the worker asked for with Retry-After."""
    error = state.outcome.exception() if state.outcome else None
    seconds = _backoff(state)
    if isinstance(error, Unavailable):
        return min(seconds, error.retry_after_seconds)
    return seconds


class Patience:
    """Patience for a loop that goes on by itself: waits after each failure, up to a deadline."""

    def __init__(self, deadline_seconds: float) -> None:
        self._until = time.monotonic() + deadline_seconds
        self._failures = 0

    def wait_after(self, problem: CrossdockError) -> None:
        """Wait, longer each time, with jitter; raise `problem` once the deadline has passed."""
        if time.monotonic() >= self._until:
            raise problem
        longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**self._failures)
        if isinstance(problem, Unavailable):
            longest = min(longest, problem.retry_after_seconds)
        self._failures = min(self._failures + 1, 16)
        time.sleep(random.uniform(0, longest))  # noqa: S311 -- jitter


def patiently(work: Callable[[], T], *, deadline_seconds: float) -> T:
    """Return what `work` returns; repeat it while it raises `Unavailable`, until the deadline."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Unavailable),
        wait=_wait,
        stop=tenacity.stop_after_delay(deadline_seconds),
        reraise=True,
    )
    return retrying(work)
