"""Shuffles of a staged job that go before its end: `releaseShuffles: WhenConsumed`."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from crossdock.errors import ConfigError, ShuffleReleased
from crossdock.job import Job as Handle
from crossdock.jobfile.model import ShuffleJob, ShuffleOutput
from crossdock.stages.actions import Actions
from crossdock.stages.releasing import Releasing
from crossdock_operator.jobs.telling import Teller
from crossdock_operator.jobs.tools import Tools
from crossdock_operator.records import Item, Job

LOOK_SECONDS: Final = 2.0
"""After so long workers are asked again how far they are with persisting."""

T = TypeVar("T")


@dataclass(slots=True)
class Consuming:
    """Of one job that is under way. Used by one reconcile at a time."""

    tools: Tools
    item: Item
    model: ShuffleJob
    actions: Actions
    handle: Handle
    releasing: Releasing
    _asked: set[str] = field(default_factory=set)
    """Stages about which workers are being asked."""
    _not_before: dict[str, float] = field(default_factory=dict)
    """By stage, when workers are asked again; seconds since 1970."""
    _refused: set[str] = field(default_factory=set)
    """Stages whose output cannot go to the store."""
    _news: list[tuple[str, str, bool]] = field(default_factory=list)
    """What is to be told: reason, message, whether it is a warning."""

    async def advance(self, job: Job, teller: Teller, now: float) -> None:
        """Have workers persist what must be in the store, and drop what nobody needs then."""
        while self._news:
            reason, message, warning = self._news[0]
            await teller.tell(job, reason, message, warning=warning)
            del self._news[0]
        for name in self.releasing.to_secure():
            if self._is_due(name, now):
                call = partial(self.actions.secure, self.model.stage(name))
                self._ask(call, partial(self._secured, name, self.releasing.version(name)), name)
        for name in self.releasing.to_release():
            if self._is_due(name, now):
                self._ask(partial(self._release, name), partial(self._is_released, name), name)

    def _is_due(self, name: str, now: float) -> bool:
        left = self._not_before.get(name, 0.0) - now
        if name in self._refused:
            return False
        if left > 0:
            self.tools.wake(self.item, left)
        elif name not in self._asked:
            self._not_before[name] = now + LOOK_SECONDS
            return True
        return False

    def _ask(
        self, call: Callable[[], T], then: Callable[["asyncio.Future[T]"], None], name: str
    ) -> None:
        self._asked.add(name)

        def heard(future: "asyncio.Future[T]") -> None:
            self._asked.discard(name)
            if not future.cancelled():
                then(future)
                self.tools.wake(self.item, 0.0)

        self.tools.workers.ask(call, heard)

    def _secured(self, name: str, version: int, future: "asyncio.Future[bool]") -> None:
        error = future.exception()
        if isinstance(error, ConfigError):
            said = f"what stage {name} has read stays until the job's end: {error}"
            self._news.append(("ShufflesKept", said, True))
            self._refused.add(name)
        elif error is None and future.result():
            self.releasing.secured(name, version)
        # Else asked again. Lost output is found by who reads it, who runs it again.

    def _release(self, name: str) -> None:
        output = self.model.stage(name).output
        assert isinstance(output, ShuffleOutput), "others read it"
        self.handle.shuffle(name, partitions=output.partitions).release()

    def _is_released(self, name: str, future: "asyncio.Future[None]") -> None:
        error = future.exception()
        if error is None or isinstance(error, ShuffleReleased):
            self.releasing.released(name)
            self._news.append(
                ("ShuffleReleased", f"the shuffle of stage {name} is consumed and released", False)
            )
