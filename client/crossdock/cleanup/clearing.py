"""One pass over what lies below a prefix: listed, and deleted while the next page comes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self

from crossdock.cancel import Cancel
from crossdock.lifecycle.runs import keys_of_intent
from crossdock.store.api import Store, UnfinishedUpload
from crossdock.store.layout import ShuffleLayout, place_of

BATCH_KEYS: Final = 1000
"""As many as one request of S3 deletes."""
_AT_ONCE: Final = 4
"""Requests that delete. More of them make S3 refuse: it serves 3,500 keys a second of a prefix."""


@dataclass(slots=True)
class Cleared:
    """What a pass has found and deleted."""

    uploads: int = 0
    objects: int = 0
    """Without intents."""
    intents: int = 0
    """Of which those are only counted that were to stay."""
    nbytes: int = 0
    """Of the objects; intents count where they went."""

    def __iadd__(self, other: "Cleared") -> Self:
        self.uploads += other.uploads
        self.objects += other.objects
        self.intents += other.intents
        self.nbytes += other.nbytes
        return self


class Deletes:
    """Deletes of one store, a few requests at once. A context manager: its end waits for all."""

    def __init__(self, store: Store, cancel: Cancel) -> None:
        """Args: `cancel` ends it between two requests."""
        self._store = store
        self._cancel = cancel
        self._keys: list[str] = []
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="crossdock-delete")
        self._under_way: deque[Future[None]] = deque()

    def delete(self, key: str) -> None:
        """Delete an object, together with others."""
        self._keys.append(key)
        if len(self._keys) >= BATCH_KEYS:
            self._flush()

    def abort(self, upload: UnfinishedUpload) -> None:
        """Abort an upload."""
        self._begin(partial(self._store.abort, upload))

    def _flush(self) -> None:
        if self._keys:
            keys, self._keys = self._keys, []
            self._begin(partial(self._store.delete, keys))

    def _begin(self, work: Callable[[], None]) -> None:
        self._cancel.check()
        while len(self._under_way) > _AT_ONCE:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(work))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._flush()
                while self._under_way:
                    self._under_way.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Part:
    """What is deleted: all keys with this beginning, or some of them."""

    prefix: str
    """Of a job or a shuffle."""
    has: Callable[[str], bool] = lambda _: True
    """Whether a key with this beginning is part of it."""


def clear(store: Store, part: Part, *, intents: bool, cancel: Cancel) -> Cleared:
    """Abort the uploads and delete the objects of a part, once.

    Where uploads cannot be listed by prefix they are looked for key by key, as intents say.

    Args:
        store: one bucket or directory.
        part: what goes.
        intents: whether intents go too.
        cancel: ends it between two requests, with `Closed`.

    Raises:
        StoreUnavailable: the store does not answer until its deadline; a later pass goes on.
        StoreDenied: the credentials do not list or delete.
    """
    found = Cleared()
    kept: list[str] = []
    with Deletes(store, cancel) as deletes:
        for upload in store.uploads(part.prefix):
            if part.has(upload.key):
                found.uploads += 1
                deletes.abort(upload)
        for info in store.list(part.prefix):
            cancel.check()
            if not part.has(info.key):
                continue
            if is_intent(info.key):
                found.intents += 1
                kept.append(info.key)
                continue
            found.objects += 1
            found.nbytes += info.size
            deletes.delete(info.key)
        for upload in hidden_uploads(store, kept, cancel):
            found.uploads += 1
            deletes.abort(upload)
        if intents:
            for key in kept:
                deletes.delete(key)
    return found


def is_intent(key: str) -> bool:
    """Whether a key is of the intent of a persist run."""
    place = place_of(key)
    return place is not None and place.is_intent


def hidden_uploads(
    store: Store, intents: Iterable[str], cancel: Cancel
) -> Iterator[UnfinishedUpload]:
    """Yield the uploads of runs where a listing by prefix does not show them.

    What the server can do is only asked for if there are intents: finding it out takes requests.
    """
    hidden: bool | None = None
    for key in intents:
        if hidden is None:
            found = store.capabilities
            hidden = found.has_uploads and not found.lists_uploads
        if not hidden:
            return
        for each in _keys_of(key):
            cancel.check()
            yield from (u for u in store.uploads(each) if u.key == each)


def _keys_of(intent: str) -> Iterator[str]:
    """Return the keys under which the run of an intent may have begun an upload."""
    base, _, _ = intent.rpartition("intents/")
    place = place_of(intent)
    return iter(()) if place is None else keys_of_intent(ShuffleLayout(base), place.run, place.part)
