"""Who answers where, and who is lost: what a round of questions to workers says.

A worker is its id. A URL says who is meant only if it is the one that the worker names itself: an
endpoint may be a load balancer, behind which each call meets another worker.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from crossdock.errors import CrossdockError, Unavailable
from crossdock.records import DRAINED, STAYING, WorkerInfo
from crossdock.retry import LONGEST_WAIT_SECONDS

Answer = tuple[WorkerInfo, list[WorkerInfo]]
"""What a worker says of itself, and whom it lists."""

_THERE: Final = STAYING | {"draining", DRAINED}
"""States in which a worker answered who lists it."""
_AGAIN_SECONDS: Final = 60.0
"""How long a URL counts as shared after it was seen to be, and one that leads nowhere is spared."""


class Silences:
    """For how long those were asked in vain that do not answer. Thread-safe."""

    def __init__(self, bound_seconds: float) -> None:
        """Args: `bound_seconds` of silence count as a loss."""
        self._bound_seconds = bound_seconds
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, float]] = {}
        """By name: for how many seconds it was asked in vain, and until when."""

    def still_away(self, silent: Iterable[str], began: float) -> frozenset[str]:
        """Leave out what has been silent for so long that it counts as lost.

        Only time in which somebody asked counts, and the short waits between: who was not asked
        for an hour may have been there, and gone a second time.

        Args:
            silent: all who did not answer now.
            began: when they were asked, monotonic.
        """
        now = time.monotonic()
        with self._lock:
            known, self._known = self._known, {}
            for name in silent:
                seconds, until = known.get(name, (0.0, now))
                waited = min(max(0.0, began - until), LONGEST_WAIT_SECONDS)
                asked = now - max(began, until)
                self._known[name] = (seconds + waited + asked, now)
            bound = self._bound_seconds
            return frozenset(n for n, (seconds, _) in self._known.items() if seconds < bound)


@dataclass(frozen=True, slots=True)
class Members:
    """Which workers there are, as this client sees it."""

    reachable: Mapping[str, WorkerInfo]
    """By worker id; `url` is the one that answered."""
    unreachable: frozenset[str]
    """URLs that do not answer, and are not lost yet."""
    lost: tuple[str, ...] = ()
    """What is known of lost workers: a clause each, with how the loss was confirmed."""
    lost_ids: frozenset[str] = frozenset()
    """Ids of workers whose disks are confirmed to be gone."""
    replaced: frozenset[str] = frozenset()
    """Those of them at whose own URL another worker answers."""

    def writable(self) -> list[str]:
        """Return ids of workers, those that take frames first."""
        ranks = {"serving": 0, "full": 1, "draining": 2}
        return sorted(self.reachable, key=lambda w: (ranks.get(self.reachable[w].state, 3), w))

    @property
    def with_store(self) -> list[str]:
        """URLs of reachable workers that read a store for us."""
        return [w.url for w in self.reachable.values() if w.store]

    @property
    def complete(self) -> bool:
        """Whether everybody answered whose disk is not confirmed to be gone."""
        return not self.unreachable and len(self.lost) == len(self.lost_ids)

    def staying(self) -> tuple[str, ...]:
        """Return the ids of reachable workers that are not about to go; all if none stays."""
        found = sorted(self.reachable)
        stay = [w for w in found if self.reachable[w].state in STAYING]
        return tuple(stay or found)


@dataclass(frozen=True, slots=True)
class Found:
    """What one survey found."""

    reachable: Mapping[str, WorkerInfo]
    """By worker id; `url` is where it answered: the one that it names, if it answers there."""
    silent: frozenset[str]
    """URLs of those that did not answer."""
    lost: Mapping[str, str]
    """By worker id: how the loss was confirmed."""
    replaced: frozenset[str]
    """Those at whose own URL another one answers."""


@dataclass(slots=True)
class Acquaintances:
    """The workers that a client has met. Its owner locks."""

    urls: dict[str, str] = field(default_factory=dict)
    """By worker id: the URL that it names."""
    direct: set[str] = field(default_factory=set)
    """Ids of those that have answered there."""
    spared: dict[str, float] = field(default_factory=dict)
    """URLs that led nowhere while their worker answered at another one; since when."""
    replaced: dict[str, str] = field(default_factory=dict)
    """By worker id: that another one answers at its own URL."""
    have_store: bool = False
    """Whether any of them, or of those that they list, has or had a store."""
    _met_at: dict[str, list[str]] = field(default_factory=dict)
    _shared: dict[str, float] = field(default_factory=dict)

    def is_shared(self, url: str) -> bool:
        """Whether calls to this URL were seen to meet several workers by turns."""
        return time.monotonic() - self._shared.get(url, float("-inf")) < _AGAIN_SECONDS

    def is_spared(self, info: WorkerInfo) -> bool:
        """Whether not to ask a worker at its own URL, since that has just led nowhere."""
        since = self.spared.get(info.url, float("-inf"))
        return info.id not in self.direct and time.monotonic() - since < _AGAIN_SECONDS

    def meet(self, url: str, own: WorkerInfo) -> None:
        """Note who answered at a URL."""
        self.urls[own.id] = own.url
        self.replaced.pop(own.id, None)
        if url == own.url:
            self.direct.add(own.id)
            return
        before = self._met_at.setdefault(url, [own.id])
        if own.id in before[:-1]:  # one that comes back after another has not just lost its disk
            self._shared[url] = time.monotonic()
        if own.id in before:
            before.remove(own.id)
        before.append(own.id)

    def note_replaced(self, seen: Iterable[WorkerInfo]) -> None:
        """Find the workers at whose own URL another one answers now: their disks are gone."""
        ids = {own.id for own in seen}
        now_at = {own.url: own.id for own in seen}
        for worker, url in list(self.urls.items()):
            if worker not in ids and url in now_at:
                del self.urls[worker]
                self.replaced[worker] = f"another worker answers at {url} than {worker}"


class Survey:
    """One round of questions, to the end."""

    def __init__(self, endpoints: Iterable[str], met: Acquaintances) -> None:
        self._endpoints = tuple(endpoints)
        self._met = met
        self._seen: dict[str, WorkerInfo] = {}
        self._silent: set[str] = set()
        self._listed: dict[str, WorkerInfo] = {}
        self._gone: set[str] = set()
        self.problem: CrossdockError | None = None
        """Why the endpoint that was asked last does not answer."""

    def note(self, url: str, answer: Answer | CrossdockError) -> None:
        """Take what came of asking a URL; raises what an endpoint refuses for good."""
        if isinstance(answer, CrossdockError):
            if url in self._endpoints:
                if not isinstance(answer, Unavailable):
                    raise answer
                self.problem = answer
            self._silent.add(url)
            return
        self._seen[url], peers = answer
        for peer in peers:
            known = self._listed.setdefault(peer.id, peer)
            if known.state == "gone" and peer.state in _THERE:
                self._listed[peer.id] = peer
            if peer.state == "gone":
                self._gone.add(peer.id)

    def next_urls(self) -> list[str]:
        """Return whom to ask now: workers at their own URLs, peers, and whoever was met before."""
        # Who had drained is gone, and may be back: some have heard of it before others.
        gone = {w for w in self._gone if self._listed[w].state not in _THERE}
        ids = {own.id for own in self._seen.values()} | gone
        urls = [o.url for o in self._seen.values() if o.url and not self._met.is_spared(o)]
        urls += [p.url for p in self._listed.values() if p.id not in ids]
        urls += [url for worker, url in self._met.urls.items() if worker not in ids]
        return [u for u in dict.fromkeys(urls) if u not in self._seen and u not in self._silent]

    def found(self) -> Found:
        """Return who is there, once all were asked."""
        met = self._met
        met.have_store |= any(w.store for w in (*self._seen.values(), *self._listed.values()))
        for url, own in self._seen.items():
            met.meet(url, own)
        met.note_replaced(self._seen.values())
        reachable = {own.id: own for url, own in self._seen.items() if url == own.url}
        for url, own in self._seen.items():
            if own.id not in reachable and not met.is_shared(url):
                reachable[own.id] = replace(own, url=url)
                met.spared[own.url] = time.monotonic()
        urls = {w: info.url for w, info in self._listed.items()} | met.urls
        settled = reachable.keys() | self._gone
        silent = self._silent - {url for worker, url in urls.items() if worker in settled}
        silent |= {url for worker, url in met.urls.items() if worker not in settled}
        gone = sorted(self._gone - reachable.keys())
        lost = met.replaced | {g: f"worker {g} was declared lost" for g in gone}
        return Found(reachable, frozenset(silent), lost, frozenset(met.replaced))
