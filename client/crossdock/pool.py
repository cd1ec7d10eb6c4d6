"""Connections to any number of workers, reused from call to call."""

import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from crossdock.cancel import Cancel
from crossdock.errors import Unavailable
from crossdock.http import Connection, Response, Timeouts, address_of
from crossdock.wire.crc import BytesLike

_IDLE_PER_WORKER: Final = 8


class Pool:
    """Connections to any number of workers, reused. Safe to use from many threads."""

    def __init__(
        self,
        *,
        token: Callable[[], str],
        tls: ssl.SSLContext | None = None,
        timeouts: Timeouts | None = None,
        addresses: Mapping[str, str] | None = None,
    ) -> None:
        """Connect later, as calls come.

        Args:
            token: tells the current one.
            tls: how workers are checked; None: by the system's authorities.
            timeouts: of a request.
            addresses: by host name, where it is; others are asked of DNS.
        """
        self.cancel = Cancel("the cluster is closed")
        """Ends all calls; the parent of what ends some of them."""
        self._token = token
        self._tls = tls
        self._timeouts = timeouts or Timeouts()
        self._addresses = dict(addresses or {})
        self._lock = threading.Lock()
        self._idle: dict[str, list[Connection]] = {}

    def request(
        self,
        method: str,
        url: str,
        target: str,
        *,
        body: Sequence[BytesLike] = (),
        headers: Sequence[tuple[str, str]] = (),
        wait_for_continue: bool = False,
        cancel: Cancel | None = None,
    ) -> Response:
        """Send a request to the worker at `url`. Use the answer as a context manager.

        Args:
            method: of HTTP.
            url: of the worker.
            target: path and query.
            body: parts that are sent one after the other.
            headers: more of them.
            wait_for_continue: whether the worker may refuse before the body is sent.
            cancel: ends the request and the reading of its answer; default the pool's own.

        Raises:
            Unavailable: the worker does not answer.
            Closed: `cancel` was set.
        """
        cancel = cancel or self.cancel
        cancel.check()
        token = self._token()
        access = [("Authorization", f"Bearer {token}")] if token else []

        def send(connection: Connection) -> Response:
            return connection.request(
                method,
                target,
                headers=[*access, *headers],
                body=body,
                wait_for_continue=wait_for_continue,
                cancel=cancel,
            )

        connection, reused = self._take(url, cancel)
        try:
            return send(connection)
        except Unavailable:
            if not reused:
                raise
        # The worker closed the idle connection at the same moment; every call is idempotent.
        return send(self._connect(url, cancel))

    def call(
        self,
        method: str,
        url: str,
        target: str,
        *,
        body: BytesLike = b"",
        headers: Sequence[tuple[str, str]] = (),
        cancel: Cancel | None = None,
    ) -> Response:
        """Send a small request and check its answer; the body is still to be read."""
        parts = [body] if body else []
        response = self.request(method, url, target, body=parts, headers=headers, cancel=cancel)
        return response.check()

    def _take(self, url: str, cancel: Cancel) -> tuple[Connection, bool]:
        while True:
            with self._lock:
                idle = self._idle.get(url)
                connection = idle.pop() if idle else None
            if connection is None:
                return self._connect(url, cancel), False
            if not connection.stale:
                return connection, True
            connection.close()

    def _connect(self, url: str, cancel: Cancel) -> Connection:
        tls = self._tls if url.startswith("https:") else None
        if url.startswith("https:") and tls is None:
            tls = ssl.create_default_context()
        return Connection(
            url,
            tls=tls,
            timeouts=self._timeouts,
            release=self._put_back,
            cancel=cancel,
            address=self._addresses.get(address_of(url)[1], "") if self._addresses else "",
        )

    def _put_back(self, connection: Connection) -> None:
        with self._lock:
            idle = self._idle.setdefault(connection.url, [])
            if not self.cancel.event.is_set() and len(idle) < _IDLE_PER_WORKER:
                idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """End the calls under way with `Closed`, and close all connections. Idempotent."""
        self.cancel.set()
        with self._lock:
            idle = [c for connections in self._idle.values() for c in connections]
            self._idle.clear()
        for connection in idle:
            connection.close()
