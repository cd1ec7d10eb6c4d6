"""Lists beside the watches: what a watch missed is found, at the latest at the next list.

A watch that was cut for too long begins with a list, in which deleted objects are not; nobody says
that they went. And a watch may die in silence. So all is compared with lists now and then, and at
once where a watch began with one. The first time it makes the store warm: nothing is decided on the
half of what is there.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from crossdock_operator.errors import KubeError
from crossdock_operator.guard import apart
from crossdock_operator.intake import Intake
from crossdock_operator.kinds import Kind
from crossdock_operator.kube import Kube
from crossdock_operator.metrics import Metrics
from crossdock_operator.store import item_of

EVERY_SECONDS: Final = 600.0
_PAGE: Final = 200

log = structlog.get_logger()


@dataclass(slots=True)
class Resync:
    """Compares what is known with what is there."""

    kube: Kube
    intake: Intake
    metrics: Metrics
    labels: Mapping[Kind, str]
    """The kinds that are watched, and which of their objects."""
    namespaces: Sequence[str]
    """Those that are watched; "" is all."""
    warm: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all was listed once: what is not known then is not there."""
    _asked: set[tuple[Kind, str]] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, resource: str, namespace: str) -> None:
        """Have the objects of a resource compared soon."""
        self._asked |= {(kind, namespace) for kind in self.labels if kind.plural == resource}
        self._news.set()

    async def run(self) -> None:
        """Compare for ever."""
        clock = asyncio.get_running_loop().time
        again = clock()
        while True:
            try:
                async with asyncio.timeout_at(again):
                    await self._news.wait()
            except TimeoutError:
                again = clock() + EVERY_SECONDS
                self._asked |= {(kind, each) for kind in self.labels for each in self.namespaces}
            self._news.clear()
            while self._asked:
                await self._try(*self._asked.pop())
            self.warm.set()

    async def _try(self, kind: Kind, namespace: str) -> None:
        try:
            await self.compare(kind, namespace)
        except KubeError as error:
            log.warning("no list to compare with", kind=kind.name, error=str(error))
            await asyncio.sleep(1)
            self.ask(kind.plural, namespace)

    async def compare(self, kind: Kind, namespace: str) -> None:
        """Take in what a list says and no watch did.

        Raises:
            KubeError: there is no whole list.
        """
        store = self.intake.store
        missing, missed, version = set(store.known(kind.name, namespace)), 0, 0
        async for page in self.kube.pages(kind, namespace, labels=self.labels[kind], page=_PAGE):
            version = version or page.version
            for body in page.objects:
                missing.discard(item_of(kind.name, body))
                if not store.knows(kind.name, body):
                    with apart("takes in an object", kind=kind.name, body=body["metadata"]["name"]):
                        self.intake.saw(kind, body)
                    missed += 1
            await asyncio.sleep(0)  # thousands of objects, and others want to work
        missed += sum(self.intake.lost(item, version) for item in missing)
        if missed and self.warm.is_set():
            log.info("a list told what no watch did", kind=kind.name, objects=missed)
            self.metrics.missed(kind.name, missed)
