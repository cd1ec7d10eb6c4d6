"""Looks at clusters' stores again and again: probes of what may be done there, and audits."""

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from crossdock.errors import ConfigError
from crossdock_operator.api.cluster import LifecycleCheck, NamespacesFrom
from crossdock_operator.ending.attempts import Attempts
from crossdock_operator.ending.listing import Listing
from crossdock_operator.ending.workers import Reach
from crossdock_operator.kinds import SHUFFLE_CLUSTER
from crossdock_operator.plan import names
from crossdock_operator.plan.conditions import YES
from crossdock_operator.plan.ending import sees_all_jobs
from crossdock_operator.plan.findings import (
    Findings,
    audit_due_seconds,
    audit_is_asked,
    store_reachable,
)
from crossdock_operator.records import Cluster, Item
from crossdock_operator.storage.access import Access
from crossdock_operator.storage.copies import Copies
from crossdock_operator.storage.keepers import Keepers
from crossdock_operator.storage.tasks import Audit, Audited, Probe, Probed, place_of

PROBE_SECONDS: Final = 300.0
"""Between two probes: five requests to the store each."""
SOON_SECONDS: Final = 30.0
"""After a probe that found something wrong."""
_AT_ONCE: Final = 8

T = TypeVar("T")


@dataclass(slots=True)
class _Round(Generic[T]):
    """What is looked at regularly, of one cluster."""

    about: str
    due: float
    """On the event loop's clock."""
    number: int = 0
    last: T | None = None
    ended: str = ""
    """When `last` was found out, RFC 3339."""
    asked: str = ""
    """What the annotation said by which somebody asks for one."""


@dataclass(slots=True)
class Checks:
    """Of all clusters. Of the event loop alone; close it."""

    copies: Copies
    keepers: Keepers
    reach: Reach
    listing: Listing
    epoch: Callable[[], int]
    """Of this leader: fences commands to workers."""
    again: Callable[[Item, float], None]
    _probes: Attempts[Probed] = field(init=False)
    _audits: Attempts[Audited] = field(init=False)
    _probe_rounds: dict[Item, _Round[Probed]] = field(default_factory=dict)
    _audit_rounds: dict[Item, _Round[Audited]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._probes = Attempts[Probed](self.again, at_once=_AT_ONCE)
        self._audits = Attempts[Audited](self.again, at_once=_AT_ONCE)

    def look(self, cluster: Cluster) -> Findings:
        """Return what is known of a cluster's store, and begin what is due."""
        item = Item(SHUFFLE_CLUSTER.name, cluster.key)
        now = asyncio.get_running_loop().time()
        probes = self._probe_rounds.get(item)
        about = f"{cluster.uid} {cluster.generation}"
        if probes is None or probes.about != about:
            probes = self._probe_rounds[item] = _Round(
                about, now, 0, None if probes is None else probes.last
            )
        audits = self._audit_rounds.get(item)
        if audits is None or audits.about != cluster.uid:
            due = now + audit_due_seconds(cluster, dt.datetime.now(dt.UTC))
            audits = self._audit_rounds[item] = _Round(cluster.uid, due)
        asked = cluster.annotations.get(names.AUDIT_ASKED_AT, "")
        if audits.asked != asked:
            audits.asked = asked
            audits.due = now if audit_is_asked(cluster) else audits.due
        probed = self._round(item, probes, self._probes, lambda: self._probe(cluster), _probe_pause)
        audited = self._round(
            item,
            audits,
            self._audits,
            lambda: self._audit(cluster),
            lambda _: float(cluster.spec.audit.interval_seconds),
        )
        return Findings(
            probed=probes.last,
            probe_problem=probed,
            audited=audits.last,
            audit_problem=audited,
            audited_at=audits.ended,
        )

    def demand(self, cluster: Cluster) -> None:
        """Fail unless what the operator keeps of a cluster is enough to end its jobs.

        A Secret is what workers have, too. The operator's own account may be another than theirs:
        so it has to be seen to list, delete and abort before anything is written.

        Raises:
            ConfigError: it was not, or not yet.
        """
        if cluster.spec.store.credentials_secret_ref is not None:
            return
        rounds = self._probe_rounds.get(Item(SHUFFLE_CLUSTER.name, cluster.key))
        probed = None if rounds is None else rounds.last
        answer = store_reachable(cluster, Findings(probed=probed))
        if probed is None:
            raise ConfigError(
                "it is being found out whether the operator's account opens the store"
            )
        if answer.status != YES:
            raise ConfigError(
                f"jobs wait until the operator's own account opens the store: {answer.message}",
                hint="give it the rights of spec.store.serviceAccountName, or name a Secret",
            )

    def forget(self, item: Item) -> None:
        """Drop what is known of a cluster that is gone, or about to go."""
        self._probe_rounds.pop(item, None)
        self._audit_rounds.pop(item, None)
        self._probes.forget(item)
        self._audits.forget(item)

    async def close(self) -> None:
        """Give up what is under way."""
        await self._probes.close()
        await self._audits.close()

    def _round(
        self,
        item: Item,
        one: _Round[T],
        attempts: Attempts[T],
        work: Callable[[], Coroutine[Any, Any, T]],
        pause: Callable[[T], float],
    ) -> str:
        """Begin what is due; return why the newest attempt failed, or ""."""
        now = asyncio.get_running_loop().time()
        if now < one.due:
            self.again(item, one.due - now)
            return ""
        attempt = attempts.look(item, f"{one.about} {one.number}", work, group="")
        if attempt.result is not None:
            one.last = attempt.result
            one.ended = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            one.due = now + pause(attempt.result)
            one.number += 1
            self.again(item, one.due - now)
        return "" if attempt.problem is None else str(attempt.problem)

    async def _access(self, cluster: Cluster) -> Access:
        """Return what it takes; where there is a copy of it, that is brought up to date."""
        if cluster.annotations.get(names.USED) == "true":
            return await self.copies.keep(cluster)
        return await self.copies.look(cluster)

    async def _probe(self, cluster: Cluster) -> Probed:
        access = await self._access(cluster)
        task = Probe(lifecycle=cluster.spec.store.lifecycle_check is LifecycleCheck.CHECK)
        return await self.keepers.probe(access, place_of(access), task)

    async def _audit(self, cluster: Cluster) -> Audited:
        access = await self._access(cluster)
        place = await self.reach.place(access, cluster)
        as_of = time.monotonic()
        live = tuple(sorted(job.uid for job in await self.listing.every()))
        task = Audit(
            live=live,
            as_of=as_of,
            grace_seconds=float(cluster.spec.audit.grace_seconds),
            delete=sees_all_jobs(self.listing.namespaces, _namespaces(cluster)),
            epoch=self.epoch(),
        )
        return await self.keepers.audit(access, place, task)


def _probe_pause(found: Probed) -> float:
    return SOON_SECONDS if found.problems else PROBE_SECONDS


def _namespaces(cluster: Cluster) -> tuple[str, ...]:
    """Return the namespaces whose jobs a cluster takes; "" where that may be any."""
    if cluster.spec.allowed_namespaces.mode is NamespacesFrom.SAME:
        return (cluster.key.namespace,)
    return ("",)
