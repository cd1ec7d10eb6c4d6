"""The fault proxy of the stores' tests, with faults by seed, and traps at exact requests."""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote, urlsplit

from faults import Answer, FaultyProxy, Request, error

from crossdock.store.api import Verb

SETTLE_SECONDS: Final = 2.0
STALL_SECONDS: Final = 0.8
"""What a sender waits for an answer; afterwards a request may still take effect, until settled."""
_LATE_SECONDS: Final = (0.9, 1.3)
_LAST_SECONDS: Final = 1.8
"""Later than this a request is not sent on: the store would break what is assumed of it."""
_EFFECTS: Final = {
    Verb.PUT, Verb.CREATE_UPLOAD, Verb.UPLOAD_PART, Verb.COMPLETE_UPLOAD, Verb.ABORT_UPLOAD,
    Verb.DELETE,
}  # fmt: skip
FAULTS: Final = ("refused", "late refusal", "cut", "late cut", "stalled", "late effect")
KINDS: Final = (
    "intents", "segments", "create", "part", "complete", "records", "views", "list",
    "list uploads", "delete",
)  # fmt: skip
"""Requests at which a trap may be."""
_VERB_KINDS: Final = {
    Verb.CREATE_UPLOAD: "create", Verb.UPLOAD_PART: "part", Verb.COMPLETE_UPLOAD: "complete",
    Verb.LIST: "list", Verb.LIST_UPLOADS: "list uploads", Verb.DELETE: "delete",
}  # fmt: skip
_FOLDERS: Final = re.compile(r"/(intents|segments|records|views)/")


def kind_of(request: Request) -> str:
    """Return which of KINDS a request is, or ""."""
    if request.verb is Verb.PUT:
        found = _FOLDERS.search(unquote(request.target))
        return found[1] if found else ""
    return _VERB_KINDS.get(request.verb, "")


@dataclass
class Trap:
    """Waits for a request of a job, and kills somebody before or after it takes effect."""

    uid: str
    kind: str
    when: str
    """before, after, or late: after the killing."""
    spring: Callable[["ChaosProxy"], None]
    skip: int = 0
    sprung: bool = False

    def fits(self, request: Request) -> bool:
        """Whether it springs at this request."""
        text = f"{unquote(request.target)}\n{request.body[:10_000].decode(errors='replace')}"
        if self.sprung or kind_of(request) != self.kind or f"/{self.uid}/" not in text:
            return False
        self.skip -= 1
        self.sprung = self.skip < 0
        return self.sprung


class Weather:
    """What all proxies of a scene share: traps, the odds of faults, and counts."""

    def __init__(self, seed: int, rate: float) -> None:
        self.lock = threading.Lock()
        self.traps: list[Trap] = []
        self.rng = random.Random(seed)
        self.rate = rate
        self.injected = 0
        self.seen: Counter[str] = Counter()
        """Requests of each kind that were answered, or trapped."""
        self.begun: set[str] = set()
        """Targets at which uploads were begun, whatever the server answered."""
        self.broken: list[str] = []
        """Requests that took effect later than is assumed of a store."""

    def trap_for(self, request: Request) -> Trap | None:
        with self.lock:
            self.seen[kind_of(request)] += 1
            return next((t for t in self.traps if t.fits(request)), None)

    def fault(self) -> tuple[str, float]:
        with self.lock:
            if self.rng.random() >= self.rate:
                return "", 0.0
            self.injected += 1
            return self.rng.choice(FAULTS), self.rng.uniform(*_LATE_SECONDS)


def _waited(request: Request) -> float:
    """Return for how long a request has waited to be read at least, in seconds.

    On a machine that is busy with other things its sender may have died long ago. The signature
    says when it was sent, to the second.
    """
    signed = next((v for k, v in request.headers.items() if k.lower() == "x-amz-date"), "")
    if not signed:
        return 0.0
    sent = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return max(0.0, time.time() - sent.timestamp() - 1.0)


class ChaosProxy(FaultyProxy):
    """One sender's way to the store, so that it is known who sends."""

    def __init__(self, endpoint: str, name: str, weather: Weather) -> None:
        super().__init__(endpoint)
        self.name = name
        self._weather = weather

    def answer(self, request: Request) -> Answer | None:
        """Answer truly, by a fault, or by a trap that kills."""
        came = time.monotonic() - _waited(request)
        length = next((v for k, v in request.headers.items() if k.lower() == "content-length"), "0")
        if len(request.body) < int(length):
            return None  # its sender died; no server takes half a body
        trap = self._weather.trap_for(request)
        if trap is not None:
            return self._trapped(trap, request, came)
        fault, seconds = self._weather.fault()
        if fault in {"stalled", "late effect"}:
            self.released.wait(seconds)
        done = None
        if fault in {"", "late refusal", "late cut", "late effect"}:
            done = self._effect(request, came)
        match fault:
            case "":
                return done
            case "refused":
                return error(503, "SlowDown")
            case "late refusal":
                return error(500, "InternalError")
            case _:
                return None

    def _trapped(self, trap: Trap, request: Request, came: float) -> Answer | None:
        if trap.when == "after":
            self._effect(request, came)
        trap.spring(self)
        if trap.when == "late":
            self.released.wait(_LATE_SECONDS[0])
            self._effect(request, came)
        return None

    def _effect(self, request: Request, came: float) -> Answer | None:
        if request.verb in _EFFECTS and time.monotonic() - came > _LAST_SECONDS:
            return None
        if request.verb is Verb.CREATE_UPLOAD:
            with self._weather.lock:
                self._weather.begun.add(urlsplit(unquote(request.target)).path)
        try:
            found = self.forward(request)
        except OSError:
            return None
        if request.verb in _EFFECTS and time.monotonic() - came > SETTLE_SECONDS:
            self._weather.broken.append(f"{request.verb} {request.target}")
        return found
