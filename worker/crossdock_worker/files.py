"""Append-only files that are also mapped: reserve a range, write it, read it through the map."""

import ctypes
import errno
import json
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from crossdock.errors import CrossdockError, Overloaded, Unavailable

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_DESCRIPTOR: Final = {errno.EMFILE, errno.ENFILE}
_MAP_STEP_BYTES: Final = 16 * 2**20
_KEEP_SIZE_PUNCH_HOLE: Final = 0x01 | 0x02
_NO_HOLES: Final = {errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV}
_libc: Final = ctypes.CDLL(None, use_errno=True)


def disk_error(error: OSError, what: str) -> CrossdockError:
    """Return push-back for what another worker may do better, else an error that names the file."""
    if error.errno in _FULL:
        return Overloaded(f"disk full while writing {what}", retry_after_seconds=5)
    if error.errno in _NO_DESCRIPTOR:
        return Overloaded(
            f"no file descriptor is left for {what}",
            retry_after_seconds=5,
            hint="raise the worker's limit of open files (ulimit -n), or lower --max-shuffles",
        )
    if error.errno == errno.EROFS:
        return Unavailable(
            f"cannot write {what}: its file system is read-only",
            hint="push to another worker; look for disk errors in the kernel's log",
        )
    return CrossdockError(f"cannot write {what}: {error}")


def punch_hole(fd: int, offset: int, size: int) -> bool:
    """Give a range of a file back to the file system: it reads as zeros from then on.

    The file keeps its size, so that a map of it stays whole. Returns False where the file system
    has no holes; raises OSError.
    """
    parts = ctypes.c_int64(offset), ctypes.c_int64(size)
    if not size or not _libc.fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, *parts):
        return True
    number = ctypes.get_errno()
    if number in _NO_HOLES:
        return False
    raise OSError(number, os.strerror(number))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a file that is made or written into our errors."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, str(path)) from error


def open_file(path: Path, flags: int) -> int:
    """Open a file, made if need be, and return its descriptor; raises as `disk_error` says."""
    with writing(path):
        return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)


def make_directory(path: Path) -> None:
    """Make a directory and those above it; raises as `disk_error` says."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


class RangeFile:
    """A file handed out in ranges. Not thread-safe: its owner locks.

    Ranges that were given back are handed out again, so that pushes which failed half-way cost
    no space for long.
    """

    __slots__ = ("_extent_bytes", "_free", "_free_bytes", "_map", "_view", "end", "fd", "path")

    def __init__(self, path: Path, *, extent_bytes: int = 2**63) -> None:
        """Open a file, made if need be. No range crosses a multiple of `extent_bytes`."""
        self.path = path
        self._extent_bytes = extent_bytes
        self.fd = open_file(path, os.O_RDWR)
        self.end = 0
        self._free: list[tuple[int, int]] = []  # rising; no two touch, none ends at `end`
        self._free_bytes = 0
        self._map: mmap.mmap | None = None
        self._view: npt.NDArray[np.uint8] = np.empty(0, np.uint8)

    def reserve(self, size: int) -> int:
        """Return the offset of a range of `size` bytes that is now the caller's alone."""
        for i, (offset, length) in enumerate(self._free):
            at = self._within_extent(offset, size)
            if offset + length >= at + size:
                rest = [(offset, at - offset), (at + size, offset + length - at - size)]
                self._free[i : i + 1] = [part for part in rest if part[1]]
                self._free_bytes -= size
                return at
        at = self._within_extent(self.end, size)
        if at > self.end:
            self._free.append((self.end, at - self.end))
            self._free_bytes += at - self.end
        self.end = at + size
        return at

    def _within_extent(self, offset: int, size: int) -> int:
        """Return where a range can begin, at `offset` or later."""
        extent = self._extent_bytes
        return offset if offset % extent + size <= extent else offset + extent - offset % extent

    def give_back(self, offset: int, size: int) -> None:
        """Take a range back whose bytes nobody will read."""
        if not size:
            return
        self._free_bytes += size
        free, stop = self._free, offset + size
        i = bisect_left(free, (offset, 0))
        if i < len(free) and free[i][0] == stop:
            stop += free.pop(i)[1]
        if i and sum(free[i - 1]) == offset:
            i -= 1
            offset = free.pop(i)[0]
        if stop < self.end:
            free.insert(i, (offset, stop - offset))
        else:
            self.end = offset
            self._free_bytes -= stop - offset

    def restore(self, offsets: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer]) -> None:
        """Take these ranges as handed out, find the file's end, and hand out what lies between.

        That is what pushes held that a crash cut off. Empty ranges hold nothing: where they stand
        may be behind the last byte that was ever written.
        """
        held = np.flatnonzero(sizes > 0)
        order = held[np.argsort(offsets[held])]
        starts = offsets[order].astype(np.int64)
        ends = starts + sizes[order].astype(np.int64)
        covered = np.concatenate(([0], np.maximum.accumulate(ends)))
        self.end = int(covered[-1])
        holes = starts > covered[:-1]
        for a, b in zip(covered[:-1][holes].tolist(), starts[holes].tolist(), strict=True):
            self.give_back(a, b - a)

    def punch(self, offset: int, size: int) -> None:
        """Give the disk space of a range back that nobody reads and that is not handed out."""
        with writing(self.path):
            punch_hole(self.fd, offset, size)

    def punch_unused(self) -> None:
        """Give back the space of all that is not handed out. Nobody may reserve meanwhile."""
        for offset, size in self._free:
            self.punch(offset, size)
        self.punch(self.end, max(0, self.size - self.end))

    @property
    def size(self) -> int:
        """Bytes up to the end of the file, which is ahead of the last range."""
        return os.fstat(self.fd).st_size

    @property
    def used_bytes(self) -> int:
        """Bytes handed out and not given back."""
        return self.end - self._free_bytes

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write all of `data` at `offset`. Safe to call from any thread for a range it owns."""
        view = memoryview(data)
        while view:
            try:
                n = os.pwrite(self.fd, view, offset)
            except OSError as error:
                raise disk_error(error, str(self.path)) from error
            view, offset = view[n:], offset + n

    def grow(self) -> int:
        """Have the file reach so far that what is handed out can be mapped; return how far.

        That is (sparsely) ahead of its end, so that it is mapped anew only rarely.
        """
        if not self.end:
            return 0
        size = max(_MAP_STEP_BYTES, 1 << (self.end - 1).bit_length())
        with writing(self.path):
            if os.fstat(self.fd).st_size < size:
                os.ftruncate(self.fd, size)
        return size

    def mapped(self) -> npt.NDArray[np.uint8]:
        """Return u8[≥ end], the file's bytes; stays valid for as long as it is held."""
        if self.end > len(self._view):
            size = self.grow()
            with writing(self.path):
                self._map = mmap.mmap(self.fd, size, prot=mmap.PROT_READ)
            self._view = np.frombuffer(self._map, np.uint8)
        return self._view

    def close(self) -> None:
        """Close the file; arrays from `mapped` stay valid."""
        os.close(self.fd)
        self._map = None
        self._view = np.empty(0, np.uint8)


def subdirs(path: Path) -> list[Path]:
    """Return the directories in a directory, sorted; none if there is no such."""
    return sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []


def write_json(path: Path, data: object) -> None:
    """Write a small file whole or not at all."""
    write_atomically(path, json.dumps(data, indent=1).encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    with writing(path):
        temporary.write_bytes(data)
        temporary.replace(path)
