"""A store with the semantics of S3, and what can go wrong between it and its users.

A request takes effect after some delay, once, twice or never, whatever becomes of who sent it, and
its answer may not come. Unfinished uploads are in no listing of objects. A part that was under way
when its upload was aborted brings the upload back.
"""

from typing import Any, NamedTuple

from sim_checks import Checks
from sim_loop import Actor, Loop, Process

TIMEOUT = 1.0
MAKING = ("put", "create", "part", "complete")


class Write(NamedTuple):
    """Who writes, for the checks."""

    job: str
    shuffle: tuple[str, int]
    worker: str
    epoch: int
    deadline: float = float("inf")
    """True time at which the lease ends under which something is published."""


class Content(NamedTuple):
    """What an object holds."""

    kind: str
    attempts: frozenset[int] = frozenset()
    segments: tuple[str, ...] = ()


class Bucket:
    """Objects and unfinished uploads."""

    def __init__(
        self,
        loop: Loop,
        checks: Checks,
        *,
        settle: float,
        lists_uploads: bool,
        lag: float,
        slow: float,
    ) -> None:
        self.loop = loop
        self.checks = checks
        self.settle = settle
        self.lists_uploads = lists_uploads
        self.lag = lag
        self.slow = slow
        self.offset = loop.random.uniform(-1e6, 1e6)
        self.bad = 0.0
        self.breaks_bound = False
        self.objects: dict[str, tuple[Content, float]] = {}
        self.uploads: dict[str, tuple[str, float]] = {}
        self.aborted: dict[str, tuple[str, float]] = {}
        self.named: dict[str, int] = {}
        """How many visible records and manifests name a segment."""
        self.in_flight = 0
        """Requests under way that may bring something into being."""
        self.requests = 0
        self.sent = 0.0
        """When the request was sent that takes effect just now."""
        loop.store = self.request

    def date(self) -> float:
        """The store's own clock."""
        return self.offset + self.loop.now

    def request(self, actor: Actor, life: int, process: Process, wanted: tuple[Any, ...]) -> None:
        loop, chance = self.loop, self.loop.random.random
        self.requests += 1
        verb, *args = wanted
        delay = 0.005 + self.slow * chance()
        if not self.bad or chance() >= self.bad:
            self.in_flight += verb in MAKING
            loop.at(loop.now + delay, self._both, (actor, life, process), verb, args, loop.now)
            return
        fate = chance()
        if fate < 0.3:  # it never arrives
            loop.at(loop.now + TIMEOUT, loop.resume, actor, life, process, None)
            return
        if fate < 0.8:  # it arrives late
            most = self.settle * (4 if self.breaks_bound else 0.999)
            delay = most * min(1.0, 0.3 + chance())
        self._later(delay, verb, args)
        if fate > 0.9:  # a proxy sent it again
            self._later(self.settle * 0.999 * chance(), verb, args)
        loop.at(loop.now + TIMEOUT, loop.resume, actor, life, process, None)

    def _later(self, delay: float, verb: str, args: list[Any]) -> None:
        self.in_flight += verb in MAKING
        self.loop.at(self.loop.now + delay, self._effect, verb, args, self.loop.now)

    def _both(
        self, who: tuple[Actor, int, Process], verb: str, args: list[Any], sent: float
    ) -> None:
        self.loop.resume(*who, self._effect(verb, args, sent))

    def _effect(self, verb: str, args: list[Any], sent: float) -> Any:
        self.in_flight -= verb in MAKING
        if self.loop.tracing and verb not in ("list", "uploads"):
            self.loop.note(f"store: {verb} {args[0]}")
        self.sent = sent
        return getattr(self, "_" + verb)(*args)

    # -- what each request does; None is kept for "no answer" --------------------------------

    def _put(self, key: str, content: Content, write: Write) -> bool:
        if content.kind == "manifest" and key in self.objects:  # If-None-Match
            return False
        self._make(key, content, write)
        return True

    def _make(self, key: str, content: Content, write: Write) -> None:
        if key in self.objects:
            self._forget(key)
        self.checks.created(key, content, write, self)
        self.objects[key] = (content, self.loop.now)
        for segment in content.segments:
            self.named[segment] = self.named.get(segment, 0) + 1

    def _create(self, key: str, write: Write) -> str:
        upload = f"{key}?{len(self.uploads) + len(self.aborted) + self.requests}"
        self.checks.created(key, None, write, self)
        self.uploads[upload] = (key, self.loop.now)
        return upload

    def _part(self, upload: str, write: Write) -> bool:
        if upload in self.aborted and self.aborted[upload][1] > self.sent:
            key, _ = self.aborted.pop(upload)
            self.checks.created(key, None, write, self)
            self.uploads[upload] = (key, self.loop.now)
        return upload in self.uploads

    def _complete(self, upload: str, content: Content, write: Write) -> bool:
        if upload not in self.uploads:
            return False
        key, _ = self.uploads.pop(upload)
        self._make(key, content, write)
        return True

    def _abort(self, upload: str, by: str) -> bool:
        if upload in self.uploads:
            key, _ = self.uploads.pop(upload)
            self.aborted[upload] = (key, self.loop.now)
            self.checks.removed(key, None, by, named=False)
        return True

    def _delete(self, keys: list[str], by: str) -> bool:
        for key in keys:
            if key in self.objects:
                content = self.objects[key][0]
                self._forget(key)
                self.checks.removed(key, content, by, named=self.named.get(key, 0) > 0)
        return True

    def _forget(self, key: str) -> None:
        content, _ = self.objects.pop(key)
        for segment in content.segments:
            self.named[segment] -= 1

    def _head(self, key: str) -> bool:
        return key in self.objects

    def _list(self, prefix: str) -> list[tuple[str, float]]:
        newest = self.loop.now - self.lag
        return [
            (k, at + self.offset)
            for k, (_, at) in self.objects.items()
            if k.startswith(prefix) and at <= newest
        ]

    def _uploads(self, prefix: str) -> list[tuple[str, str, float]]:
        newest = self.loop.now - self.lag
        return [
            (u, k, at + self.offset)
            for u, (k, at) in self.uploads.items()
            if at <= newest and (k.startswith(prefix) if self.lists_uploads else k == prefix)
        ]
