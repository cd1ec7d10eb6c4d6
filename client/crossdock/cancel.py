"""Ending what is under way in other threads: waits return at once, sockets are shut down."""

import socket
import threading
import weakref
from contextlib import suppress

from crossdock.errors import Closed


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
        self._sockets: set[socket.socket] = set()
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
            sockets, children = list(self._sockets), list(self._children)
        for each in sockets:
            _shut_down(each)
        for child in children:
            child.set()

    def check(self) -> None:
        """Raise `Closed` if it is set."""
        if self._parent is not None:
            self._parent.check()  # it knows better why
        if self.event.is_set():
            raise Closed(self._why)

    def watch(self, sock: socket.socket) -> None:
        """Shut a socket down when it is set, or now if it is already."""
        with self._lock:
            self._sockets.add(sock)
            late = self.event.is_set()
        if late:
            _shut_down(sock)

    def unwatch(self, sock: socket.socket) -> None:
        """Leave a socket alone from now on."""
        with self._lock:
            self._sockets.discard(sock)


def _shut_down(sock: socket.socket) -> None:
    """Wake a thread that waits for a socket; closing it alone would not.

    Past the TLS layer: `SSLSocket.shutdown` drops the encryption first, and the other thread would
    go on in plain text.
    """
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
