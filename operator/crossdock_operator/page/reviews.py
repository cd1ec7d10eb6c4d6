"""Who asks, and in which namespaces they may look: the API server says it, for a short time.

Nothing of a token is kept but its digest. A right that is taken away holds `REVIEW_SECONDS` more.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from crossdock.errors import Overloaded, Unauthenticated, Unavailable
from crossdock_operator.errors import ApiUnavailable, NotAllowed
from crossdock_operator.kinds import (
    SHUFFLE_JOB,
    SUBJECT_ACCESS_REVIEW,
    TOKEN_REVIEW,
    Kind,
    Object,
)
from crossdock_operator.kube import Kube

REVIEW_SECONDS: Final = 30.0
"""For so long an answer holds."""
MOST_TOKENS: Final = 4096
MOST_RIGHTS: Final = 32_768
"""Answers that are kept: of a viewer there is one right for each namespace."""
AT_ONCE: Final = 8
"""Reviews that are asked for at once, for who was let in before."""
STRANGERS_AT_ONCE: Final = 2
"""Tokens that are reviewed at once that were never taken: anybody may send some."""
MOST_WAITING: Final = 256
"""Of these, those that wait."""
MOST_KNOWN: Final = 1024
"""Tokens of which is kept that they were taken."""
EVERYWHERE: Final = ""
"""In the place of a namespace: all of them."""

K = TypeVar("K")
V = TypeVar("V")
_LOGIN: Final = "send a token that this Kubernetes takes: Authorization: Bearer TOKEN"


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody, as the API server knows them."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def review_of(self, namespace: str) -> Object:
        """Return the question whether they may list ShuffleJobs."""
        return {
            "user": self.name,
            "uid": self.uid,
            "groups": list(self.groups),
            "extra": {name: list(values) for name, values in self.extra},
            "resourceAttributes": {
                "verb": "list",
                "group": SHUFFLE_JOB.group,
                "version": SHUFFLE_JOB.version,
                "resource": SHUFFLE_JOB.plural,
                **({"namespace": namespace} if namespace else {}),
            },
        }


def viewer_of(status: Object) -> Viewer | None:
    """Return whom the answer to a TokenReview names; None: nobody."""
    if not status.get("authenticated"):
        return None
    user = status.get("user") or {}
    return Viewer(
        name=str(user.get("username", "")),
        uid=str(user.get("uid", "")),
        groups=tuple(user.get("groups") or ()),
        extra=tuple(sorted((n, tuple(v)) for n, v in (user.get("extra") or {}).items())),
    )


@dataclass(slots=True)
class _Answers(Generic[K, V]):
    """Answers that hold for a while; who asks what is being asked waits for it."""

    clock: Callable[[], float]
    most: int
    _known: dict[K, tuple[float, asyncio.Task[V]]] = field(default_factory=dict)

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        now = self.clock()
        known = self._known.get(key)
        if known is None or now - known[0] >= REVIEW_SECONDS or _failed(known[1]):
            self._known.pop(key, None)  # so that the order is that of the asking
            known = self._known[key] = (now, asyncio.ensure_future(_as_coroutine(ask)))
            while len(self._known) > self.most:
                self._known.pop(next(iter(self._known)))
        return await asyncio.shield(known[1])


class Reviews:
    """Asks the API server, with the operator's rights. Of the event loop alone."""

    def __init__(self, kube: Kube, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: `kube` is a connection of its own, so that a busy server holds up nothing else."""
        self._kube = kube
        self._viewers: _Answers[bytes, Viewer | None] = _Answers(clock, MOST_TOKENS)
        self._rights: _Answers[tuple[Viewer, str], bool] = _Answers(clock, MOST_RIGHTS)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._strangers = asyncio.Semaphore(STRANGERS_AT_ONCE)
        self._taken: dict[bytes, None] = {}
        """Digests of tokens that were taken when they were reviewed last; the newest last."""
        self._waiting = 0

    async def viewer(self, token: str) -> Viewer:
        """Return whose token this is.

        Raises:
            Unauthenticated: nobody's.
            Unavailable: it cannot be found out now.
        """
        if not token:
            raise Unauthenticated("there is no token", hint=_LOGIN)
        digest = hashlib.sha256(token.encode()).digest()
        found = await self._viewers.get(digest, lambda: self._review_token(token, digest))
        if found is None:
            raise Unauthenticated("the API server does not take this token", hint=_LOGIN)
        return found

    async def permitted(self, viewer: Viewer, namespaces: Iterable[str]) -> frozenset[str]:
        """Return those of the namespaces in which somebody may list ShuffleJobs.

        Raises:
            Unavailable: it cannot be found out now.
        """
        wanted = sorted(set(namespaces))
        if await self.may_list(viewer, EVERYWHERE):
            return frozenset(wanted)
        answers = await asyncio.gather(*(self.may_list(viewer, each) for each in wanted))
        return frozenset(each for each, may in zip(wanted, answers, strict=True) if may)

    async def may_list(self, viewer: Viewer, namespace: str) -> bool:
        """Return whether somebody may list ShuffleJobs in a namespace.

        Raises:
            Unavailable: it cannot be found out now.
        """
        return await self._rights.get(
            (viewer, namespace), lambda: self._review_right(viewer, namespace)
        )

    async def _review_token(self, token: str, digest: bytes) -> Viewer | None:
        spec: Object = {"token": token}
        if digest in self._taken:
            found = viewer_of(await self._review(TOKEN_REVIEW, spec, self._slots))
        else:
            found = viewer_of(await self._review_stranger(spec))
        self._taken.pop(digest, None)
        if found is not None:
            self._taken[digest] = None
            while len(self._taken) > MOST_KNOWN:
                del self._taken[next(iter(self._taken))]
        return found

    async def _review_stranger(self, spec: Object) -> Object:
        if self._waiting >= MOST_WAITING:
            raise Overloaded("too many want to be let in at once", hint="try again")
        self._waiting += 1
        try:
            return await self._review(TOKEN_REVIEW, spec, self._strangers)
        finally:
            self._waiting -= 1

    async def _review_right(self, viewer: Viewer, namespace: str) -> bool:
        spec = viewer.review_of(namespace)
        status = await self._review(SUBJECT_ACCESS_REVIEW, spec, self._slots)
        return status.get("allowed") is True

    async def _review(self, kind: Kind, spec: Object, slots: asyncio.Semaphore) -> Object:
        try:
            async with slots:
                return await self._kube.review(kind, spec)
        except NotAllowed as error:
            raise Unavailable(
                f"the operator may not create {kind.plural}", hint="apply roles/reviews.yaml"
            ) from error
        except ApiUnavailable as error:
            raise Unavailable(f"the API server does not answer: {error.message}") from error


def _failed(task: "asyncio.Task[V]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _as_coroutine(ask: Callable[[], Awaitable[V]]) -> V:
    return await ask()
