"""Workers whose disks are gone for good, told to the workers that are left.

Who is not told waits for such a worker: absence is not loss. The operator knows better. A worker
that answers with another id at the same address has another disk; and where disks are emptyDirs,
one that is in no pod is nowhere. Told of it, tasks that wait fail at once, and what they miss runs
again.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from crossdock.cluster import Cluster as Client
from crossdock.errors import CrossdockError
from crossdock.gossip import Page
from crossdock.survey import Members
from crossdock_operator.events import Events
from crossdock_operator.guard import apart
from crossdock_operator.jobs.tools import Tools
from crossdock_operator.kinds import POD, SHUFFLE_CLUSTER
from crossdock_operator.plan import names
from crossdock_operator.plan.ending import worker_pods
from crossdock_operator.records import Cluster

_PAUSE_SECONDS: Final = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a cluster's workers found."""

    there: frozenset[str]
    """Ids of those that answer."""
    judged: bool = False
    """Whether these are all that can be, and whoever jobs wait for beside them is gone."""
    lost: frozenset[str] = frozenset()
    """Ids of those that this operator has declared gone."""
    suspected: frozenset[str] = frozenset()
    """Ids of those that are in no pod, it seems: declared gone if the next look says so too."""


@dataclass(slots=True)
class Losses:
    """Of all clusters with jobs. Of the event loop's thread."""

    tools: Tools
    epoch: Callable[[], int]
    """Of this leader: workers take no command of an earlier one."""
    _looked: dict[str, Look] = field(default_factory=dict)
    """By uid of the cluster."""
    _ready: dict[str, int] = field(default_factory=dict)
    """By uid of the cluster, how many of its pods were ready."""
    _soon: asyncio.Event = field(default_factory=asyncio.Event)

    def saw(self, cluster: Cluster, ready: int) -> None:
        """Take in how many worker pods are ready: when others are, their disks may be others."""
        if self._ready.get(cluster.uid) != ready:
            self._ready[cluster.uid] = ready
            self._soon.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                async with asyncio.timeout(self.tools.look_seconds):
                    await self._soon.wait()
            except TimeoutError:
                pass  # it is time anyway
            self._soon.clear()
            clusters = self.tools.store.clusters
            known = {cluster.uid for cluster in clusters.values()}
            for kept in (self._looked, self._ready):
                for uid in kept.keys() - known:
                    del kept[uid]
            served = self.tools.served
            here = [c for c in clusters.values() if not c.deleting and served(c.key)]
            await asyncio.gather(*(self._try(cluster) for cluster in here if not cluster.paused))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _try(self, cluster: Cluster) -> None:
        with apart("looks for workers that are gone", cluster=cluster.key):
            try:
                await self._look(cluster)
            except CrossdockError as error:
                log.debug("workers are not looked at", cluster=cluster.key, error=str(error))

    async def _look(self, cluster: Cluster) -> None:
        workers = self.tools.workers
        client = await workers.client(cluster)
        before = self._looked.get(cluster.uid, Look(frozenset()))
        pods = await self._count_pods(cluster)
        room = None if pods is None else pods * max(1, cluster.spec.workers.processes)
        found = await workers.asked(partial(look, client, before, room, self.epoch()))
        if found.lost - before.lost:
            gone = ", ".join(sorted(found.lost - before.lost))
            said = f"the disks of these workers are gone for good: {gone}"
            log.warning(said, cluster=cluster.key)
            await Events(self.tools.kube).tell(
                SHUFFLE_CLUSTER, cluster, "WorkersLost", said, warning=True
            )
        self._looked[cluster.uid] = found
        if found.suspected:
            self._soon.set()

    async def _count_pods(self, cluster: Cluster) -> int | None:
        """Return in how many pods workers may be; None: their disks may be without a pod."""
        if cluster.spec.workers.storage.volume_claim is not None:
            return None
        labels = f"{names.CLUSTER_UID}={cluster.uid}"
        pods = self.tools.kube.every(POD, cluster.key.namespace, labels=labels)
        return len(worker_pods([pod async for pod in pods]))


def look(client: Client, before: Look, room: int | None, epoch: int) -> Look:
    """Declare gone what is found to be; a call to workers, for a thread.

    Args:
        client: of the cluster.
        before: what the last look found.
        room: how many workers there can be, if none has a disk anywhere else.
        epoch: of this leader.

    Raises:
        Unavailable: not all were told; look again.
        StaleEpoch: another operator leads.
    """
    members = client.members(fresh=True)
    there = frozenset(members.reachable)
    lost = set(members.replaced)
    judged = room == len(there)
    suspected: set[str] = set()
    if judged and (there != before.there or not before.judged or before.suspected):
        suspected = _homes(client, members) - there - before.lost
    if there == before.there:
        # Pods were counted before: one may have come, and the worker of another have gone for a
        # moment. Two looks in a row do not err so.
        lost |= suspected & before.suspected
    new = lost - before.lost
    for worker in sorted(new):
        client.on_all(partial(_declare, client, worker, epoch))
    return Look(there, judged, before.lost | new, frozenset(suspected - new))


def _declare(client: Client, worker: str, epoch: int, url: str) -> None:
    with client.pool.call("POST", url, f"/v1/workers/{worker}/gone?epoch={epoch}") as response:
        response.read()


def _homes(client: Client, members: Members) -> set[str]:
    """Return the workers that jobs may wait for, though nobody else names them."""

    def call(url: str) -> set[str]:
        found: set[str] = set()
        for told in _facts(client, url):
            found |= {home for job in told.jobs if job.record for home in job.record.homes}
        return found

    answers: Iterable[set[str]] = client.ask_each(members, call).answers.values()
    return set().union(*answers)


def _facts(client: Client, url: str) -> Iterable[Page]:
    query = ""
    while True:
        with client.pool.call("GET", url, f"/v1/facts{query}") as response:
            told = Page.from_json(response.read_json())
        yield told
        if not told.more:
            return
        query = f"?incarnation={told.incarnation}&since={told.version}"
