"""One operator process: watches, leads or waits, reconciles."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import structlog

from crossdock.errors import ConfigError
from crossdock_operator.calls import call_of
from crossdock_operator.ending.parts import Endings, endings
from crossdock_operator.errors import ApiUnavailable, NotAllowed, Vanished
from crossdock_operator.health import Pulse, Signs, problems
from crossdock_operator.intake import Intake
from crossdock_operator.jobs.losses import Losses
from crossdock_operator.jobs.owners import Owners
from crossdock_operator.jobs.tools import LOOK_SECONDS, Tools
from crossdock_operator.jobs.usages import Usages
from crossdock_operator.jobs.workers import Workers
from crossdock_operator.kinds import SHUFFLE_CLUSTER, Kind
from crossdock_operator.kube import Kube, Told
from crossdock_operator.leader import LEASE_NAME, Leadership
from crossdock_operator.leavers import Leavers
from crossdock_operator.metrics import Gauge, Metrics
from crossdock_operator.monitors import Monitors
from crossdock_operator.page.asking import Asking
from crossdock_operator.page.pages import Page
from crossdock_operator.page.reviews import Reviews
from crossdock_operator.plan.cluster import Given
from crossdock_operator.plan.owners import ALWAYS, OwnerKind
from crossdock_operator.plan.tally import tally
from crossdock_operator.plan.targets import SCALABLE
from crossdock_operator.queue import Queue
from crossdock_operator.reconcile import Reconciler
from crossdock_operator.reconcile_job import JobReconciler
from crossdock_operator.records import Item
from crossdock_operator.resync import Resync
from crossdock_operator.scaling.executors import ExecutorScaler
from crossdock_operator.scaling.polls import Polls
from crossdock_operator.scaling.workers import WorkerScaler
from crossdock_operator.secrets_of_clusters import ClusterSecrets
from crossdock_operator.serving import Answers, serving
from crossdock_operator.store import Store
from crossdock_operator.takers import Reconcilers, Takers
from crossdock_operator.watches import Watches
from crossdock_operator.wiring import WATCHED, watch

TAKERS: Final = 4
"""Objects that are reconciled at once."""
_LOOKS: Final = 4
"""Of them pass before keys and authorities of clusters are read again."""
_PAUSE_SECONDS: Final = 2.0
"""Between two looks at an API server that does not answer when the operator starts."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of an operator process."""

    kubeconfig: Path | None
    """Credentials; None: those of the pod."""
    namespace: str
    """Where the operator runs, and its Lease is."""
    namespaces: tuple[str, ...] = ()
    """Those whose objects are looked after; none: all."""
    worker_image: str
    worker_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets for the registry, in the namespaces of clusters."""
    host: str
    port: int
    """Where health and metrics are served; 0 takes a free one."""
    resolve: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    """By namespace and name of a cluster, URLs of its workers; default: its Service."""
    owner_kinds: tuple[OwnerKind, ...] = ()
    """Kinds that may own jobs, beside pods and Jobs."""
    look_seconds: float = LOOK_SECONDS
    """Between two looks at what no watch tells."""
    page: bool = True
    """Whether the page for people is served, too."""
    scalable: tuple[Kind, ...] = SCALABLE
    """Kinds that executors of attached jobs may be."""


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        LeadershipLost: another operator leads; end at once.
        ConfigError: the CRDs are not there, or a setting is wrong.
    """
    metrics = Metrics()

    def told(method: str, url: str, status: int) -> None:
        metrics.called(call_of(method, url), status)

    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(await Kube.connect(settings.kubeconfig, told=told))
        lease = await stack.enter_async_context(await Kube.connect(settings.kubeconfig, told=told))
        leadership = Leadership(
            lease, namespace=settings.namespace, name=LEASE_NAME,
            identity=f"{socket.gethostname()}-{secrets.token_hex(4)}",
        )  # fmt: skip
        known = _Known.empty()
        ends = await stack.enter_async_context(
            endings(
                kube,
                known.store,
                namespace=settings.namespace,
                watched=settings.namespaces,
                resolve=settings.resolve,
                epoch=lambda: leadership.epoch,
                again=known.wake,
            )
        )
        operator = _Operator(settings, kube, leadership, metrics, known, ends)
        stack.callback(operator.close)
        answers = operator.answers
        if settings.page:
            page = await stack.enter_async_context(_page(settings, known.store, told))
            answers = replace(answers, more=page.add_to)
        await stack.enter_async_context(serving(answers, host=settings.host, port=settings.port))
        await _look_for_crds(kube, settings.namespaces)
        # kopf's end cancels what was begun after it: so all tasks are begun here, and it last.
        await _first(
            *operator.tasks(),
            watch(
                kube, operator.intake, operator.watches,
                namespaces=settings.namespaces, told=told,
            ),
        )  # fmt: skip
        await operator.leave()


