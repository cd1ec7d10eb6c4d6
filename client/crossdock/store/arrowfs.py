"""Stores that `pyarrow.fs` speaks to: Google's, Azure's, and HDFS.

Their interface there has no conditional put, no checksums, no ETags and no listing of unfinished
uploads. An object is written as a draft (tree.py) and moved to its place when it is whole; a
crash leaves drafts, which `uploads` lists, and what the service itself throws away after a time.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from crossdock.cancel import Cancel, Stop, Unstopped
from crossdock.errors import ConfigError
from crossdock.store import bodies
from crossdock.store.accounting import counted
from crossdock.store.api import (
    Capabilities,
    Meter,
    ObjectInfo,
    Source,
    StoreOptions,
    UnfinishedUpload,
    Verb,
)
from crossdock.store.errors import ObjectDamaged, ObjectExists, ObjectMissing, StoreUnavailable
from crossdock.store.keys import check_key, check_prefix
from crossdock.store.oserrors import as_store_error
from crossdock.store.ranges import resolve
from crossdock.store.tree import Entry, draft_key, is_draft, new_draft, parsed, walk
from crossdock.wire import crc
from crossdock.wire.crc import BytesLike

if TYPE_CHECKING:
    from types import TracebackType

_CLOCK: Final = "clock"
_NANOSECONDS: Final = 1e9
_CAPABILITIES: Final = Capabilities(
    conditional_put=False,
    conditional_replace=False,
    lists_uploads=True,
    has_uploads=True,
    checks_checksums=False,
)


class _Stream(Protocol):
    """What is called of `pyarrow.NativeFile`."""

    def write(self, data: BytesLike) -> int: ...

    def readinto(self, target: memoryview) -> int: ...

    def seek(self, position: int) -> int: ...

    def close(self) -> None: ...


def open_arrow_store(
    url: str, options: StoreOptions, *, meter: Meter | None = None
) -> "ArrowStore":
    """Return the store of a URL that `pyarrow.fs` knows; `options.extra` goes into its query."""
    full = urlunsplit(urlsplit(url)._replace(query=urlencode(options.extra)))
    try:
        system, root = pafs.FileSystem.from_uri(full)
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise ConfigError(
            f"store {url}: {problem}",
            hint="HDFS needs Java and libhdfs here; for all, see the options of pyarrow.fs",
        ) from problem
    return ArrowStore(url, system, root, meter=meter)


class ArrowStore:
    """A folder of a file system of `pyarrow.fs`. See `crossdock.store.api.Store`."""

    def __init__(
        self, url: str, system: pafs.FileSystem, root: str, *, meter: Meter | None = None
    ) -> None:
        """Take a file system and the folder of it that is the store."""
        self.url = url
        self.system = system
        self._root = root.rstrip("/")
        self._meter = meter
        self.stop: Stop = Unstopped()

    def __repr__(self) -> str:
        return f"<ArrowStore {self.url}>"

    @property
    def capabilities(self) -> Capabilities:
        """The same for all: what the interface lacks, no file system behind it can give."""
        return _CAPABILITIES

    def stopped_by(self, stop: Stop) -> "ArrowStore":
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
            ArrowUpload(self, check_key(key)) as draft,
        ):
            if if_absent:
                self.must_be_absent(key)  # before the bytes are sent; looked at once more after
            found = 0
            for piece in bodies.pieces(source):
                draft.append(piece)
                found = found if crc32c is None else crc.extend(found, piece)
            if crc32c is not None and found != crc32c:
                raise ObjectDamaged(f"{self.url}/{key}: its bytes are not those of its checksum")
            return draft.publish(if_absent=if_absent, if_match=if_match)

    def upload(self, key: str) -> "ArrowUpload":
        """Begin an object whose length is not known."""
        with counted(self._meter, Verb.CREATE_UPLOAD, key):
            return ArrowUpload(self, check_key(key), meter=self._meter)

    def get(
        self,
        key: str,
        start: int = 0,
        stop: int | None = None,
        *,
        etag: str | None = None,
        cancel: Cancel | None = None,  # noqa: ARG002 -- `pyarrow.fs` cannot end a call
    ) -> "ArrowReading":
        """Read an object, or a range of it."""
        with counted(self._meter, Verb.GET, key), as_arrow_error(key):
            info = self.info(check_key(key))
            first, end = resolve(info, start, stop, etag)
            stream: _Stream = self.system.open_input_file(self.path(key))
            stream.seek(first)
            return ArrowReading(stream, info, end - first)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose keys begin with `prefix`, rising."""
        with counted(self._meter, Verb.LIST, prefix):
            found = walk(self._scan, check_prefix(prefix), after=after)
        for key, entry in found:
            if not entry.draft:
                yield ObjectInfo(key, entry.size, entry.etag, _time(entry.modified_ns))

    def uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """Yield drafts: those of writes under way, and those that a crash left."""
        with counted(self._meter, Verb.LIST_UPLOADS, prefix):
            found = walk(self._scan, check_prefix(prefix))
        for key, entry in found:
            if entry.draft:
                yield UnfinishedUpload(key, entry.draft, _time(entry.modified_ns))

    def abort(self, upload: UnfinishedUpload) -> None:
        """Remove a draft."""
        if not is_draft(upload.upload_id):
            raise ConfigError(f"{upload.upload_id!r} is no upload of this store")
        with counted(self._meter, Verb.ABORT_UPLOAD, upload.key):
            self.remove(draft_key(check_key(upload.key), upload.upload_id))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects. Folders stay: `pyarrow.fs` can only remove one with all that is in it,
        and that may be what another writer has just put there.
        """
        for key in keys:
            with counted(self._meter, Verb.DELETE, key):
                self.remove(check_key(key))

    def now(self) -> datetime | None:
        """Return the time that the file system gives to a file."""
        with ArrowUpload(self, _CLOCK) as draft:
            return draft.written()

    def close(self) -> None:
        """Nothing is held."""

    def path(self, key: str) -> str:
        """Return where an object lies in the file system."""
        return f"{self._root}/{key}"

    def info(self, key: str) -> ObjectInfo:
        """Return the facts of an object, or raise `ObjectMissing`."""
        found = self.system.get_file_info(self.path(key))
        if found.type != pafs.FileType.File:
            raise ObjectMissing(f"{self.url}/{key}: there is no such object")
        return ObjectInfo(key, int(found.size), _etag(found), found.mtime)

    def must_be_absent(self, key: str) -> None:
        """Raise `ObjectExists` if there is one."""
        with suppress(ObjectMissing):
            self.info(key)
            raise ObjectExists(f"{self.url}/{key}: there is one")

    def remove(self, key: str) -> None:
        """Delete a file that may be gone already."""
        with as_arrow_error(key), suppress(FileNotFoundError, NotADirectoryError):
            if self.system.get_file_info(self.path(key)).type == pafs.FileType.File:
                self.system.delete_file(self.path(key))

    def _scan(self, folder: str) -> Iterator[Entry]:
        with as_arrow_error(folder):
            selector = pafs.FileSelector(self.path(folder).rstrip("/"), allow_not_found=True)
            found = self.system.get_file_info(selector)
        for each in found:
            if each.type == pafs.FileType.Directory:
                yield Entry(each.base_name, is_folder=True)
            elif each.type == pafs.FileType.File:
                name, draft = parsed(each.base_name)
                yield Entry(
                    name,
                    draft=draft,
                    size=int(each.size),
                    modified_ns=each.mtime_ns or 0,
                    etag=_etag(each),
                )


class ArrowReading:
    """Bytes of a file. See `crossdock.store.api.Reading`."""

    def __init__(self, stream: _Stream, info: ObjectInfo, nbytes: int) -> None:
        self.info = info
        self.nbytes = nbytes
        self._stream = stream
        self._left = nbytes

    def read_into(self, target: memoryview) -> int:
        """Fill at least a byte of `target`; return how many, 0 only at the end."""
        wanted = min(len(target), self._left)
        if not wanted:
            return 0
        with as_arrow_error(self.info.key):
            count = self._stream.readinto(target[:wanted])
        if not count:
            raise ObjectDamaged(f"{self.info.key}: {self._left} bytes of it are missing")
        self._left -= count
        return count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        self._stream.close()


class ArrowUpload:
    """A draft, and what becomes of it. See `crossdock.store.api.Upload`."""

    def __init__(self, store: ArrowStore, key: str, *, meter: Meter | None = None) -> None:
        self._store = store
        self._key = key
        self._meter = meter
        self._draft = draft_key(key, new_draft())
        self._open = True
        store.stop.check()
        with as_arrow_error(key, writing=True):
            self._stream = self._begin()

    def _begin(self) -> _Stream:
        """Open the draft. A folder is only made where one is needed: a bucket would keep it."""
        system, path = self._store.system, self._store.path(self._draft)
        with suppress(FileNotFoundError):
            stream: _Stream = system.open_output_stream(path, compression=None)
            return stream
        system.create_dir(path.rpartition("/")[0], recursive=True)
        made: _Stream = system.open_output_stream(path, compression=None)
        return made

    def write(self, data: BytesLike) -> None:
        """Append bytes."""
        with counted(self._meter, Verb.UPLOAD_PART, self._key, len(data)):
            self.append(data)

    def append(self, data: BytesLike) -> None:
        """Append bytes, without a word to the meter."""
        self._store.stop.check()
        with as_arrow_error(self._key, writing=True):
            self._stream.write(data)

    def complete(self, *, if_absent: bool = False) -> ObjectInfo:
        """Make the object of what was written."""
        with counted(self._meter, Verb.COMPLETE_UPLOAD, self._key):
            return self.publish(if_absent=if_absent)

    def written(self) -> datetime | None:
        """Close the draft, and return when it was written."""
        with as_arrow_error(self._key, writing=True):
            self._stream.close()
            return self._store.info(self._draft).modified

    def publish(self, *, if_absent: bool, if_match: str | None = None) -> ObjectInfo:
        """Make the object of the draft, without a word to the meter."""
        self._store.stop.check()
        with as_arrow_error(self._key, writing=True):
            self._stream.close()
            written = self._store.info(self._draft)
            if if_absent:
                self._store.must_be_absent(self._key)
            if if_match is not None and self._store.info(self._key).etag != if_match:
                raise ObjectExists(f"{self._store.url}/{self._key}: there is another one")
            self._store.system.move(self._store.path(self._draft), self._store.path(self._key))
            self._open = False
            found = self._store.info(self._key)
        if found.size != written.size:
            raise ObjectExists(f"{self._store.url}/{self._key}: somebody wrote another one")
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        if self._open:
            self._open = False
            with as_arrow_error(self._key, writing=True):
                self._stream.close()
            self._store.remove(self._draft)


@contextmanager
def as_arrow_error(key: str, *, writing: bool = False) -> Iterator[None]:
    """Raise an error of `crossdock.store.errors` for what `pyarrow` raises."""
    with as_store_error(key, writing=writing):
        try:
            yield
        except pa.ArrowException as problem:
            raise StoreUnavailable(f"{key}: {problem}") from problem


def _time(nanoseconds: int) -> datetime | None:
    """Return when a file was written; None where the file system does not say."""
    return datetime.fromtimestamp(nanoseconds / _NANOSECONDS, UTC) if nanoseconds else None


def _etag(info: pafs.FileInfo) -> str:
    return f"{info.mtime_ns or 0:x}-{info.size or 0:x}"
