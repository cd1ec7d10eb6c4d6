"""Patience: unavailable is not lost, so calls wait, with jitter, until their deadline."""

from collections.abc import Callable
from typing import Final, TypeVar

import tenacity

from crossdock.errors import Unavailable

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


def patiently(work: Callable[[], T], *, deadline_seconds: float) -> T:
    """Return what `work` returns; repeat it while it raises `Unavailable`, until the deadline."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Unavailable),
        wait=_wait,
        stop=tenacity.stop_after_delay(deadline_seconds),
        reraise=True,
    )
    return retrying(work)
