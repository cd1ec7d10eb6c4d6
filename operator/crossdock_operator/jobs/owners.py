"""Owners of jobs, as they were seen last: looked at some times a minute, not watched.

A watch would have to be of all pods there are. A list costs one call for a namespace and kind
however many jobs have owners there, and none where no job has.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import structlog

from crossdock_operator.errors import KubeError, Vanished
from crossdock_operator.guard import apart
from crossdock_operator.jobs.tools import Tools
from crossdock_operator.kinds import SHUFFLE_JOB, Kind
from crossdock_operator.plan.job_status import has_ended
from crossdock_operator.plan.owners import (
    OwnerKind,
    Sight,
    Verdict,
    place_of,
    refusal,
    sight_of,
    verdict,
)
from crossdock_operator.records import Item, Job

_FEW: Final = 4
"""So many owners of one namespace and kind are asked for by name; more cost one list of all."""

_Place: TypeAlias = tuple[Kind, str]
"""A kind and a namespace."""

log = structlog.get_logger()


@dataclass(slots=True)
class Owners:
    """Of all jobs that live. Of the event loop's thread."""

    tools: Tools
    kinds: Sequence[OwnerKind]
    """Those that may own jobs."""
    _seen: dict[_Place, dict[str, Sight | None]] = field(default_factory=dict)
    """By name; None: it is not there."""
    _problems: dict[_Place, str] = field(default_factory=dict)
    """Why nothing new is known."""
    _met: set[str] = field(default_factory=set)
    """Uids of jobs that were new once. What was seen before may be the owner of an earlier job."""
    _looking: dict[_Place, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """Answers to two lists may change places, and the older one tell of no owner where there is."""

    def refusal(self, job: Job) -> str:
        """Return why a job's owner is not looked after; empty: it is."""
        return refusal(job, self.kinds)

    async def verdict(self, job: Job) -> Verdict:
        """Return what its owner means for a job."""
        owner = job.spec.owner
        if owner is None:
            return Verdict()
        now = time.time()
        problem = self.refusal(job)
        if problem:
            return verdict(job, None, problem=problem, now=now)
        place = place_of(owner, self.kinds), job.key.namespace
        if not job.status.get("ownerUid") and job.uid not in self._met:
            self._met.add(job.uid)
            self._seen.get(place, {}).pop(owner.name, None)
        if owner.name not in self._seen.get(place, {}):
            await self._look(place, {owner.name})
        seen = self._seen.get(place, {})
        if owner.name in seen:
            found = verdict(job, seen[owner.name], problem="", now=now)
        else:
            found = verdict(job, None, problem=self._problems[place], now=now)
        if found.again_seconds is not None:
            self.tools.wake(Item(SHUFFLE_JOB.name, job.key), found.again_seconds)
        return found

    async def run(self) -> None:
        """Look for ever; jobs whose owner is another than before are looked at."""
        while True:
            await asyncio.sleep(self.tools.look_seconds)
            await self.look()

    async def look(self) -> None:
        """Look once at all owners of jobs that live."""
        jobs = self._living()
        self._met &= {job.uid for job in self.tools.store.jobs.values()}
        for place in self._seen.keys() - jobs.keys():
            del self._seen[place]
            if not self._looking[place].locked():
                del self._looking[place]
        for place, owned in jobs.items():
            before = dict(self._seen.get(place, {}))
            await self._look(place, set(owned))
            seen = self._seen.get(place, {})
            for name in seen.keys() - owned.keys():
                del seen[name]
            for name, keys in owned.items():
                if name not in before or seen.get(name) != before[name]:
                    for key in keys:
                        self.tools.wake(key, 0.0)

    def _living(self) -> dict[_Place, dict[str, list[Item]]]:
        found: dict[_Place, dict[str, list[Item]]] = defaultdict(lambda: defaultdict(list))
        for job in self.tools.store.jobs.values():
            owner = job.spec.owner
            if owner is None or job.deleting or has_ended(job.status) or self.refusal(job):
                continue
            item = Item(SHUFFLE_JOB.name, job.key)
            found[place_of(owner, self.kinds), job.key.namespace][owner.name].append(item)
        return found

    async def _look(self, place: _Place, names: set[str]) -> None:
        """Take in what is there of these names; what cannot be listed stays as it was seen."""
        async with self._looking[place]:
            with apart("looks at owners", kind=place[0].name, namespace=place[1]):
                await self._look_alone(place, names)

    async def _look_alone(self, place: _Place, names: set[str]) -> None:
        kind, namespace = place
        try:
            seen = await self._list(place, names)
        except KubeError as error:
            what = (
                f"the API server has no {kind.plural} of {kind.api_version}; if it calls them "
                "otherwise, name that by =RESOURCE in the option --owner-kinds"
            )
            self._problems[place] = what if isinstance(error, Vanished) else str(error)
            log.warning(
                "owners are not seen", kind=kind.name, namespace=namespace, error=str(error)
            )
            return
        self._problems.pop(place, None)
        self._seen.setdefault(place, {}).update(seen)

    async def _list(self, place: _Place, names: set[str]) -> dict[str, Sight | None]:
        kube, (kind, namespace) = self.tools.kube, place
        found: dict[str, Sight | None] = dict.fromkeys(names)
        if len(names) <= _FEW:
            for name in names:
                body = await kube.named(kind, namespace, name)
                found[name] = None if body is None else sight_of(body)
            return found
        async for body in kube.every(kind, namespace):
            if body["metadata"]["name"] in names:
                found[body["metadata"]["name"]] = sight_of(body)
        return found
