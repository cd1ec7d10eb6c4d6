"""Memory that batches are read into, used again once nobody refers to what lay there.

The system clears every page that it hands out, which costs most of what receiving into it does.
"""

import weakref
from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

_STEP_BYTES: Final = 1024 * 1024


class Buffers:
    """Lends memory, and takes it back by itself. Thread-safe."""

    def __init__(self, keep_bytes: int) -> None:
        """Args: `keep_bytes` is the most that is kept for later, in bytes."""
        self._keep_bytes = keep_bytes
        # No lock, only atomic operations: memory comes back in whatever thread drops it, also in
        # the middle of `take`, where a lock would wait for itself.
        self._free: deque[npt.NDArray[np.uint8]] = deque()

    @property
    def kept_bytes(self) -> int:
        """Bytes that are lent to nobody."""
        return sum(map(len, tuple(self._free)))

    def take(self, nbytes: int) -> memoryview:
        """Return `nbytes` bytes of any content, lent until the last view is gone."""
        if nbytes < _STEP_BYTES:
            return np.empty(nbytes, np.uint8).data
        whole = self._kept(nbytes)
        if whole is None:
            whole = np.empty(-(-nbytes // _STEP_BYTES) * _STEP_BYTES, np.uint8)
        lent = whole[:nbytes]
        weakref.finalize(lent, self._take_back, whole).atexit = False
        return lent.data

    def _kept(self, nbytes: int) -> npt.NDArray[np.uint8] | None:
        """Return kept memory of about this size; what lies before it is given up."""
        while True:
            try:
                whole = self._free.popleft()
            except IndexError:
                return None
            if nbytes <= len(whole) <= 2 * nbytes:
                return whole

    def _take_back(self, whole: npt.NDArray[np.uint8]) -> None:
        if self.kept_bytes + len(whole) <= self._keep_bytes:
            self._free.append(whole)

    def clear(self) -> None:
        """Keep nothing from now on."""
        self._keep_bytes = 0
        self._free.clear()
