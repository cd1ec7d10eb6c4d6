"""Patience: unavailable is not lost, so calls wait, with jitter, until their deadline."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

import tenacity

from crossdock.cancel import Cancel, Stop
from crossdock.errors import CrossdockError, Unavailable

T = TypeVar("T")

_FIRST_WAIT_SECONDS: Final = 0.1
LONGEST_WAIT_SECONDS: Final = 3.0
_LONGEST_ASKED_SECONDS: Final = 30.0
"""No worker keeps a client waiting for longer than this."""
_SOON_SECONDS: Final = 1.0
_MAX_DOUBLINGS: Final = 16


def wait_seconds(failures: int, problem: BaseException | None) -> float:
    """Return how long to wait after so many failures in a row: random, and longer each time.

    A worker that asks for more than a second, the least that it can say, has that wait, and the
    random one comes on top. Else it is never longer than the worker asked for.
    """
    longest = _FIRST_WAIT_SECONDS * 2 ** min(failures - 1, _MAX_DOUBLINGS)
    longest = min(longest, LONGEST_WAIT_SECONDS)
    least = 0.0
    if isinstance(problem, Unavailable):
        asked = problem.retry_after_seconds
        if asked > _SOON_SECONDS:
            least = min(asked, _LONGEST_ASKED_SECONDS)
        else:
            longest = min(longest, asked)
    return least + random.uniform(0, longest)  # noqa: S311 -- jitter


class Patience:
    """Patience for a loop that goes on by itself: waits after each failure, up to a deadline."""

    def __init__(self, deadline_seconds: float, cancel: Cancel | None = None) -> None:
        """Begin. Args: `cancel` ends waits, with `Closed`."""
        self._until = time.monotonic() + deadline_seconds
        self._failures = 0
        self._cancel = cancel

    def wait_after(self, problem: CrossdockError) -> None:
        """Wait, longer each time, with jitter; raise `problem` once the deadline has passed."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise problem
        self._failures += 1
        seconds = min(left, wait_seconds(self._failures, problem))
        if self._cancel is None:
            time.sleep(seconds)
        elif self._cancel.event.wait(seconds):
            self._cancel.check()


def patiently(work: Callable[[], T], *, deadline_seconds: float, cancel: Stop | None = None) -> T:
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

    def wait(state: tenacity.RetryCallState) -> float:
        problem = state.outcome.exception() if state.outcome else None
        left = deadline_seconds - (state.seconds_since_start or 0.0)
        return min(max(0.0, left), wait_seconds(state.attempt_number, problem))

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Unavailable),
        wait=wait,
        stop=tenacity.stop_after_delay(deadline_seconds),
        sleep=sleep,
        reraise=True,
    )
    return retrying(check_and_work)
