"""Who reads a log now, so that its space is not used again under a reader.

A read takes a pin before it looks up where frames are. What goes is taken out of sight first and
then retired, with all that readers may still hold of it: it is due when every pin taken before has
been released. Pins taken later do not count: those reads cannot have found it any more.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Pin:
    """One read. Release it once, or more often: only the first time counts."""

    __slots__ = ("_number", "_pins")

    def __init__(self, pins: "Pins[T]", number: int) -> None:
        """Use `Pins.take`."""
        self._pins = pins
        self._number = number

    def release(self) -> None:
        """Say that the read is over, also for the kernel: nothing of it waits in a socket."""
        self._pins.release(self._number)


class Pins(Generic[T]):
    """The reads of one log, and what waits for their ends. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self._taken: dict[int, None] = {}  # rising: the first is the oldest
        self._retired: deque[tuple[int, T]] = deque()

    def take(self) -> Pin:
        """Begin a read."""
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._taken[number] = None
        return Pin(self, number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Read for the length of the block."""
        pin = self.take()
        try:
            yield
        finally:
            pin.release()

    def release(self, number: int) -> None:
        """Use `Pin.release`."""
        with self._lock:
            self._taken.pop(number, None)

    def retire(self, what: T) -> None:
        """Keep something until all reads that are under way have ended."""
        with self._lock:
            self._retired.append((self._next, what))

    def due(self) -> list[T]:
        """Take out what no read can reach any more, in the order in which it was retired."""
        found = []
        with self._lock:
            oldest = next(iter(self._taken), self._next)
            while self._retired and self._retired[0][0] <= oldest:
                found.append(self._retired.popleft()[1])
        return found

    @property
    def is_due(self) -> bool:
        """Whether `due` would take out anything."""
        with self._lock:
            if not self._retired:
                return False
            return self._retired[0][0] <= next(iter(self._taken), self._next)
