"""What peers tell each other of jobs, and what follows for this worker.

Each asks all others again and again, in the rounds of `Membership`. What a peer says of a fence, a
release or an epoch holds as if it had been told here: it is written down before anything else
follows from the same answer, so that no right to write comes ahead of what goes with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import structlog

from crossdock.errors import CrossdockError, DataCorrupt, ProtocolError
from crossdock.gossip import JobAges, Page, Told
from crossdock.lifecycle import lease, words
from crossdock.lifecycle.facts import Stage
from crossdock.lifecycle.lease import Peer
from crossdock.lifecycle.words import NEVER, Heard
from crossdock_worker.identity import Identity
from crossdock_worker.jobs import Jobs
from crossdock_worker.life import clock

log = structlog.get_logger()

BEAT_SECONDS: Final = 0.25
"""How often the process notes that it runs."""
_PAUSE_SECONDS: Final = 1.0
"""Between two beats more than this is a pause: words may be waiting, so nobody was silent in it."""

Get = Callable[[str], Awaitable[object | None]]
"""Asks a URL with this worker's token; returns the JSON of its answer, None for none."""
InThread = Callable[[Callable[[], None]], Awaitable[None]]
_NO_PEER: Final = Peer(NEVER, settled=False)


@dataclass(frozen=True, slots=True)
class Round:
    """Whom `Membership` has found: what the life of jobs depends on."""

    peers: Mapping[str, str]
    """By id, where each is asked: all that are neither gone nor replaced."""
    answered: frozenset[str]
    """Ids of those that are there now."""
    unmet: bool
    """Whether somebody is named as a peer who has never answered."""
    dropped: bool = False
    """Whether somebody who was, and never has, is not named any more."""


