"""One operator process: watches, leads or waits, reconciles."""

import asyncio
import secrets
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from crossdock.errors import ConfigError, CrossdockError
from crossdock_operator.ending.parts import endings
from crossdock_operator.errors import Stale, Vanished
from crossdock_operator.jobs.tools import Tools
from crossdock_operator.jobs.workers import Workers
from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB
from crossdock_operator.kube import Kube
from crossdock_operator.leader import Leadership
from crossdock_operator.plan.cluster import Given
from crossdock_operator.queue import Queue
from crossdock_operator.reconcile import Reconciler
from crossdock_operator.reconcile_job import JobReconciler
from crossdock_operator.records import Item
from crossdock_operator.secrets_of_clusters import ClusterSecrets
from crossdock_operator.store import Store
from crossdock_operator.wiring import watch

TAKERS: Final = 4
"""Objects that are reconciled at once."""
RESYNC_SECONDS: Final = 600.0
"""After so long an object is looked at, whatever was seen of it."""
LEASE_NAME: Final = "crossdock-operator"

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
    resolve: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    """By namespace and name of a cluster, URLs of its workers; default: its Service."""


@dataclass(frozen=True, slots=True)
class Reconcilers:
    """Of each kind, its own."""

    store: Store
    clusters: Reconciler
    jobs: JobReconciler

    async def reconcile(self, item: Item) -> None:
        """Do for an object what is to be done now; `KubeError` as `Reconciler.reconcile`."""
        if item.kind == SHUFFLE_JOB.name:
            await self.jobs.reconcile(item.key)
        else:
            await self.clusters.reconcile(item.key)

    def knows(self, item: Item) -> bool:
        """Return whether the object is there."""
        known = self.store.jobs if item.kind == SHUFFLE_JOB.name else self.store.clusters
        return item.key in known


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        LeadershipLost: another operator leads; end at once.
        ConfigError: the CRDs are not there.
    """
    store, queue = Store(), Queue[Item](asyncio.get_running_loop().time)
    identity = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    given = Given(worker_image=settings.worker_image, namespace=settings.namespace)
    async with await Kube.connect(settings.kubeconfig) as kube:
        await _look_for_crds(kube, settings.namespaces)
        leadership = Leadership(
            kube, namespace=settings.namespace, name=LEASE_NAME, identity=identity
        )
        leads = asyncio.Event()

        def again(item: Item, seconds: float) -> None:
            queue.add(item, after_seconds=seconds)

        workers = Workers(kube, settings.resolve)
        async with endings(
            kube,
            store,
            namespace=settings.namespace,
            watched=settings.namespaces,
            resolve=settings.resolve,
            number=lambda: leadership.transitions,
            again=again,
        ) as ends:
            jobs = JobReconciler(Tools(kube, store, workers, wake=again), ends.jobs)
            reconcilers = Reconcilers(
                store,
                clusters=Reconciler(
                    kube,
                    store,
                    given,
                    ends.clusters,
                    ends.checks,
                    ClusterSecrets(kube, store),
                    again,
                ),
                jobs=jobs,
            )
            # kopf's end cancels what was begun after it: so all tasks are begun here, and it last.
            try:
                await _first(
                    _lead(leadership, leads),
                    _once_leading(leads, ends.tidying.run),
                    *(_take(reconcilers, queue, leads) for _ in range(TAKERS)),
                    watch(store, queue, namespaces=settings.namespaces),
                )
            finally:
                workers.close()
                jobs.close()
        if leads.is_set():
            await leadership.release()


async def _look_for_crds(kube: Kube, namespaces: tuple[str, ...]) -> None:
    """Fail if they are not there: kopf would watch nothing, and say nothing."""
    for namespace in namespaces or ("",):
        try:
            async with aclosing(kube.every(SHUFFLE_CLUSTER, namespace, page=1)) as found:
                await anext(found, None)
        except Vanished as error:
            raise ConfigError(
                "the API server does not know ShuffleClusters", hint="kubectl apply -f crds/"
            ) from error


async def _lead(leadership: Leadership, leads: asyncio.Event) -> None:
    await leadership.acquire()
    leads.set()
    await leadership.hold()


async def _once_leading(
    leads: asyncio.Event, work: Callable[[], Coroutine[None, None, None]]
) -> None:
    await leads.wait()
    await work()


async def _take(reconcilers: Reconcilers, queue: Queue[Item], leads: asyncio.Event) -> None:
    await leads.wait()
    while True:
        with suppress(CrossdockError):  # it was told, and comes again
            async with queue.taking() as item:
                await _reconcile(reconcilers, queue, item)


async def _reconcile(reconcilers: Reconcilers, queue: Queue[Item], item: Item) -> None:
    try:
        await reconcilers.reconcile(item)
    except Stale as error:
        log.debug("somebody was faster", item=item, error=str(error))
        raise
    except CrossdockError as error:
        log.warning("not done, and tried again", item=item, error=str(error))
        raise
    if reconcilers.knows(item):
        queue.add(item, after_seconds=RESYNC_SECONDS)
    else:
        queue.forget(item)


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
