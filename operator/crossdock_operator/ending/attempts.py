"""Long work beside the reconciling: an attempt at a time for each object, later after a failure."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import structlog

from crossdock.errors import CrossdockError
from crossdock_operator.queue import pause_seconds
from crossdock_operator.records import Item

AT_ONCE: Final = 128
"""Attempts of one group under way; others wait for their turn."""

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(slots=True)
class Attempt(Generic[T]):
    """What is known of the work for one object."""

    tag: str
    """What the work is about; work about something else begins anew."""
    task: asyncio.Task[None] | None = None
    """While it is under way."""
    result: T | None = None
    problem: CrossdockError | None = None
    """Of the last attempt that failed, or what this one waits for; stays until one succeeds."""
    failures: int = 0
    not_before: float = 0.0
    """On the event loop's clock."""

    @property
    def ended(self) -> bool:
        """Whether one was made, well or not, and none is under way."""
        return self.task is None and (self.result is not None or self.failures > 0)


@dataclass(slots=True)
class Attempts(Generic[T]):
    """Of the event loop alone. Close it."""

    again: Callable[[Item, float], None]
    """Has an object looked at after so many seconds."""
    at_once: int = AT_ONCE
    _known: dict[Item, Attempt[T]] = field(default_factory=dict)
    _slots: dict[str, asyncio.Semaphore] = field(default_factory=dict)

    def look(
        self, item: Item, tag: str, work: Callable[[], Coroutine[Any, Any, T]], *, group: str
    ) -> Attempt[T]:
        """Return how far the work for an object is; begin it, if it is time.

        The object is looked at again when an attempt ends, and when the next one is due.

        Args:
            item: the object.
            tag: what the work is about.
            work: does it once; raises `CrossdockError` where it is to be tried again.
            group: of objects that may hold each other up: those of one store, which may be away.
        """
        attempt = self._known.get(item)
        if attempt is None or attempt.tag != tag:
            self.forget(item)
            attempt = self._known[item] = Attempt(tag)
        if attempt.task is not None or attempt.result is not None:
            return attempt
        wait = attempt.not_before - asyncio.get_running_loop().time()
        if wait > 0:
            self.again(item, wait)
        else:
            attempt.task = asyncio.get_running_loop().create_task(
                self._try(item, attempt, work, group)
            )
        return attempt

    def note(self, item: Item, problem: CrossdockError) -> None:
        """Note what an attempt waits for while it is under way."""
        attempt = self._known.get(item)
        if attempt is not None and attempt.task is not None:
            attempt.problem = problem
            self.again(item, 0.0)

    def forget(self, item: Item) -> None:
        """Drop what is known of an object, and give up what is under way."""
        attempt = self._known.pop(item, None)
        if attempt is not None and attempt.task is not None:
            attempt.task.cancel()

    async def _try(
        self,
        item: Item,
        attempt: Attempt[T],
        work: Callable[[], Coroutine[Any, Any, T]],
        group: str,
    ) -> None:
        slots = self._slots.setdefault(group, asyncio.Semaphore(self.at_once))
        try:
            async with slots:
                attempt.result = await work()
            attempt.problem, attempt.failures = None, 0
        except CrossdockError as error:
            _failed(attempt, error)
        except Exception as error:
            log.exception("a defect", item=item)  # said in the status too, and the others go on
            _failed(attempt, CrossdockError(f"{type(error).__name__}: {error}"))
        attempt.task = None
        self.again(item, 0.0)

    async def close(self) -> None:
        """Give up all that is under way."""
        tasks = [a.task for a in self._known.values() if a.task is not None]
        self._known.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _failed(attempt: Attempt[T], problem: CrossdockError) -> None:
    attempt.problem = problem
    attempt.failures += 1
    pause = pause_seconds(attempt.failures, random.random())  # noqa: S311 -- jitter
    attempt.not_before = asyncio.get_running_loop().time() + pause
