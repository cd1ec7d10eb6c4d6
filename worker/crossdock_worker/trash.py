"""How files go: a rename takes them out of sight at once, then they are deleted without haste.

{data_dir}/trash/{random}    nothing that anybody needs; emptied at every start
{data_dir}/spare             room for writing down what goes, when the disk is full

That something goes is written down before it does, and on a full disk nothing could be: what
would free space would wait for space.
"""

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from crossdock.errors import Overloaded
from crossdock_worker.files import write_json

T = TypeVar("T")

_SPARE_BYTES: Final = 2**20


class Trash:
    """A directory on the file system of what is thrown into it."""

    def __init__(self, directory: Path) -> None:
        """Delete what a process that was killed left behind."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._spare = directory.with_name("spare")
        self._lock = threading.Lock()
        self._make_spare()

    def _make_spare(self) -> None:
        with self._lock, suppress(OSError):  # on a full disk: the next deletion makes it
            fd = os.open(self._spare, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(fd).st_size < _SPARE_BYTES:
                    os.posix_fallocate(fd, 0, _SPARE_BYTES)
            finally:
                os.close(fd)

    def write_down(self, path: Path, data: object) -> None:
        """Write a small JSON file whole that says what goes; gives up the spare room if need be."""
        self._with_spare(partial(write_json, path, data))

    def free(self, work: Callable[[], T]) -> T:
        """Do what gives space back once it has written that down, on a full disk too."""
        try:
            return self._with_spare(work)
        finally:
            self._make_spare()

    def _with_spare(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Overloaded:
            with self._lock:
                self._spare.unlink(missing_ok=True)
            return work()

    def take(self, path: Path) -> Path:
        """Move a directory out of sight; returns where it is now, for `delete`."""
        place = self._directory / os.urandom(16).hex()
        try:
            path.rename(place)
        except OSError:  # gone, or a disk that takes no change: then it is deleted where it is
            return path
        return place

    def delete(self, place: Path) -> None:
        """Delete what `take` moved; takes its time."""
        shutil.rmtree(place, ignore_errors=True)
        self._make_spare()
