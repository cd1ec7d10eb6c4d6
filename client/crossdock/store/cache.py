"""What was read of a store and never changes, kept within a bound of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """The values used last. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.nbytes = 0
        """Of all values."""

    def get(self, key: K) -> V | None:
        """Return a value; None if it is not kept."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: K, value: V, nbytes: int) -> None:
        """Keep a value, and let go of those used longest ago; one that is too large is not kept."""
        with self._lock:
            if key in self._values or nbytes > self._max_bytes:
                return
            self._values[key] = value, nbytes
            self.nbytes += nbytes
            while self.nbytes > self._max_bytes:
                _, (_, gone) = self._values.popitem(last=False)
                self.nbytes -= gone
