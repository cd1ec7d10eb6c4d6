"""Several buckets as one store: each job lives in one of them."""

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Final, Protocol, runtime_checkable

from crossdock.cancel import Cancel, Stop
from crossdock.store.api import (
    Capabilities,
    ObjectInfo,
    Reading,
    Source,
    Store,
    UnfinishedUpload,
    Upload,
)
from crossdock.store.layout import job_of, names_job
from crossdock.wire.crc import BytesLike

_DELETED_AT_ONCE: Final = 1000
"""As many as S3 takes in a request."""


class Buckets:
    """Routes by the job in a key (`store.api.Store`). A bucket is opened when it is needed."""

    def __init__(
        self,
        url: str,
        buckets: Mapping[str, Callable[[], Store]],
        choose: Callable[[str], str],
    ) -> None:
        """Make one.

        Args:
            url: of all of them.
            buckets: what opens each, by URL.
            choose: the URL of the one in which a job lives.
        """
        self.url = url
        self._openers = buckets
        self._choose = choose
        self._lock = threading.Lock()
        self._open: dict[str, Store] = {}

    def _bucket(self, url: str) -> Store:
        with self._lock:
            if url not in self._open:
                self._open[url] = self._openers[url]()
            return self._open[url]

    def _of(self, key: str) -> Store:
        return self._bucket(self._choose(job_of(key)))

    def _under(self, prefix: str) -> list[Store]:
        if names_job(prefix):
            return [self._of(prefix)]
        return [self._bucket(url) for url in sorted(self._openers)]

    def each(self) -> list[Store]:
        """Return all of them, each as a store of its own; closed with this one."""
        return [self._bucket(url) for url in sorted(self._openers)]

    @property
    def capabilities(self) -> Capabilities:
        """What all of them can do."""
        found = [self._bucket(url).capabilities for url in sorted(self._openers)]
        return Capabilities(
            conditional_put=all(c.conditional_put for c in found),
            conditional_replace=all(c.conditional_replace for c in found),
            lists_uploads=all(c.lists_uploads for c in found),
            has_uploads=any(c.has_uploads for c in found),
            checks_checksums=all(c.checks_checksums for c in found),
        )

    def stopped_by(self, stop: Stop) -> "Buckets":
        """Return the same buckets for a writer that may be ended."""
        openers = {url: partial(self._stopped, url, stop) for url in self._openers}
        return Buckets(self.url, openers, self._choose)

    def _stopped(self, url: str, stop: Stop) -> Store:
        return self._bucket(url).stopped_by(stop)

    def put(
        self,
        key: str,
        body: BytesLike | Source,
        *,
        crc32c: int | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object into its job's bucket."""
        store = self._of(key)
        return store.put(key, body, crc32c=crc32c, if_absent=if_absent, if_match=if_match)

    def upload(self, key: str) -> Upload:
        """Begin an object in its job's bucket."""
        return self._of(key).upload(key)

    def get(
        self,
        key: str,
        start: int = 0,
        stop: int | None = None,
        *,
        etag: str | None = None,
        cancel: Cancel | None = None,
    ) -> Reading:
        """Read an object of its job's bucket."""
        return self._of(key).get(key, start, stop, etag=etag, cancel=cancel)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects of a job, or those of all buckets, rising."""
        found = (store.list(prefix, after=after) for store in self._under(prefix))
        return heapq.merge(*found, key=attrgetter("key"))

    def uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Yield unfinished uploads of a job, or of all buckets."""
        for store in self._under(prefix):
            yield from store.uploads(prefix)

    def abort(self, upload: UnfinishedUpload) -> None:
        """Make an unfinished upload go."""
        self._of(upload.key).abort(upload)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects: as many in a request as follow each other in one bucket."""
        mine: list[str] = []
        bucket = ""
        for key in keys:
            url = self._choose(job_of(key))
            if mine and (url != bucket or len(mine) >= _DELETED_AT_ONCE):
                self._bucket(bucket).delete(mine)
                mine = []
            bucket = url
            mine.append(key)
        if mine:
            self._bucket(bucket).delete(mine)

    def now(self) -> datetime | None:
        """Return the time of the first of them."""
        return self._bucket(min(self._openers)).now()

    def close(self) -> None:
        """Close connections. Idempotent."""
        with self._lock:
            open_, self._open = self._open, {}
        for store in open_.values():
            store.close()


@runtime_checkable
class HasBuckets(Protocol):
    """A store that may consist of several."""

    def each(self) -> list[Store]:
        """Return all of them."""


def each_bucket(store: Store) -> list[Store]:
    """Return the buckets that a store consists of.

    Whoever deletes looks into all: a job has things in two if the list was changed while it lived.
    """
    return store.each() if isinstance(store, HasBuckets) else [store]
