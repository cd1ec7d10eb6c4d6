"""The workers' store, read through any worker that has it: who reads needs no credentials of it."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar
from urllib.parse import quote, urlencode

from crossdock.cancel import Cancel
from crossdock.errors import ConfigError, CrossdockError, JobUnknown, ProtocolError, Unavailable
from crossdock.http import Response
from crossdock.pool import Pool
from crossdock.store.api import ObjectInfo
from crossdock.store.errors import NoStore, ObjectDamaged, StoreDenied, StoreUnavailable
from crossdock.store.layout import shuffle_of
from crossdock.wire.names import shuffle_path

T = TypeVar("T")

_AT_ONCE_BYTES: Final = 2**18
"""Received at once, so that it shows when no byte comes any more."""
_SILENT_SECONDS: Final = 0.5
"""A worker that owes a byte for so long is asked last, and for a while after."""
_SHUNNED_SECONDS: Final = 5.0
"""How long a worker that failed is asked last."""
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")


class Workers(Protocol):
    """Tells who has a store."""

    def __call__(self, *, fresh: bool) -> Sequence[str]:
        """Return the URLs of those known, or of those that answer now; raises `Unavailable`."""


class WorkerStore:
    """Objects of shuffles. See `crossdock.store.api.ReadableStore`. Thread-safe.

    Workers know their cluster: what a key says of it does not count.
    """

    url: Final = "the workers' store"

    def __init__(self, pool: Pool, workers: Workers) -> None:
        """Make one; nothing is sent.

        Args:
            pool: connections to workers.
            workers: who they are.
        """
        self._pool = pool
        self._workers = workers
        self._lock = threading.Lock()
        self._shunned: dict[str, float] = {}
        self._waits: set[_Wait] = set()

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with `prefix`, rising, page by page."""
        key, rest = shuffle_of(prefix)
        head = prefix.removesuffix(rest)
        path = f"{shuffle_path(key.job, key.name, key.generation)}/objects"
        behind = after.removeprefix(head)
        while True:
            query = urlencode({"prefix": rest, "after": behind})
            (page, more), wait = self.ask(f"{path}?{query}", _page)
            self.answered(wait)
            for name, size, etag in page:
                if not name.startswith(rest) or name <= behind:
                    raise ProtocolError(f"a listing of {prefix} has {name!r} behind {behind!r}")
                behind = name
                yield ObjectInfo(head + name, size, etag)
            if not more:
                return
            if not page:
                raise ProtocolError(f"a listing of {prefix} has no next page, and no end")

    def get(
        self,
        key: str,
        start: int = 0,
        stop: int | None = None,
        *,
        etag: str | None = None,
        cancel: Cancel | None = None,
    ) -> "WorkerReading":
        """Read an object, or bytes `start` to `stop` of it; not counted from its end."""
        if start < 0 or (stop is not None and stop <= start):
            raise ConfigError(f"bytes {start} to {stop} of {key}: workers send other ranges only")
        return WorkerReading(self, key, start, stop, etag=etag, cancel=cancel)

    def ask(
        self,
        target: str,
        take: Callable[[str, Response], T],
        *,
        headers: Sequence[tuple[str, str]] = (),
        cancel: Cancel | None = None,
    ) -> "tuple[T, _Wait]":
        """Return what `take` makes of the answer of the first worker that has one.

        And who is waited for until `answered`.

        Raises:
            StoreUnavailable: none has.
            StoreDenied: the workers' own credentials do not open the store.
        """
        problem: CrossdockError | None = None
        for url in self._each():
            wait = self._begin(url)
            try:
                response = self._pool.call("GET", url, target, headers=headers, cancel=cancel)
                found = take(url, response)
            except (Unavailable, JobUnknown, NoStore, StoreDenied) as error:
                problem = error
            except CrossdockError as error:
                if type(error) is not CrossdockError:
                    self.answered(wait)
                    raise
                problem = error  # a worker that fails by itself: others may do better
            else:
                wait.since = time.monotonic()
                return found, wait
            self.failed(wait)
        if isinstance(problem, StoreDenied):
            raise problem
        raise _unavailable(problem)

    def _begin(self, url: str) -> "_Wait":
        wait = _Wait(url, time.monotonic())
        with self._lock:
            self._waits.add(wait)
        return wait

    def answered(self, wait: "_Wait") -> None:
        """Note that nothing is expected of a worker any more; perhaps because it was too slow."""
        now = time.monotonic()
        with self._lock:
            self._waits.discard(wait)
            if now - wait.since > _SILENT_SECONDS:
                self._shunned[wait.url] = now

    def failed(self, wait: "_Wait") -> None:
        """Note that a worker failed: for a while it is asked after the others."""
        with self._lock:
            self._waits.discard(wait)
            self._shunned[wait.url] = time.monotonic()

    def _each(self) -> Iterator[str]:
        """Yield whom to ask: those known, and when they all fail, those who are there now."""
        known = self._order(fresh=False)
        yield from known
        yield from (url for url in self._order(fresh=True) if url not in known)

    def _order(self, *, fresh: bool) -> Sequence[str]:
        """Return whom to ask: by chance, so that many readers spread.

        Who failed lately, or makes us wait, comes last.
        """
        try:
            urls = list(self._workers(fresh=fresh))
        except StoreUnavailable:
            raise
        except Unavailable as error:
            raise _unavailable(error) from error
        random.shuffle(urls)
        now = time.monotonic()
        with self._lock:
            self._shunned = {
                u: since for u, since in self._shunned.items() if now - since < _SHUNNED_SECONDS
            }
            slow = {w.url for w in self._waits if now - w.since > _SILENT_SECONDS}
            slow |= self._shunned.keys()
        return sorted(urls, key=lambda url: url in slow)

    def close(self) -> None:
        """Nothing is held: the connections are the pool's."""


