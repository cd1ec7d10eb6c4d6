"""The worker's store, with a note on disk before the first write for each job.

Without such a note nothing of the job was ever sent there by this worker, whatever crashed: so its
end costs the store no request.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

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
from crossdock.store.buckets import each_bucket
from crossdock.store.layout import job_of
from crossdock.store.marks import mark_in
from crossdock.wire.crc import BytesLike
from crossdock_worker.files import writing
from crossdock_worker.job import Job
from crossdock_worker.writes import Writes


def note_stored(job: Job) -> None:
    """Write down, on disk first, that something of a job is about to go to the store.

    Raises:
        JobFenced: it was ended; so what a fence has found holds: nothing is sent after it.
    """
    with job.lock:
        job.check_live()
        if job.stored:
            return
    with job.files_lock:
        job.check_live()
        path = mark_in(job.directory)
        with writing(path):
            path.touch()
        with job.lock:
            job.check_live()
            job.stored = True
    job.changed()


class NotedStore:
    """A store (`crossdock.store.api.Store`) that is written to only after `note` has returned."""

    def __init__(self, store: Store, note: Callable[[str], None], writes: Writes) -> None:
        """Begin.

        Args:
            store: what it is.
            note: is told the uid of the job before each write; it may refuse, by raising.
            writes: counts them.
        """
        self._store = store
        self._note = note
        self._writes = writes

    @property
    def url(self) -> str:
        """Where it is."""
        return self._store.url

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._store.capabilities

    def each(self) -> list[Store]:
        """Return the buckets that it consists of, without notes: for deleting."""
        return each_bucket(self._store)

    def stopped_by(self, stop: Stop) -> "NotedStore":
        """Return the same store for a writer that may be ended."""
        return NotedStore(self._store.stopped_by(stop), self._note, self._writes)

    def put(
        self,
        key: str,
        body: BytesLike | Source,
        *,
        crc32c: int | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object."""
        job = job_of(key)
        self._note(job)
        with self._writes.counted(job):
            return self._store.put(key, body, crc32c=crc32c, if_absent=if_absent, if_match=if_match)

    def upload(self, key: str) -> Upload:
        """Begin an object whose length is not known."""
        job = job_of(key)
        self._note(job)
        self._writes.begin(job)  # workers know lengths, so nobody has asked for its end yet
        return self._store.upload(key)

    def get(
        self,
        key: str,
        start: int = 0,
        stop: int | None = None,
        *,
        etag: str | None = None,
        cancel: Cancel | None = None,
    ) -> Reading:
        """Read an object, or a range of it."""
        return self._store.get(key, start, stop, etag=etag, cancel=cancel)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with `prefix`, rising."""
        return self._store.list(prefix, after=after)

    def uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Yield unfinished uploads under a prefix."""
        return self._store.uploads(prefix)

    def abort(self, upload: UnfinishedUpload) -> None:
        """Make an unfinished upload go."""
        self._store.abort(upload)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        self._store.delete(keys)

    def now(self) -> datetime | None:
        """Return the store's own time."""
        return self._store.now()

    def close(self) -> None:
        """Close connections."""
        self._store.close()
