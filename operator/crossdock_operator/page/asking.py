"""What only workers know, asked when somebody looks: once for all who look at the same time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from crossdock.cluster import Cluster as Client
from crossdock.errors import JobUnknown, ProtocolError, ShuffleUnknown
from crossdock.wire import names as wire_names
from crossdock_operator.jobs.workers import Workers
from crossdock_operator.kinds import Object
from crossdock_operator.page.histogram import histogram
from crossdock_operator.records import Cluster, Key

WORKERS_SECONDS: Final = 5.0
JOB_SECONDS: Final = 5.0
SIZES_SECONDS: Final = 60.0
"""For so long an answer is shown: sizes take a view of the whole shuffle."""
MOST_ANSWERS: Final = 256
IDLE_SECONDS: Final = 300.0
"""After so long connections to workers are closed that nobody looks at."""

T = TypeVar("T")


@dataclass(slots=True)
class _Asked:
    answer: "asyncio.Future[Object]"
    at: float


@dataclass(slots=True)
class Asking:
    """Of the event loop alone. Close it."""

    workers: Workers
    clock: Callable[[], float] = time.monotonic
    _asked: dict[tuple[str, ...], _Asked] = field(default_factory=dict)
    _looked: dict[Key, float] = field(default_factory=dict)

    async def fill(self, cluster: Cluster) -> Object:
        """Return `workers`: what each says of itself; who does not answer has only url and state.

        Raises:
            Unavailable: none answers.
        """
        return await self._once(
            ("fill", cluster.uid), WORKERS_SECONDS, lambda: self._call(cluster, fill_of)
        )

    async def job(self, cluster: Cluster, uid: str) -> Object:
        """Return what a job takes up, and asked of the store, over all workers that answer.

        Raises:
            Unavailable: none answers.
            JobUnknown: none knows the job.
        """
        ask = partial(job_of, uid=uid)
        return await self._once(
            ("job", cluster.uid, uid), JOB_SECONDS, lambda: self._call(cluster, ask)
        )

    async def sizes(self, cluster: Cluster, uid: str, shuffle: str, generation: int) -> Object:
        """Return the histogram of a shuffle's partitions, of what is complete now.

        Raises:
            Unavailable: workers do not answer, or not all of them.
            ShuffleReleased: it was given up.
            ShuffleUnknown: no frame of it ever came.
        """
        ask = partial(sizes_of, uid=uid, shuffle=shuffle, generation=generation)
        return await self._once(
            ("sizes", cluster.uid, uid, shuffle, str(generation)),
            SIZES_SECONDS,
            lambda: self._call(cluster, ask),
        )

    def close(self) -> None:
        """End all calls, and close all connections."""
        self.workers.close()

    async def _once(
        self, key: tuple[str, ...], seconds: float, ask: Callable[[], Awaitable[Object]]
    ) -> Object:
        now = self.clock()
        known = self._asked.get(key)
        stale = known is not None and known.answer.done() and (
            now - known.at >= seconds or known.answer.exception() is not None
        )  # fmt: skip
        if known is None or stale:
            self._asked.pop(key, None)
            known = self._asked[key] = _Asked(asyncio.ensure_future(_as_coroutine(ask)), now)
            while len(self._asked) > MOST_ANSWERS:
                self._asked.pop(next(iter(self._asked)))
        return await asyncio.shield(known.answer)

    async def _call(self, cluster: Cluster, call: Callable[[Client], T]) -> T:
        self._looked[cluster.key] = now = self.clock()
        self._looked = {k: at for k, at in self._looked.items() if now - at < IDLE_SECONDS}
        self.workers.keep(set(self._looked))
        client = await self.workers.client(cluster)
        return await self.workers.asked(partial(call, client))


async def _as_coroutine(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()


# -- in a thread ---------------------------------------------------------------------------------


def fill_of(client: Client) -> Object:
    """Ask all workers what they hold."""
    members = client.members(fresh=True)
    found = [info.to_json() for info in members.reachable.values()]
    found += [{"url": url, "state": "unreachable"} for url in members.unreachable]
    return {"workers": sorted(found, key=lambda each: str(each["url"]))}


def job_of(client: Client, *, uid: str) -> Object:
    """Ask all workers about a job."""
    path = wire_names.job_path(uid)

    def call(url: str) -> object:
        with client.pool.call("GET", url, path) as response:
            return response.read_json()

    found = client.ask_each(client.members(fresh=True), call, ignore=(JobUnknown,))
    if not found.answers:
        raise JobUnknown(f"no worker that answers knows job {uid}")
    return {**summed(found.answers.values()), "silent": sorted(found.away)}


def sizes_of(client: Client, *, uid: str, shuffle: str, generation: int) -> Object:
    """Ask all workers for the sizes of a shuffle's partitions."""
    known = job_of(client, uid=uid)["shuffles"]
    partitions = next(
        (s["partitions"] for s in known if (s["name"], s["generation"]) == (shuffle, generation)),
        None,
    )
    if partitions is None:
        raise ShuffleUnknown(f"no worker that answers has a frame of shuffle {shuffle!r}")
    with client.job(uid) as handle:
        opened = handle.shuffle(shuffle, partitions=partitions, generation=generation)
        winners = opened.complete_attempts()
        view = opened.view(winners)
        return {"maps": len(winners), **histogram(view.bytes)}


def summed(descriptions: Iterable[object]) -> Object:
    """Add up what workers say of one job (docs/protocol.md, Jobs).

    Returns:
        disk_bytes, stored_bytes, requests, writes, dollars; `verbs`: requests by verb and outcome;
        `shuffles`: of each name, generation, partitions, disk_bytes and freed_bytes.

    Raises:
        ProtocolError: one of them is no JSON object.
    """
    verbs: dict[str, dict[str, int]] = {}
    shuffles: dict[tuple[str, int], Object] = {}
    total: Object = dict.fromkeys(("disk_bytes", *_OF_STORE), 0)
    for each in descriptions:
        if not isinstance(each, Mapping):
            raise ProtocolError("a job's description is no JSON object")
        store = each.get("store") or {}
        total["disk_bytes"] += each.get("disk_bytes", 0)
        for name in _OF_STORE:
            total[name] += store.get(name, 0)
        for verb, outcomes in (store.get("verbs") or {}).items():
            counts = verbs.setdefault(verb, {})
            for outcome, count in outcomes.items():
                counts[outcome] = counts.get(outcome, 0) + count
        for said in each.get("shuffles") or ():
            key = (said["name"], said["generation"])
            one = shuffles.setdefault(key, {
                "name": said["name"], "generation": said["generation"],
                "partitions": said["partitions"], "disk_bytes": 0, "freed_bytes": 0,
            })  # fmt: skip
            one["disk_bytes"] += said["disk_bytes"]
            one["freed_bytes"] += said["freed_bytes"]
    return {**total, "verbs": verbs, "shuffles": [shuffles[key] for key in sorted(shuffles)]}


_OF_STORE: Final = ("stored_bytes", "requests", "writes", "dollars")
