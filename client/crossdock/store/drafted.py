"""What all stores share that write an object as a draft and move it to its place.

A store of its own opens drafts, moves them, and says what is in a folder. The names of drafts,
and how folders become keys, are in tree.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from copy import copy
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from crossdock.cancel import Stop, Unstopped
from crossdock.errors import ConfigError
from crossdock.store import bodies
from crossdock.store.accounting import counted
from crossdock.store.api import Meter, ObjectInfo, Source, UnfinishedUpload, Verb
from crossdock.store.errors import ObjectDamaged
from crossdock.store.keys import check_key, check_prefix
from crossdock.store.tree import Entry, draft_key, is_draft, walk
from crossdock.wire import crc
from crossdock.wire.crc import BytesLike

_NANOSECONDS: Final = 1e9


class Draft(ABC):
    """A draft, and what becomes of it. See `crossdock.store.api.Upload`."""

    def __init__(self, key: str, meter: Meter | None) -> None:
        """Take the key of the object that it will be."""
        self.key = key
        self._meter = meter

    def write(self, data: BytesLike) -> None:
        """Append bytes."""
        with counted(self._meter, Verb.UPLOAD_PART, self.key, len(data)):
            self.append(data)

    def complete(self, *, if_absent: bool = False) -> ObjectInfo:
        """Make the object of what was written."""
        with counted(self._meter, Verb.COMPLETE_UPLOAD, self.key):
            return self.publish(if_absent=if_absent)

    @abstractmethod
    def append(self, data: BytesLike) -> None:
        """Append bytes, without a word to the meter."""

    @abstractmethod
    def publish(self, *, if_absent: bool, if_match: str | None = None) -> ObjectInfo:
        """Make the object of the draft, without a word to the meter."""

    @abstractmethod
    def close(self) -> None:
        """Remove it, if it has not become the object. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


D = TypeVar("D", bound=Draft)


class DraftedStore(ABC, Generic[D]):
    """A folder somewhere. See `crossdock.store.api.Store`."""

    def __init__(self, url: str, meter: Meter | None) -> None:
        """Take where it is; `meter` is told of each call, as of one request."""
        self.url = url
        self._meter = meter
        self.stop: Stop = Unstopped()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @abstractmethod
    def draft(self, key: str, meter: Meter | None = None) -> D:
        """Open a draft of an object, beside its place."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove a file that may be gone already."""

    @abstractmethod
    def scan(self, folder: str) -> Iterator[Entry]:
        """Yield what is in a folder ("", or with a slash at its end); nothing if there is none."""

    def stopped_by(self, stop: Stop) -> Self:
        """Return the same folder for a writer that may be ended."""
        found = copy(self)
        found.stop = stop
        return found

    def put(
        self,
        key: str,
        body: BytesLike | Source,
        *,
        crc32c: int | None = None,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> ObjectInfo:
        """Write an object. Its checksum is compared with what was sent, not with what came."""
        source = bodies.as_source(body)
        with (
            counted(self._meter, Verb.PUT, key, source.nbytes),
            self.draft(check_key(key)) as draft,
        ):
            if if_absent:
                self.check_absent(key)
            found = 0
            for piece in bodies.pieces(source):
                draft.append(piece)
                found = found if crc32c is None else crc.extend(found, piece)
            if crc32c is not None and found != crc32c:
                raise ObjectDamaged(f"{self.url}/{key}: its bytes are not those of its checksum")
            return draft.publish(if_absent=if_absent, if_match=if_match)

    def check_absent(self, key: str) -> None:
        """Raise `ObjectExists` before bytes are sent in vain, if that can be known."""

    def upload(self, key: str) -> D:
        """Begin an object whose length is not known."""
        with counted(self._meter, Verb.CREATE_UPLOAD, key):
            return self.draft(check_key(key), self._meter)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with `prefix`, rising."""
        with counted(self._meter, Verb.LIST, prefix):
            found = walk(self.scan, check_prefix(prefix), after=after)
        for key, entry in found:
            if not entry.draft:
                yield ObjectInfo(key, entry.size, entry.etag, as_time(entry.modified_ns))

    def uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Yield drafts: those of writes under way, and those that a crash left."""
        with counted(self._meter, Verb.LIST_UPLOADS, prefix):
            found = walk(self.scan, check_prefix(prefix))
        for key, entry in found:
            if entry.draft:
                yield UnfinishedUpload(key, entry.draft, as_time(entry.modified_ns))

    def abort(self, upload: UnfinishedUpload) -> None:
        """Remove a draft."""
        if not is_draft(upload.upload_id):
            raise ConfigError(f"{upload.upload_id!r} is no upload of this store")
        with counted(self._meter, Verb.ABORT_UPLOAD, upload.key):
            self.remove(draft_key(check_key(upload.key), upload.upload_id))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; what becomes of empty folders is the store's business."""
        for key in keys:
            with counted(self._meter, Verb.DELETE, key):
                self.remove(check_key(key))

    def close(self) -> None:
        """Nothing is held."""


def as_time(nanoseconds: int) -> datetime | None:
    """Return when a file was written; None where the file system does not say."""
    return datetime.fromtimestamp(nanoseconds / _NANOSECONDS, UTC) if nanoseconds else None
