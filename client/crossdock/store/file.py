"""A directory as a store: for runs on one machine, and for volumes that machines share.

An object is a file, written as a draft beside its place (tree.py) and then renamed, or linked
where it must be the first. A crash leaves drafts, which `uploads` lists.
"""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from crossdock.cancel import Cancel
from crossdock.errors import ConfigError
from crossdock.store.accounting import counted
from crossdock.store.api import (
    Capabilities,
    Meter,
    ObjectInfo,
    Verb,
)
from crossdock.store.drafted import Draft, DraftedStore, as_time
from crossdock.store.errors import ObjectDamaged, ObjectExists, ObjectMissing
from crossdock.store.keys import check_key
from crossdock.store.oserrors import NO_LINKS, as_store_error
from crossdock.store.ranges import resolve
from crossdock.store.tree import Entry, draft_key, new_draft, parsed
from crossdock.wire.crc import BytesLike

_NANOSECONDS: Final = 1e9
_FOLDER_TRIES: Final = 100
"""How often a folder is made anew that a delete takes away as soon as it is empty."""
_RANDOM_NAME: Final = "probe"


class FileStore(DraftedStore["FileUpload"]):
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
        super().__init__(root.as_uri(), meter)
        self._root = root
        self._fsync = fsync
        self._whole = self

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

    def draft(self, key: str, meter: Meter | None = None) -> "FileUpload":
        """Open a draft of an object, beside its place."""
        return FileUpload(self, key, meter=meter)

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

    def now(self) -> datetime | None:
        """Return the time that the file system gives to a file: another machine's, maybe."""
        if not self._root.exists():
            return datetime.now(UTC)
        with FileUpload(self, _RANDOM_NAME) as draft, as_store_error(_RANDOM_NAME):
            return as_time(draft.path.stat().st_mtime_ns)

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

    def remove(self, key: str) -> None:
        """Remove a file that may be gone already, and the folders that are empty then."""
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

    def scan(self, folder: str) -> Iterator[Entry]:
        """Yield what is in a folder."""
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


class FileUpload(Draft):
    """A file that is to become an object."""

    def __init__(self, store: FileStore, key: str, *, meter: Meter | None = None) -> None:
        super().__init__(key, meter)
        self._store = store
        self._target = store.path(key)
        store.stop.check()
        self.path = store.path(draft_key(key, new_draft()))
        """Of the draft."""
        self._descriptor = self._open()
        self._lock = threading.Lock()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with as_store_error(self.key, writing=True):
            for _ in range(_FOLDER_TRIES):
                with suppress(FileNotFoundError, FileExistsError):  # a delete takes a folder away
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    return os.open(self.path, flags, 0o666)
            return os.open(self.path, flags, 0o666)

    def append(self, data: BytesLike) -> None:
        """Append bytes, without a word to the meter."""
        left = memoryview(data).cast("B")
        self._store.stop.check()
        with as_store_error(self.key, writing=True):
            while left:
                left = left[os.write(self._descriptor, left) :]

    def publish(self, *, if_absent: bool, if_match: str | None = None) -> ObjectInfo:
        """Make the object of the draft, without a word to the meter."""
        self._store.stop.check()
        with as_store_error(self.key, writing=True):
            if if_match is not None and self._etag() != if_match:
                raise ObjectExists(f"{self._store.url}/{self.key}: there is another one")
            if self._store.waits:
                os.fsync(self._descriptor)
            status = os.fstat(self._descriptor)
            if if_absent:
                self._link(status)
            else:
                self.path.replace(self._target)
            self._store.sync(self._target.parent)
        self.close()
        return info_of(self.key, status)

    def _etag(self) -> str:
        try:
            return _object_info(self.key, self._target.lstat()).etag
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(f"{self._store.url}/{self.key}: there is no such object") from None

    def _link(self, status: os.stat_result) -> None:
        problem = f"{self._store.url}/{self.key}: there is one"
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

    def close(self) -> None:
        """Remove it, if it has not become the object."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                self.path.unlink()
            self._store.prune(self.path.parent)


def _object_info(key: str, status: os.stat_result) -> ObjectInfo:
    if not stat.S_ISREG(status.st_mode):  # a folder is no object
        raise ObjectMissing(f"{key}: there is no such object")
    return info_of(key, status)


def info_of(key: str, status: os.stat_result) -> ObjectInfo:
    """Return a file's facts. One that was replaced has another inode; one changed, a new time."""
    etag = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    return ObjectInfo(key, status.st_size, etag, as_time(status.st_mtime_ns))


def _entry(file_name: str, status: os.stat_result) -> Entry:
    name, draft = parsed(file_name)
    info = info_of("", status)
    return Entry(name, draft=draft, size=info.size, modified_ns=status.st_mtime_ns, etag=info.etag)
