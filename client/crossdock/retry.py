"""Patience: unavailable is not lost, so calls wait, with jitter, until their deadline."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

import tenacity

from crossdock.cancel import Cancel
from crossdock.errors import CrossdockError, Unavailable

T = TypeVar("T")

_FIRST_WAIT_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 3.0
_MAX_DOUBLINGS: Final = 16


def wait_seconds(failures: int, problem: BaseException | None) -> float:
    """Return how long to wait after so many failures in a row: random, and longer each time.

    Never longer than the worker asked for with Retry-After.
    """
    longest = _FIRST_WAIT_SECONDS * 2 ** min(failures - 1, _MAX_DOUBLINGS)
    longest = min(longest, _LONGEST_WAIT_SECONDS)
    if isinstance(problem, Unavailable):
        longest = min(longest, problem.retry_after_seconds)
    return random.uniform(0, longest)  # noqa: S311 -- jitter


class Patience:
    """Patience for a loop that goes on by itself: waits after each failure, up to a deadline."""

    def __init__(self, deadline_seconds: float) -> None:
        self._until = time.monotonic() + deadline_seconds
        self._failures = 0

    def wait_after(self, problem: CrossdockError) -> None:
        """Wait, longer each time, with jitter; raise `problem` once the deadline has passed."""
        if time.monotonic() >= self._until:
            raise problem
        self._failures += 1
        time.sleep(wait_seconds(self._failures, problem))


def patiently(work: Callable[[], T], *, deadline_seconds: float, cancel: Cancel | None = None) -> T:
    """Return what `work` returns; repeat it while it raises `Unavailable`, until the deadline.

    Raises:
        Closed: `cancel` was set; at once, also out of a wait.
    """

    def check_and_work() -> T:
        if cancel is not None:
            cancel.check()
        return work()

    def sleep(seconds: float) -> None:
        if cancel is None:
            time.sleep(seconds)
        else:
            cancel.event.wait(seconds)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Unavailable),
        wait=lambda state: wait_seconds(
            state.attempt_number, state.outcome.exception() if state.outcome else None
        ),
        stop=tenacity.stop_after_delay(deadline_seconds),
        sleep=sleep,
        reraise=True,
    )
    return retrying(check_and_work)
