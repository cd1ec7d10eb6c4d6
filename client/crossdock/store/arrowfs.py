"""Stores that `pyarrow.fs` speaks to: Google's, Azure's, and HDFS.

Their interface there has no conditional put, no checksums, no ETags and no listing of unfinished
uploads. An object is written as a draft (tree.py) and moved to its place when it is whole; a
crash leaves drafts, which `uploads` lists, and what the service itself throws away after a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from crossdock.cancel import Cancel
from crossdock.errors import ConfigError
from crossdock.store.accounting import counted
from crossdock.store.api import (
    Capabilities,
    Meter,
    ObjectInfo,
    StoreOptions,
    Verb,
)
from crossdock.store.drafted import Draft, DraftedStore
from crossdock.store.errors import ObjectDamaged, ObjectExists, ObjectMissing, StoreUnavailable
from crossdock.store.keys import check_key
from crossdock.store.oserrors import as_store_error
from crossdock.store.ranges import resolve
from crossdock.store.tree import Entry, draft_key, new_draft, parsed
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


class ArrowStore(DraftedStore["ArrowUpload"]):
    """A folder of a file system of `pyarrow.fs`. See `crossdock.store.api.Store`."""

    def __init__(
        self, url: str, system: pafs.FileSystem, root: str, *, meter: Meter | None = None
    ) -> None:
        """Take a file system and the folder of it that is the store."""
        super().__init__(url, meter)
        self.system = system
        self._root = root.rstrip("/")

    @property
    def capabilities(self) -> Capabilities:
        """The same for all: what the interface lacks, no file system behind it can give."""
        return _CAPABILITIES

    def draft(self, key: str, meter: Meter | None = None) -> "ArrowUpload":
        """Open a draft of an object, beside its place."""
        return ArrowUpload(self, key, meter=meter)

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

    def now(self) -> datetime | None:
        """Return the time that the file system gives to a file."""
        with ArrowUpload(self, _CLOCK) as draft:
            return draft.written()

    def path(self, key: str) -> str:
        """Return where an object lies in the file system."""
        return f"{self._root}/{key}"

    def info(self, key: str) -> ObjectInfo:
        """Return the facts of an object, or raise `ObjectMissing`."""
        found = self.system.get_file_info(self.path(key))
        if found.type != pafs.FileType.File:
            raise ObjectMissing(f"{self.url}/{key}: there is no such object")
        return ObjectInfo(key, int(found.size), _etag(found), found.mtime)

    def check_absent(self, key: str) -> None:
        """Raise `ObjectExists` if there is one; it is looked at once more when all is sent."""
        with suppress(ObjectMissing):
            self.info(key)
            raise ObjectExists(f"{self.url}/{key}: there is one")

    def remove(self, key: str) -> None:
        """Remove a file that may be gone already. Folders stay: `pyarrow.fs` can only remove one
        with all that is in it, and that may be what another writer has just put there.
        """
        with as_arrow_error(key), suppress(FileNotFoundError, NotADirectoryError):
            if self.system.get_file_info(self.path(key)).type == pafs.FileType.File:
                self.system.delete_file(self.path(key))

    def scan(self, folder: str) -> Iterator[Entry]:
        """Yield what is in a folder."""
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


class ArrowUpload(Draft):
    """A file that is to become an object."""

    def __init__(self, store: ArrowStore, key: str, *, meter: Meter | None = None) -> None:
        super().__init__(key, meter)
        self._store = store
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

    def append(self, data: BytesLike) -> None:
        """Append bytes, without a word to the meter."""
        self._store.stop.check()
        with as_arrow_error(self.key, writing=True):
            self._stream.write(data)

    def written(self) -> datetime | None:
        """Close the draft, and return when it was written."""
        with as_arrow_error(self.key, writing=True):
            self._stream.close()
            return self._store.info(self._draft).modified

    def publish(self, *, if_absent: bool, if_match: str | None = None) -> ObjectInfo:
        """Make the object of the draft, without a word to the meter."""
        self._store.stop.check()
        with as_arrow_error(self.key, writing=True):
            self._stream.close()
            written = self._store.info(self._draft)
            if if_absent:
                self._store.check_absent(self.key)
            if if_match is not None and self._store.info(self.key).etag != if_match:
                raise ObjectExists(f"{self._store.url}/{self.key}: there is another one")
            self._store.system.move(self._store.path(self._draft), self._store.path(self.key))
            self._open = False
            found = self._store.info(self.key)
        if found.size != written.size:
            raise ObjectExists(f"{self._store.url}/{self.key}: somebody wrote another one")
        return found

    def close(self) -> None:
        """Remove it, if it has not become the object."""
        if self._open:
            self._open = False
            with as_arrow_error(self.key, writing=True):
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


def _etag(info: pafs.FileInfo) -> str:
    return f"{info.mtime_ns or 0:x}-{info.size or 0:x}"