class Gossip:
    """One worker's part. Lives on the event loop."""

    def __init__(
        self,
        jobs: Jobs,
        identity: Identity,
        *,
        settled_file: Path,
        has_peers: bool,
        url: Callable[[], str],
        hears: Callable[[], bool],
        in_thread: InThread,
        on_fence: Callable[[str], None],
    ) -> None:
        """Begin; with peers, nothing is known of them yet.

        Args:
            jobs: of the worker.
            identity: of the worker.
            settled_file: there once this disk knows what others rely on it to know.
            has_peers: whether it was told of any.
            url: of the worker, for peers that were not told of it.
            hears: whether this worker listens to owners, or will.
            in_thread: runs what writes to the disk.
            on_fence: told of each job that a peer says was ended; from a thread.
        """
        self._jobs = jobs
        self._identity = identity
        self._settled_file = settled_file
        self._url = url
        self._hears = hears
        self._in_thread = in_thread
        self._on_fence = on_fence
        self._remembers = self._beat = clock()
        for job in jobs:  # it was not listened for while others were replayed
            job.life.put_off(self._beat - job.life.since)
        self._unmet = has_peers
        self._peers: dict[str, Peer] = {}
        self._left: dict[str, Peer] = {}
        """Peers that are counted no more, and what they said last."""
        self._seen: dict[str, tuple[int, int]] = {}
        """By peer, its incarnation and the version up to which it was heard."""
        self.gone: set[str] = set()
        """Ids of workers that somebody declared gone."""
        self._look_around()

    @property
    def rank(self) -> int:
        """How many workers come first."""
        return lease.rank_of(self._identity.id, self._peers)

    @property
    def counted(self) -> frozenset[str]:
        """Ids of all workers that are neither gone nor replaced."""
        return frozenset({self._identity.id, *self._peers})

    def has_heard_all(self, id_: str, incarnation: int) -> bool:
        """Whether a peer's process, which has drained, has told all that can be waited for."""
        told = self._seen.get(id_, (0, 0))[0] == incarnation
        return told and lease.has_told_all(self._peers.get(id_, _NO_PEER))

    def _look_around(self) -> None:
        peers = [*self._peers.values(), *([_NO_PEER] if self._unmet else [])]
        around = lease.surroundings(kept_disk=self._settled_file.exists(), peers=peers)
        if around.settled and not self._settled_file.exists():
            self._settled_file.touch()
            log.info("worker is settled in", worker=self._identity.id)
        self._jobs.conditions.around = around

    def beat(self) -> None:
        """Note that the process runs. The time in which it did not is nobody's silence."""
        now = clock()
        lost = now - self._beat - BEAT_SECONDS
        self._beat = now
        if lost > _PAUSE_SECONDS:
            log.warning("the process was paused", seconds=round(lost, 1))
            for job in self._jobs:
                job.life.put_off(lost)

    # -- what is told ------------------------------------------------------------------------

    def page(self, *, incarnation: int, since: int) -> Page:
        """Return what is new since a version that this worker has told, in which incarnation."""
        self.beat()
        same = incarnation == self._identity.incarnation
        uids, version, more = self._jobs.changes.since(since if same else 0)
        told = (self._jobs.told(uid) for uid in uids)
        now = clock()
        return Page(
            worker=self._identity.id,
            incarnation=self._identity.incarnation,
            version=version,
            more=more,
            remembers_seconds=now - self._remembers,
            settled=self._jobs.conditions.around.settled,
            hears=self._hears(),
            gone=sorted(self.gone),
            jobs=[each for each in told if each is not None],
            ages={} if more else {job.uid: job.life.told(now) for job in self._jobs},
        )

    # -- what is heard -----------------------------------------------------------------------

    async def round(self, get: Get, found: Round) -> None:
        """Ask those that are there, and judge what all have said."""
        lost = {id_: peer for id_, peer in self._peers.items() if id_ not in found.peers}
        if found.dropped or lease.leaves_doubt(lost.values()):
            self.begin_anew()
        self._left = {**self._left, **lost}
        for id_ in found.peers:
            self._left.pop(id_, None)
        self._unmet = found.unmet
        self._peers = {id_: self._peers.get(id_, _NO_PEER) for id_ in found.peers}
        asked = [self._ask(get, id_, found.peers[id_]) for id_ in sorted(found.answered)]
        await asyncio.gather(*asked)
        self._look_around()

    def begin_anew(self) -> None:
        """Count silence from now: who is left out from now on may have heard owners until now.

        Raises:
            CrossdockError: the disk does not let go of what was kept of it.
        """
        for job in self._jobs:
            job.life.begin_anew()
        self._remembers = clock()

    def learn_gone(self, ids: Iterable[str]) -> None:
        """Take from somebody who knows that workers never come back; raises as `begin_anew`.

        This worker may not know them at all: they came and went while it was away.
        """
        news = set(ids) - {self._identity.id} - self.gone
        known = {**self._left, **self._peers}
        if lease.leaves_doubt(known.get(id_, _NO_PEER) for id_ in news):
            self.begin_anew()
        self.gone |= news

    async def _ask(self, get: Get, id_: str, url: str) -> None:
        asked = clock()
        incarnation, version = self._seen.get(id_, (0, 0))
        while True:
            query = urlencode(
                {
                    "incarnation": incarnation,
                    "since": version,
                    "worker": self._identity.id,
                    "url": self._url(),
                }
            )
            data = await get(f"{url}/v1/facts?{query}")
            if data is None:
                return
            try:
                page = Page.from_json(data)
                if page.worker != id_:
                    return
                await self._in_thread(partial(self._learn, page))
                self.learn_gone(page.gone)
            except ProtocolError as error:
                log.warning("peer tells no facts", peer=url, problem=str(error))
                return
            except CrossdockError as error:  # a full disk, say: the next round asks once more
                log.warning("what a peer tells was not kept", peer=url, problem=str(error))
                return
            incarnation, version = page.incarnation, page.version
            if not page.more:
                break
        self._seen[id_] = incarnation, version
        self._hear(page.ages, asked, page.remembers_seconds)
        self._peers[id_] = Peer(asked, page.settled, page.hears)

    def _hear(self, told: Mapping[str, JobAges], asked: float, remembers: float) -> None:
        """Take how long ago owners spoke, as far as a peer knows."""
        now = clock()
        not_told = Heard(NEVER, now - remembers)
        for job in self._jobs:
            found = told.get(job.uid)
            heard = not_told if found is None else words.relayed(found.ages, asked=asked, now=now)
            job.life.hear(heard)

    def _learn(self, page: Page) -> None:
        for told in page.jobs:
            try:
                self._learn_job(told)
            except DataCorrupt:  # its files here are damaged; nothing is done to them
                continue

    def _learn_job(self, told: Told) -> None:
        if told.facts.stage is not Stage.LIVE:
            age = told.fenced_seconds
            if self._jobs.learn_ended(told.uid, told.facts, told.record, age):
                self._on_fence(told.uid)
            return
        job = self._jobs.hear_of(told)
        if job is not None:
            job.learn(told.facts)
