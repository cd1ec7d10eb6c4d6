"""Parts of several files, mapped for reading into one array. What `mmap` of Python cannot do."""

import ctypes
import mmap
import os
import weakref
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

_PROT_NONE: Final = 0
_MAP_FIXED: Final = 0x10
"""On Linux and macOS."""
_FAILED: Final = ctypes.c_void_p(-1).value
_libc: Final = ctypes.CDLL(None, use_errno=True)
_mmap: Final = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_munmap: Final = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Part(NamedTuple):
    """A part of a file, and where in the array it shall be. All in bytes, by whole pages."""

    at: int
    fd: int
    offset: int
    size: int


class _Area:
    """Addresses that are ours; given back with the last array over them."""

    def __init__(self, size: int) -> None:
        nowhere = _mmap(None, size, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        self.start = _checked(nowhere)
        # Not at the interpreter's end: a thread may still be reading then.
        weakref.finalize(self, _munmap, self.start, size).atexit = False
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (size,),
            "data": (self.start, True),
        }


def map_together(parts: Iterable[Part]) -> npt.NDArray[np.uint8]:
    """Return u8[…] up to the last part's end. Where no part is, there is no memory to read.

    The files have to be as long as what is mapped of them, and to stay so: to read behind the end
    of a file kills the process. They may be closed.

    Raises:
        OSError: the system has no room, or a file cannot be mapped.
    """
    parts = [part for part in parts if part.size]
    size = max((part.at + part.size for part in parts), default=0)
    if not size:
        return np.empty(0, np.uint8)
    area = _Area(size)
    how = mmap.MAP_SHARED | _MAP_FIXED
    for part in parts:
        where = area.start + part.at
        _checked(_mmap(where, part.size, mmap.PROT_READ, how, part.fd, part.offset))
    return np.asarray(area)


def _checked(address: int | None) -> int:
    if address is None or address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return address
