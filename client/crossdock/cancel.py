"""Ending what is under way in other threads: waits return at once, sockets are shut down."""

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Protocol

from crossdock.errors import Closed


class Stop(Protocol):
    """What ends waits, and says why: a `Cancel`, for one."""

    event: threading.Event
    """Set when waits are to end."""

    def check(self) -> None:
        """Raise why nothing goes on, if so."""


class Unstopped:
    """Never ends anything."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def check(self) -> None:
        """Return."""


class Cancel:
    """Ends calls for good. A cancelled parent cancels its children. Thread-safe."""

    def __init__(self, why: str, *, parent: "Cancel | None" = None) -> None:
        """Make one that is not set.

        Args:
            why: the message of the `Closed` that calls end with.
            parent: what ends this one too.
        """
        self.event = threading.Event()
        """Set once and for all; for waits."""
        self._why = why
        self._parent = parent
        self._lock = threading.Lock()
        self._ends: dict[Hashable, Callable[[], None]] = {}
        self._children: weakref.WeakSet[Cancel] = weakref.WeakSet()
        if parent is not None:
            parent._adopt(self)  # noqa: SLF001 -- one class

    def _adopt(self, child: "Cancel") -> None:
        with self._lock:
            self._children.add(child)
            late = self.event.is_set()
        if late:
            child.set()

    def set(self) -> None:
        """End everything under way, and all that begins later. Idempotent."""
        with self._lock:
            self.event.set()
            ends, children = list(self._ends.values()), list(self._children)
        for end in ends:
            end()
        for child in children:
            child.set()

    def check(self) -> None:
        """Raise `Closed` if it is set."""
        if self._parent is not None:
            self._parent.check()  # it knows better why
        if self.event.is_set():
            raise Closed(self._why)

    def watch(self, what: Hashable, end: Callable[[], None]) -> None:
        """Call `end` when it is set, or now if it is already: from any thread, also too late."""
        with self._lock:
            self._ends[what] = end
            late = self.event.is_set()
        if late:
            end()

    def unwatch(self, what: Hashable) -> None:
        """Leave what `watch` was given alone from now on."""
        with self._lock:
            self._ends.pop(what, None)
