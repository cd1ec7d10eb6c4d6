"""Asks workers again and again how busy they are, and what engines said of their need.

Once for a cluster, whatever jobs it has; and only clusters of which somebody wants to know.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from crossdock.cluster import Cluster as Client
from crossdock.demand import Need, Reported, need
from crossdock.errors import CrossdockError, ProtocolError
from crossdock.records import WorkerInfo
from crossdock_operator.guard import apart
from crossdock_operator.jobs.workers import Workers
from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB
from crossdock_operator.records import Cluster, Item, Job, Key
from crossdock_operator.store import Store

DEMAND_SECONDS: Final = 2.0
"""Between two questions to a cluster with executors to be scaled."""
LOAD_SECONDS: Final = 5.0
"""Between two questions to a cluster that is scaled itself."""
STALE_SECONDS: Final = 20.0
"""What was heard before, is not true any more."""
_TICK_SECONDS: Final = 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the workers of a cluster said at one time."""

    at: float
    """Monotonic."""
    workers: tuple[WorkerInfo, ...]
    """Those that answered."""
    whole: bool
    """Whether all did."""
    needs: Mapping[str, Need] = field(default_factory=dict)
    """By uid of a job, what its engine needs; without those of which nothing is said."""


@dataclass(slots=True)
class _Round:
    """One cluster of which somebody wants to know."""

    jobs: dict[str, Key] = field(default_factory=dict)
    """By uid, those with executors."""
    load: bool = False
    """Whether its workers' load is wanted."""
    due: float = 0.0
    asking: bool = False
    heard: Heard | None = None
    told_load: float = float("-inf")

    @property
    def pause_seconds(self) -> float:
        return DEMAND_SECONDS if self.jobs else LOAD_SECONDS

    @property
    def news(self) -> Heard | None:
        """What was heard, while it holds: a question may hang."""
        fresh = self.heard is not None and time.monotonic() - self.heard.at < STALE_SECONDS
        return self.heard if fresh else None


class Polls:
    """Asks the workers of clusters. Of the event loop's thread."""

    def __init__(self, workers: Workers, store: Store, wake: Callable[[Item, float], None]) -> None:
        """Ask nobody yet.

        Args:
            workers: how they are reached.
            store: what clusters there are.
            wake: has a job or cluster looked at of which there is news.
        """
        self._workers = workers
        self._store = store
        self._wake = wake
        self._rounds: dict[Key, _Round] = {}

    def need(self, job: Job) -> tuple[Need | None, bool]:
        """Return what a job's engine says, and whether all workers were asked; ask from now on."""
        one = self._rounds.setdefault(job.cluster, _Round())
        one.jobs[job.uid] = job.key
        heard = one.news
        return (None, False) if heard is None else (heard.needs.get(job.uid), heard.whole)

    def load(self, cluster: Key) -> Heard | None:
        """Return what a cluster's workers said last; ask from now on."""
        one = self._rounds.setdefault(cluster, _Round())
        one.load = True
        return one.news

    def forget_job(self, uid: str) -> None:
        """Ask for a job no more."""
        for one in self._rounds.values():
            one.jobs.pop(uid, None)

    def forget_load(self, cluster: Key) -> None:
        """Ask for a cluster's load no more."""
        if cluster in self._rounds:
            self._rounds[cluster].load = False

    def clusters(self) -> set[Key]:
        """Return the clusters that are asked."""
        return {key for key, one in self._rounds.items() if one.jobs or one.load}

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            wanted = self.clusters()
            self._rounds = {key: one for key, one in self._rounds.items() if key in wanted}
            for key, one in list(self._rounds.items()):  # others are added meanwhile
                cluster = self._store.clusters.get(key)
                if now >= one.due and not one.asking and cluster is not None:
                    with apart("asks workers how busy they are", cluster=key):
                        await self._begin(cluster, one)

    async def _begin(self, cluster: Cluster, one: _Round) -> None:
        one.due = time.monotonic() + one.pause_seconds
        try:
            client = await self._workers.client(cluster)
        except CrossdockError as error:
            self._missed(cluster.key, one, error)
            return
        one.asking = True
        call = partial(_ask, client, demand=bool(one.jobs))
        self._workers.ask(call, partial(self._answered, cluster.key, one))

    def _answered(self, key: Key, one: _Round, future: "asyncio.Future[Heard]") -> None:
        one.asking = False
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._take(key, one, future.result())
        else:
            self._missed(key, one, error)

    def _take(self, key: Key, one: _Round, heard: Heard) -> None:
        before, one.heard = one.heard, heard
        for uid, job in one.jobs.items():
            known = None if before is None else (before.needs.get(uid), before.whole)
            if known != (heard.needs.get(uid), heard.whole):
                self._wake(Item(SHUFFLE_JOB.name, job), 0.0)
        if one.load and heard.at - one.told_load >= LOAD_SECONDS - _TICK_SECONDS:
            one.told_load = heard.at
            self._wake(Item(SHUFFLE_CLUSTER.name, key), 0.0)

    def _missed(self, key: Key, one: _Round, error: BaseException) -> None:
        """Nobody answers: what was said holds for a while."""
        level = logging.DEBUG if isinstance(error, CrossdockError) else logging.ERROR
        log.log(level, "no worker says anything", cluster=key, error=repr(error))
        if one.heard is None or time.monotonic() - one.heard.at < STALE_SECONDS:
            return
        self._take(key, one, Heard(at=time.monotonic(), workers=(), whole=False))


def _ask(client: Client, *, demand: bool) -> Heard:
    """Ask all workers of a cluster, in a thread.

    Raises:
        CrossdockError: none answers.
    """
    members = client.members(fresh=True)
    whole, said = members.complete, dict[str, list[Reported]]()
    if demand:
        found = client.ask_each(members, partial(_demands, client))
        whole = whole and not found.away
        for jobs in found.answers.values():
            for uid, reports in jobs.items():
                said.setdefault(uid, []).extend(reports)
    needs = {uid: need(reports) for uid, reports in said.items()}
    return Heard(
        at=time.monotonic(),
        workers=tuple(members.reachable.values()),
        whole=whole,
        needs={uid: found for uid, found in needs.items() if found is not None},
    )


def _demands(client: Client, url: str) -> dict[str, list[Reported]]:
    with client.pool.call("GET", url, "/v1/jobs?demand=true") as response:
        data = response.read_json()
    jobs = data.get("jobs") if isinstance(data, dict) else None
    if not isinstance(jobs, list):
        raise ProtocolError(f"{url}/v1/jobs lists no jobs")
    try:
        return {
            str(job["uid"]): [Reported.from_json(each) for each in job["demand"]] for job in jobs
        }
    except (TypeError, KeyError) as error:
        raise ProtocolError(f"{url}/v1/jobs lists no jobs: {error!r}") from error
