"""Several files as one range of addresses, so that several frames are written at once.

A file system lets one writer at a time into a file: two connections that push to one shuffle would
spend a fifth of their time on waiting for each other. So each frame goes to the file into which the
fewest are being written. As long as one comes at a time, that is the first.

Addresses go from file to file in extents of `EXTENT_BYTES`: byte b of file f has the address
(b // EXTENT_BYTES * FILES + f) * EXTENT_BYTES + b % EXTENT_BYTES. No range crosses an extent. All
files are mapped into one array by address, so what reads pieces need not know of files. Where a
file does not reach, the array has no memory.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from crossdock.wire.crc import I64
from crossdock_worker.files import RangeFile, writing
from crossdock_worker.mapping import Part, map_together

FILES: Final = 2
"""More gained nothing on two cores, and each costs a descriptor."""
EXTENT_BYTES: Final = 2**30
"""No frame's payload is larger."""
_ROUND: Final = FILES * EXTENT_BYTES


Place = TypeVar("Place", int, I64)


def place(at: Place) -> tuple[Place, Place]:
    """Return the file of an address, or of each of many, and the offset in it."""
    return at // EXTENT_BYTES % FILES, at // _ROUND * EXTENT_BYTES + at % EXTENT_BYTES


def address(file: int, offset: int) -> int:
    """Return the address of a byte of a file."""
    return (offset // EXTENT_BYTES * FILES + file) * EXTENT_BYTES + offset % EXTENT_BYTES


def split(addresses: I64, lengths: I64) -> tuple[I64, I64]:
    """Return ranges of addresses in such parts that each lies in one file."""
    extents = (addresses % EXTENT_BYTES + np.maximum(lengths, 1) - 1) // EXTENT_BYTES + 1
    if (extents == 1).all():
        return addresses, lengths
    which = np.repeat(np.arange(len(addresses)), extents)
    nth = np.arange(len(which)) - np.repeat(np.cumsum(extents) - extents, extents)
    extent = (addresses // EXTENT_BYTES)[which] + nth
    starts = np.maximum(addresses[which], extent * EXTENT_BYTES)
    ends = np.minimum((addresses + lengths)[which], (extent + 1) * EXTENT_BYTES)
    return starts, ends - starts


def ends(addresses: I64, lengths: I64) -> tuple[int, ...]:
    """Return, of each file, where the last of ranges ends; none of them crosses an extent."""
    files, offsets = place(addresses)
    return tuple(int((offsets + lengths)[files == file].max(initial=0)) for file in range(FILES))


class StripedFile:
    """What a `RangeFile` is, over `FILES` files. Not thread-safe: its owner locks."""

    def __init__(self, directory: Path, stem: str) -> None:
        """Open STEM.log, STEM-2.log and so on, made if need be."""
        with ExitStack() as opened:  # if one cannot be opened, the others are closed
            self.files: list[RangeFile] = []
            for name in names(stem):
                self.files.append(RangeFile(directory / name, extent_bytes=EXTENT_BYTES))
                opened.callback(self.files[-1].close)
            opened.pop_all()
        self._writers = [0] * FILES
        self._sizes: tuple[int, ...] = (0,) * FILES
        self._view: npt.NDArray[np.uint8] = np.empty(0, np.uint8)

    @property
    def used_bytes(self) -> int:
        """Bytes handed out and not given back."""
        return sum(file.used_bytes for file in self.files)

    def reserve(self, size: int) -> int:
        """Return the address of a range of `size` bytes that is the caller's, until `written`."""
        file = self._writers.index(min(self._writers))
        offset = self.files[file].reserve(size)
        self._writers[file] += 1
        return address(file, offset)

    def written(self, at: int) -> None:
        """Take note that nobody writes to a reserved range any more, whatever becomes of it."""
        self._writers[place(at)[0]] -= 1

    def give_back(self, at: int, size: int) -> None:
        """Take a range back whose bytes nobody will read."""
        for file, offset, part in self._parts(at, size):
            file.give_back(offset, part)

    def punch(self, at: int, size: int) -> None:
        """Give the disk space of a range back that nobody reads and that is not handed out."""
        for file, offset, part in self._parts(at, size):
            file.punch(offset, part)

    def punch_unused(self) -> None:
        """Give back the space of all that is not handed out. Nobody may reserve meanwhile."""
        for file in self.files:
            file.punch_unused()

    def restore(self, addresses: I64, sizes: I64) -> None:
        """Take these ranges as handed out; see `RangeFile.restore`."""
        of, offsets = place(addresses)
        for number, file in enumerate(self.files):
            file.restore(offsets[of == number], sizes[of == number])

    def write(self, at: int, data: bytes | memoryview) -> None:
        """Write all of `data` at an address. Safe from any thread for a range that it owns."""
        file, offset = place(at)
        self.files[file].write(offset, data)

    def mapped(self) -> npt.NDArray[np.uint8]:
        """Return u8[…] by address, mapped as far as ranges reach; valid as long as it is held."""
        if any(file.end > size for file, size in zip(self.files, self._sizes, strict=True)):
            sizes = tuple(file.grow() for file in self.files)
            parts = [
                Part(address(number, offset), file.fd, offset, min(EXTENT_BYTES, size - offset))
                for number, (file, size) in enumerate(zip(self.files, sizes, strict=True))
                for offset in range(0, size, EXTENT_BYTES)
            ]
            with writing(self.files[0].path):
                self._view = map_together(parts)
            self._sizes = sizes
        return self._view

    def descriptors(self) -> list[int]:
        """Return duplicates of the files' descriptors, which the caller closes."""
        with ExitStack() as made:
            found: list[int] = []
            for file in self.files:
                with writing(file.path):
                    found.append(os.dup(file.fd))
                made.callback(os.close, found[-1])
            made.pop_all()
        return found

    def close(self) -> None:
        """Close the files; arrays from `mapped` stay valid."""
        for file in self.files:
            file.close()
        self._sizes, self._view = (0,) * FILES, np.empty(0, np.uint8)

    def _parts(self, at: int, size: int) -> Iterator[tuple[RangeFile, int, int]]:
        while size:
            part = min(size, EXTENT_BYTES - at % EXTENT_BYTES)
            file, offset = place(at)
            yield self.files[file], offset, part
            at, size = at + part, size - part


def names(stem: str) -> Iterator[str]:
    """Yield the names of the files of a stem."""
    yield f"{stem}.log"
    for number in range(2, FILES + 1):
        yield f"{stem}-{number}.log"
