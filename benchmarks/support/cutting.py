"""A link to a server that is cut once, in the middle of what comes back."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_CHUNK_BYTES = 2**16


class Link:
    """Passes bytes between clients and one server, and counts those that come back."""

    def __init__(self, endpoint: str) -> None:
        upstream = urlsplit(endpoint)
        self._upstream = (upstream.hostname or "", upstream.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut_at: int | None = None
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received_bytes = 0
        """That clients were sent, heads included."""
        self.cuts = 0

    def begin(self, *, cut_at: int | None = None) -> None:
        """Count from 0, and cut all connections once after so many bytes."""
        with self._lock:
            self.received_bytes, self._cut_at = 0, cut_at

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                with self._lock:
                    self._open |= {client, server}
                for work in ((client, server, lambda _: None), (server, client, self._count)):
                    threading.Thread(target=_pass, args=work, daemon=True).start()

    def _count(self, nbytes: int) -> None:
        with self._lock:
            self.received_bytes += nbytes
            if self._cut_at is None or self.received_bytes < self._cut_at:
                return
            self._cut_at = None
            self.cuts += 1
        self.cut()

    def cut(self) -> None:
        """End every connection; what was sent still arrives."""
        with self._lock:
            gone, self._open = self._open, set()
        for each in gone:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()


def _pass(source: socket.socket, target: socket.socket, count: Callable[[int], None]) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK_BYTES):
            left = memoryview(data)
            while left:  # not `sendall`, which does not say how much it sent before it failed
                n = target.send(left)
                count(n)
                left = left[n:]
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def link(endpoint: str) -> Iterator[Link]:
    """Run a link to a server's URL."""
    found = Link(endpoint)
    threading.Thread(target=found.serve, daemon=True).start()
    try:
        yield found
    finally:
        found.close()