@asynccontextmanager
async def _page(settings: Settings, store: Store, told: Told) -> AsyncIterator[Page]:
    """Make the page. Its calls hold up nothing else, and need no Lease: they change nothing."""
    async with await Kube.connect(settings.kubeconfig, told=told) as kube:
        asking = Asking(Workers(kube, settings.resolve))
        try:
            yield Page(store, Reviews(kube), asking)
        finally:
            asking.close()


@dataclass(frozen=True, slots=True)
class _Known:
    """What was seen, and what of it is to be looked at."""

    store: Store
    queue: Queue[Item]

    @classmethod
    def empty(cls) -> Self:
        # Clusters are few, and thousands of jobs may be due.
        clock = asyncio.get_running_loop().time
        return cls(Store(), Queue(clock, rank=lambda item: item.kind != SHUFFLE_CLUSTER.name))

    def wake(self, item: Item, seconds: float) -> None:
        """Have an object looked at after so long."""
        self.queue.add(item, after_seconds=seconds)


class _Operator:
    """The parts of an operator, put together."""

    def __init__(  # noqa: PLR0917 -- it puts them together
        self,
        settings: Settings,
        kube: Kube,
        leadership: Leadership,
        metrics: Metrics,
        known: _Known,
        ends: Endings,
    ) -> None:
        self._leadership = leadership
        self._ends = ends
        self._pulse = Pulse(time.monotonic)
        self._store, self._queue = known.store, known.queue
        self.intake = Intake(self._store, self._queue)
        namespaces = settings.namespaces or ("",)
        self._resync = Resync(kube, self.intake, metrics, WATCHED, namespaces)
        kube.before_write = leadership.check
        self._workers = Workers(
            kube, settings.resolve, fresh_seconds=_LOOKS * settings.look_seconds
        )
        tools = Tools(
            kube, self._store, self._workers, wake=known.wake, look_seconds=settings.look_seconds
        )
        self._owners = Owners(tools, (*ALWAYS, *settings.owner_kinds))
        self._usages, self._losses = Usages(tools), Losses(tools, lambda: leadership.epoch)
        self._polls = Polls(self._workers, self._store, known.wake)
        scaler = ExecutorScaler(tools, self._polls, settings.scalable)
        self._jobs = JobReconciler(tools, ends.jobs, scaler, self._owners, self._usages)
        given = Given(
            worker_image=settings.worker_image,
            namespace=settings.namespace,
            pull_secrets=settings.worker_pull_secrets,
        )
        self._takers = Takers(
            Reconcilers(
                self._store,
                clusters=Reconciler(
                    kube,
                    self._store,
                    given,
                    ends.clusters,
                    ends.checks,
                    ClusterSecrets(kube, self._store),
                    self._usages,
                    self._losses,
                    WorkerScaler(kube, self._polls),
                    Monitors(kube, self._store, self._workers.signing_key, known.wake),
                    Leavers(kube, known.wake),
                    known.wake,
                ),
                jobs=self._jobs,
            ),
            self._queue,
            leadership,
            metrics,
            self._resync.warm,
        )
        self.watches = Watches(
            (kind.plural for kind in WATCHED),
            namespaces,
            clock=time.monotonic,
            relisted=self._resync.ask,
        )
        self.answers = Answers(metrics.registry, self._problems, self._waits_for)
        metrics.show(self._gauges)

    def tasks(self) -> list[Coroutine[None, None, None]]:
        """Return what runs beside the watches; none of it ends by itself."""
        takers = [self._takers.take() for _ in range(TAKERS)]
        looks = [self._owners.run, self._usages.run, self._losses.run, self._polls.run]
        once_it_leads = [self._when_it_leads(run) for run in (*looks, self._ends.tidying.run)]
        return [self._lead(), self._pulse.beat(), self._resync.run(), *once_it_leads, *takers]

    def close(self) -> None:
        """Let go of workers and jobs: tasks go on, and another operator with them."""
        self._workers.close()
        self._jobs.close()

    async def leave(self) -> None:
        """Give leadership up, if this operator has it."""
        if self._leadership.leads:
            await self._leadership.release()

    async def _lead(self) -> None:
        await self._leadership.acquire()
        await self._leadership.hold()

    async def _when_it_leads(self, run: Callable[[], Coroutine[None, None, None]]) -> None:
        await self._leadership.led()
        await run()

    def _problems(self) -> list[str]:
        depth = self._queue.depth()
        return problems(
            Signs(
                lag_seconds=self._pulse.lag_seconds,
                stalled_seconds=depth.stalled_seconds if self._leadership.leads else 0.0,
                watch_ages=self.watches.ages(),
            )
        )

    def _waits_for(self) -> list[str]:
        all_known = self._resync.warm.is_set() and self.watches.complete
        return [] if all_known else ["not all objects were listed yet"]

    def _gauges(self) -> list[Gauge]:
        depth = self._queue.depth()
        items = {"due": depth.due, "later": depth.later, "taken": depth.taken}
        ages = self.watches.ages()
        known = tally(self._store.clusters.values(), self._store.jobs.values(), time.time())
        return [
            Gauge("queue_items", "Objects to look at, by state.", items, label="state"),
            Gauge("queue_oldest_seconds", "For how long one is due.", {"": depth.oldest_seconds}),
            Gauge("watch_age_seconds", "Since a watch asked.", ages, label="resource"),
            Gauge("leader", "1 if this operator acts.", {"": self._leadership.leads}),
            Gauge("objects", "Objects that are known.", self._store.counts(), label="kind"),
            Gauge("loop_lag_seconds", "Of the event loop.", {"": self._pulse.lag_seconds}),
            Gauge(
                "clusters_failing",
                "ShuffleClusters that are not well, by condition that says so.",
                known.failing,
                label="condition",
            ),
            Gauge("orphans", "Things of no job that the last audits left.", {"": known.orphans}),
            Gauge("orphan_bytes", "Their bytes.", {"": known.orphan_bytes}),
            Gauge(
                "deleting_seconds",
                "For how long the one that has waited longest is being deleted, by kind.",
                known.deleting_seconds,
                label="kind",
            ),
        ]


async def _look_for_crds(kube: Kube, namespaces: tuple[str, ...]) -> None:
    """Fail if they are not there: kopf would watch nothing, and say nothing.

    Waits for an API server that does not answer, or does not let this operator in.
    """
    for namespace in namespaces or ("",):
        while True:
            try:
                async with aclosing(kube.every(SHUFFLE_CLUSTER, namespace, page=1)) as found:
                    await anext(found, None)
                break
            except Vanished as error:
                raise ConfigError(
                    "the API server does not know ShuffleClusters", hint="kubectl apply -f crds/"
                ) from error
            except (
                ApiUnavailable,
                NotAllowed,
            ) as error:  # one that has just started knows no roles
                log.warning("the API server does not let us in", error=str(error))
                await asyncio.sleep(_PAUSE_SECONDS)


async def _first(*parts: Coroutine[None, None, None]) -> None:
    """Run several; the first one to end ends all, and its error is raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