@dataclass(slots=True, eq=False)
class _Wait:
    """A worker that is to send something."""

    url: str
    since: float
    """When it sent a byte last, or was asked."""


class WorkerReading:
    """Bytes as they come. See `crossdock.store.api.Reading`.

    A worker answers as much at once as it likes; the rest is asked for as it is read.
    """

    def __init__(
        self,
        store: WorkerStore,
        key: str,
        start: int,
        stop: int | None,
        *,
        etag: str | None,
        cancel: Cancel | None,
    ) -> None:
        self._store = store
        self._key = key
        self._at = start
        self._cancel = cancel
        shuffle, rest = shuffle_of(key)
        path = shuffle_path(shuffle.job, shuffle.name, shuffle.generation)
        self._target = f"{path}/objects/{quote(rest)}"
        self._etag = etag
        self._ask(stop)
        self._stop = self.info.size if stop is None else stop
        self.nbytes = self._stop - start

    def _ask(self, stop: int | None) -> None:
        span = f"bytes={self._at}-{'' if stop is None else stop - 1}"
        match = [("If-Match", f'"{self._etag}"')] if self._etag else []
        (self._answer, self._end, self.info), self._wait = self._store.ask(
            self._target,
            partial(_opened, self._key, self._at, stop),
            headers=[("Range", span), *match],
            cancel=self._cancel,
        )

    def read_into(self, target: memoryview) -> int:
        """Fill at least a byte of `target`; return how many, 0 only at the end."""
        if self._at == self._end < self._stop:
            self._close()
            self._etag = self.info.etag or None
            self._ask(self._stop)
        wanted = min(len(target), self._end - self._at, _AT_ONCE_BYTES)
        if not wanted:
            return 0
        try:
            count = self._answer.read_some(target[:wanted])
        except Unavailable as error:
            self._store.failed(self._wait)
            raise StoreUnavailable(f"{self._key} broke off at byte {self._at}: {error}") from error
        self._at += count
        self._wait.since = time.monotonic()
        return count

    def _close(self) -> None:
        self._answer.close()
        self._store.answered(self._wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()


def _opened(
    key: str, start: int, stop: int | None, url: str, response: Response
) -> tuple[Response, int, ObjectInfo]:
    """Return an answer, the end of its range, and what it is of."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    first, end, size = (int(found[1]), int(found[2]) + 1, int(found[3])) if found else (-1, -1, -1)
    top = size if stop is None else stop
    if first != start or not start < end <= top <= size or end - start != response.length:
        response.close()
        raise ObjectDamaged(
            f"{key}: asked {url} for bytes {start} to {stop}, answered {first} to {end} of {size} "
            f"in {response.length} bytes"
        )
    etag = response.headers.get("etag", "").strip('"')
    return response, end, ObjectInfo(key, size, etag)


def _page(url: str, response: Response) -> tuple[list[tuple[str, int, str]], bool]:
    with response:
        data = response.read_json()
    try:
        objects = data["objects"]  # type: ignore[index]
        return [(str(k), int(n), str(e)) for k, n, e in objects], data["more"] is True  # type: ignore[index]
    except (TypeError, KeyError, ValueError) as error:
        raise ProtocolError(f"{url} answers no listing: {error!r}") from error


def _unavailable(problem: CrossdockError | None) -> StoreUnavailable:
    found = StoreUnavailable(
        f"no worker reads the store for us: {problem or 'none that answers has one'}",
        hint="start workers with --store URL, or give this process a store of its own",
    )
    if isinstance(problem, Unavailable):
        found.retry_after_seconds = problem.retry_after_seconds
    return found
