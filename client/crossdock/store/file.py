"""A directory as a store: for runs on one machine, and for volumes that machines share.

An object is a file, written as a draft beside its place (tree.py) and then renamed, or linked
where it must be the first. A crash leaves drafts, which `uploads` lists.
"""

import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from crossdock.cancel import Cancel, Stop, Unstopped
from crossdock.errors import ConfigError
from crossdock.store import bodies
from crossdock.store.accounting import counted
from crossdock.store.api import (
    Capabilities,
    Meter,
    ObjectInfo,
    Source,
    UnfinishedUpload,
    Verb,
)
from crossdock.store.errors import ObjectDamaged, ObjectExists, ObjectMissing
from crossdock.store.keys import check_key, check_prefix
from crossdock.store.oserrors import NO_LINKS, as_store_error
from crossdock.store.ranges import resolve
from crossdock.store.tree import Entry, draft_key, is_draft, new_draft, parsed, walk
from crossdock.wire import crc
from crossdock.wire.crc import BytesLike

_NANOSECONDS: Final = 1e9
_FOLDER_TRIES: Final = 100
"""How often a folder is made anew that a delete takes away as soon as it is empty."""
_RANDOM_NAME: Final = "probe"


class FileStore:
    """A directory. See `crossdock.store.api.Store`."""

    def __init__(self, root: Path, *, fsync: bool = False, meter: Meter | None = None) -> None:
        """Take a directory, which is made by the first write.

        Args:
            root: absolute.
            fsync: wait for the disk before an object counts as written.
            meter: is told of each call, as of one request.
        """
        if root.exists() and not root.is_dir():
            raise ConfigError(f"store {root.as_uri()}: it is not a directory")
        self.url = root.as_uri()
        self._root = root
        self._fsync = fsync
        self._meter = meter
        self.stop: Stop = Unstopped()
        self._whole = self

    def __repr__(self) -> str:
        return f"<FileStore {self.url}>"

    @cached_property
    def capabilities(self) -> Capabilities:
        """Found by trying: some file systems have no hard links."""
        draft = FileUpload(self._whole, _RANDOM_NAME)
        target = draft.path.with_name(f"{draft.path.name}-link")
        with draft, as_store_error(_RANDOM_NAME):
            try:
                target.hardlink_to(draft.path)
                links = True
            except OSError as problem:
                if problem.errno not in NO_LINKS:
                    raise
                links = False
            target.unlink(missing_ok=True)
        return Capabilities(
            conditional_put=links,
            conditional_replace=False,
            lists_uploads=True,
            has_uploads=True,
            checks_checksums=True,
        )

    def stopped_by(self, stop: Stop) -> "FileStore":
        """Return the same directory for a writer that may be ended."""
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
        """Write an object."""
        source = bodies.as_source(body)
        with (
            counted(self._meter, Verb.PUT, key, source.nbytes),
            FileUpload(self, check_key(key)) as draft,
        ):
            found = 0
            for piece in bodies.pieces(source):
                draft.append(piece)
                found = found if crc32c is None else crc.extend(found, piece)
            if crc32c is not None and found != crc32c:
                raise ObjectDamaged(f"{self.url}/{key}: its bytes are not those of its checksum")
            return draft.publish(if_absent=if_absent, if_match=if_match)

    def upload(self, key: str) -> "FileUpload":
        """Begin an object whose length is not known."""
        with counted(self._meter, Verb.CREATE_UPLOAD, key):
            return FileUpload(self, check_key(key), meter=self._meter)

    def get(
        self,
        key: str,
        start: int = 0,
        stop: int | None = None,
        *,
        etag: str | None = None,
        cancel: Cancel | None = None,  # noqa: ARG002 -- nothing waits here
    ) -> "FileReading":
        """Read an object, or a range of it."""
        with counted(self._meter, Verb.GET, key), as_store_error(key):
            descriptor = os.open(self.path(check_key(key)), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                info = _object_info(key, os.fstat(descriptor))
                return FileReading(descriptor, info, *resolve(info, start, stop, etag))
            except BaseException:
                os.close(descriptor)
                raise

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
            self._remove(draft_key(check_key(upload.key), upload.upload_id))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, and folders that are empty then."""
        for key in keys:
            with counted(self._meter, Verb.DELETE, key):
                self._remove(check_key(key))

    def now(self) -> datetime | None:
        """Return the time that the file system gives to a file: another machine's, maybe."""
        if not self._root.exists():
            return datetime.now(UTC)
        with FileUpload(self, _RANDOM_NAME) as draft, as_store_error(_RANDOM_NAME):
            return _time(draft.path.stat().st_mtime_ns)

    def close(self) -> None:
        """Nothing is held."""

    def path(self, key: str) -> Path:
        """Return where an object lies, or raise `ConfigError` if a link leads out of the store."""
        path = self._root / key
        within = os.path.relpath(path.parent, self._root)
        if os.path.realpath(path.parent) != os.path.normpath(self._real_root / within):
            raise ConfigError(f"{self.url}/{key}: symbolic links are not followed")
        return path

    @cached_property
    def _real_root(self) -> Path:
        return Path(os.path.realpath(self._root))

    def sync(self, path: Path) -> None:
        """Bring a folder's entries to the disk, if the store waits for it."""
        if self._fsync:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @property
    def waits(self) -> bool:
        """Whether writes wait for the disk."""
        return self._fsync

    def _remove(self, key: str) -> None:
        path = self.path(key)
        with as_store_error(key), suppress(FileNotFoundError, NotADirectoryError):
            if path.is_dir():
                return  # folders are no objects
            path.unlink()
        self.prune(path.parent)

    def prune(self, folder: Path) -> None:
        """Remove a folder and those above it as long as they are empty, but not the store's."""
        with suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent

    def _scan(self, folder: str) -> Iterator[Entry]:
        path = self.path(folder + _RANDOM_NAME).parent
        with (
            as_store_error(folder),
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(path) as found,
        ):
            for each in found:
                with suppress(FileNotFoundError):  # gone since
                    if each.is_dir(follow_symlinks=False):
                        yield Entry(each.name, is_folder=True)
                    elif each.is_file(follow_symlinks=False):
                        yield _entry(each.name, each.stat(follow_symlinks=False))


class FileReading:
    """Bytes of a file. See `crossdock.store.api.Reading`."""

    def __init__(self, descriptor: int, info: ObjectInfo, start: int, stop: int) -> None:
        self.info = info
        self.nbytes = stop - start
        self._descriptor = descriptor
        self._at = start
        self._stop = stop

    def read_into(self, target: memoryview) -> int:
        """Fill at least a byte of `target`; return how many, 0 only at the end."""
        wanted = min(len(target), self._stop - self._at)
        if not wanted:
            return 0
        with as_store_error(self.info.key):
            count = os.preadv(self._descriptor, [target[:wanted]], self._at)
        if not count:
            raise ObjectDamaged(f"{self.info.key}: it ends at byte {self._at}")
        self._at += count
        return count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FileUpload:
    """A draft, and what becomes of it. See `crossdock.store.api.Upload`."""

    def __init__(self, store: FileStore, key: str, *, meter: Meter | None = None) -> None:
        self._store = store
        self._key = key
        self._meter = meter
        self._target = store.path(key)
        store.stop.check()
        self.path = store.path(draft_key(key, new_draft()))
        """Of the draft."""
        self._descriptor = self._open()
        self._lock = threading.Lock()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with as_store_error(self._key, writing=True):
            for _ in range(_FOLDER_TRIES):
                with suppress(FileNotFoundError, FileExistsError):  # a delete takes a folder away
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    return os.open(self.path, flags, 0o666)
            return os.open(self.path, flags, 0o666)

    def write(self, data: BytesLike) -> None:
        """Append bytes."""
        with counted(self._meter, Verb.UPLOAD_PART, self._key, len(data)):
            self.append(data)

    def append(self, data: BytesLike) -> None:
        """Append bytes, without a word to the meter."""
        left = memoryview(data).cast("B")
        self._store.stop.check()
        with as_store_error(self._key, writing=True):
            while left:
                left = left[os.write(self._descriptor, left) :]

    def complete(self, *, if_absent: bool = False) -> ObjectInfo:
        """Make the object of what was written."""
        with counted(self._meter, Verb.COMPLETE_UPLOAD, self._key):
            return self.publish(if_absent=if_absent)

    def publish(self, *, if_absent: bool, if_match: str | None = None) -> ObjectInfo:
        """Make the object of the draft, without a word to the meter."""
        self._store.stop.check()
        with as_store_error(self._key, writing=True):
            if if_match is not None and self._etag() != if_match:
                raise ObjectExists(f"{self._store.url}/{self._key}: there is another one")
            if self._store.waits:
                os.fsync(self._descriptor)
            status = os.fstat(self._descriptor)
            if if_absent:
                self._link(status)
            else:
                self.path.replace(self._target)
            self._store.sync(self._target.parent)
        self._close()
        return info_of(self._key, status)

    def _etag(self) -> str:
        try:
            return _object_info(self._key, self._target.lstat()).etag
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(f"{self._store.url}/{self._key}: there is no such object") from None

    def _link(self, status: os.stat_result) -> None:
        problem = f"{self._store.url}/{self._key}: there is one"
        try:
            os.link(self.path, self._target, follow_symlinks=False)
        except FileExistsError:
            raise ObjectExists(problem) from None
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            if self._target.exists():
                raise ObjectExists(problem) from None
            self.path.replace(self._target)
            if self._target.stat().st_ino != status.st_ino:
                raise ObjectExists(problem) from None

    def _close(self) -> None:
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                self.path.unlink()
            self._store.prune(self.path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()


def _object_info(key: str, status: os.stat_result) -> ObjectInfo:
    if not stat.S_ISREG(status.st_mode):  # a folder is no object
        raise ObjectMissing(f"{key}: there is no such object")
    return info_of(key, status)


def info_of(key: str, status: os.stat_result) -> ObjectInfo:
    """Return a file's facts. One that was replaced has another inode; one changed, a new time."""
    etag = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    return ObjectInfo(key, status.st_size, etag, _time(status.st_mtime_ns))


def _entry(file_name: str, status: os.stat_result) -> Entry:
    name, draft = parsed(file_name)
    info = info_of("", status)
    return Entry(name, draft=draft, size=info.size, modified_ns=status.st_mtime_ns, etag=info.etag)


def _time(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / _NANOSECONDS, UTC)
