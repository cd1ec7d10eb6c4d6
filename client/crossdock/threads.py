"""A cluster's threads: what is asked of them once they are closed ends in an error of ours."""

from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from crossdock.errors import Closed

P = ParamSpec("P")
T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """A pool of threads that raises `Closed` when it is closed."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a thread call `fn`."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError as error:
            raise Closed(f"the cluster is closed: {error}") from error

    def close(self) -> None:
        """Drop what has not begun, and wait for the rest. Idempotent."""
        self.shutdown(wait=True, cancel_futures=True)


def result_of(future: Future[T]) -> T:
    """Wait for what a future returns or raises; `Closed` if it was dropped."""
    try:
        return future.result()
    except CancelledError:
        raise Closed("the cluster was closed before this began") from None
