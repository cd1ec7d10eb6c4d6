"""Takes what is to be looked at from the queue, and has it looked at."""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from crossdock.errors import CrossdockError
from crossdock_operator.errors import Stale
from crossdock_operator.kinds import SHUFFLE_JOB
from crossdock_operator.leader import Leadership, LeadershipLost
from crossdock_operator.metrics import Metrics, Outcome
from crossdock_operator.queue import Queue
from crossdock_operator.reconcile import Reconciler
from crossdock_operator.reconcile_job import JobReconciler
from crossdock_operator.records import Item
from crossdock_operator.store import Store

AGAIN_SECONDS: Final = 600.0
"""After so long an object is looked at, whatever was seen of it."""
LONGEST_SECONDS: Final = 600.0
"""For so long one look may take; each call has a limit of its own."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reconcilers:
    """Of each kind, its own."""

    store: Store
    clusters: Reconciler
    jobs: JobReconciler

    async def reconcile(self, item: Item) -> None:
        """Do for an object what is to be done now; `CrossdockError` if not all was done."""
        if item.kind == SHUFFLE_JOB.name:
            await self.jobs.reconcile(item.key)
        else:
            await self.clusters.reconcile(item.key)

    def knows(self, item: Item) -> bool:
        """Return whether the object is there."""
        known = self.store.jobs if item.kind == SHUFFLE_JOB.name else self.store.clusters
        return item.key in known


@dataclass(frozen=True, slots=True)
class Takers:
    """Work while this operator leads."""

    reconcilers: Reconcilers
    queue: Queue[Item]
    leadership: Leadership
    metrics: Metrics
    warm: asyncio.Event
    """Set when all objects are known."""

    async def take(self) -> None:
        """Look at one object after the other, for ever; one that fails comes again, later.

        Raises:
            LeadershipLost: another operator may lead. Stop at once.
        """
        await self.warm.wait()
        await self.leadership.led()
        while True:
            try:
                async with self.queue.taking() as item:
                    with self.metrics.reconciling(item.kind) as outcome:
                        await self._look_at(item, outcome)
            except LeadershipLost:
                raise
            except (CrossdockError, TimeoutError):
                continue  # it was told
            except Exception:  # one object must not stop the others
                log.exception("a fault of the operator; tried again later", item=item)

    async def _look_at(self, item: Item, outcome: Outcome) -> None:
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                await self.reconcilers.reconcile(item)
        except Stale as error:
            outcome.word = "stale"
            log.debug("somebody was faster", item=item, error=str(error))
            raise
        except LeadershipLost:
            raise
        except (CrossdockError, TimeoutError) as error:
            outcome.word = "failed"
            log.warning("not done, and tried again", item=item, error=str(error))
            raise
        outcome.word = "done"
        if self.reconcilers.knows(item):
            self.queue.add(item, after_seconds=AGAIN_SECONDS)
        else:
            self.queue.forget(item)
