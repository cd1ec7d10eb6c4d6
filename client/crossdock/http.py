"""HTTP/1.1 to one worker over plain sockets: heads by h11, bodies without a copy.

Bodies are sent from, and received into, the caller's memory. A frame waits for `100 Continue`, so
a worker that pushes back does so before the bytes travel.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import h11

from crossdock.cancel import Cancel
from crossdock.errors import ConfigError, ProtocolError, Unavailable, from_response
from crossdock.wire.crc import BytesLike

_READ_BYTES: Final = 64 * 1024
_CONTINUE_WAIT_SECONDS: Final = 5.0
_MAX_ERROR_BYTES: Final = 16 * 2**20
_IDLE_PER_WORKER: Final = 8


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one request waits for the network, in seconds."""

    connect_seconds: float = 5.0
    stall_seconds: float = 30.0
    """Longest wait for the next byte."""


class Response:
    """An answer whose head has come. Read the body to its end, then the connection is reused."""

    def __init__(self, connection: "Connection", head: h11.Response, early: bytes) -> None:
        self._connection = connection
        self.status = head.status_code
        self.headers = {
            name.decode("ascii").lower(): value.decode("latin-1") for name, value in head.headers
        }
        self._early = memoryview(early)
        length = self.headers.get("content-length")
        if self.status in {204, 304}:
            length = "0"
        if length is None or not length.isdigit():
            connection.close()
            raise ProtocolError(f"{connection.url} answered without a Content-Length")
        self.length = int(length)
        self._left = self.length
        if len(early) > self.length:
            connection.close()
            raise ProtocolError(f"{connection.url} sent more than it said")

    def read_into(self, target: memoryview) -> None:
        """Fill `target` with the next bytes of the body."""
        while len(target):
            n = self.read_some(target)
            target = target[n:]

    def read_some(self, target: memoryview) -> int:
        """Fill at least one byte of `target`; return how many."""
        if len(target) > self._left:
            raise ProtocolError(f"{self._connection.url}: the answer is shorter than it should be")
        if len(self._early):
            n = min(len(self._early), len(target))
            target[:n] = self._early[:n]
            self._early = self._early[n:]
        else:
            n = self._connection.receive_into(target)
        self._left -= n
        return n

    def read(self) -> bytes:
        """Return the rest of the body."""
        body = bytearray(self._left)
        self.read_into(memoryview(body))
        return bytes(body)

    def check(self) -> Self:
        """Raise the worker's error unless the status is 2xx."""
        if 200 <= self.status < 300:
            return self
        with self:
            body = self.read() if self.length <= _MAX_ERROR_BYTES else b""
        raise from_response(self.status, self.headers, body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep the connection if the body was read to its end, else close it."""
        keep = self._left == 0 and self.headers.get("connection", "").lower() != "close"
        self._connection.release(keep=keep)


class Connection:
    """One socket to one worker."""

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None,
        timeouts: Timeouts,
        release: Callable[["Connection"], None],
        cancel: Cancel,
    ) -> None:
        """Connect. `cancel` ends that, and what goes on until the connection is released."""
        parts = urlsplit(url)
        self.url = url
        self._host = parts.netloc
        self._release = release
        self._timeouts = timeouts
        self._cancel = cancel
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = parts.hostname or ""
        try:
            self._socket = _connected(host, port, timeouts.connect_seconds, cancel)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._encrypt(tls, host)
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(
                f"{url}: {error.verify_message}", hint="pass ca_file= or set CROSSDOCK_CA_FILE"
            ) from error
        except OSError as error:
            cancel.check()
            raise Unavailable(f"cannot connect to {url}: {error}") from error
        self._plain = tls is None

    def _encrypt(self, tls: ssl.SSLContext, host: str) -> None:
        encrypted = tls.wrap_socket(
            self._socket, server_hostname=host, do_handshake_on_connect=False
        )
        self._socket = encrypted
        self._cancel.watch(encrypted)
        try:
            encrypted.do_handshake()
        except OSError:
            self.close()
            raise
        self._cancel.unwatch(encrypted)

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]],
        body: Sequence[BytesLike] = (),
        wait_for_continue: bool = False,
        cancel: Cancel,
    ) -> Response:
        """Send a request; return when the head of its answer is here.

        `cancel` ends it, and the reading of its body, until the connection is released.
        """
        protocol = h11.Connection(h11.CLIENT)
        length = sum(map(len, body))
        lines = [("Host", self._host), *headers]
        if body or method in {"PUT", "POST"}:
            lines.append(("Content-Length", str(length)))
        wait = wait_for_continue and self._plain and length > 0
        if wait:
            lines.append(("Expect", "100-continue"))
        head = protocol.send(h11.Request(method=method, target=target, headers=lines))
        self._cancel = cancel
        cancel.watch(self._socket)
        try:
            self._socket.settimeout(self._timeouts.stall_seconds)
            if wait:
                self._socket.sendall(head or b"")
                self._socket.settimeout(_CONTINUE_WAIT_SECONDS)
                refused = self._await_continue(protocol)
                self._socket.settimeout(self._timeouts.stall_seconds)
                if refused is not None:
                    return refused
                self._send_body(body)
            elif length < _READ_BYTES:
                self._socket.sendall((head or b"") + b"".join(body))
            else:
                self._socket.sendall(head or b"")
                self._send_body(body)
            return self._answer(protocol)
        except (OSError, h11.RemoteProtocolError) as error:
            self.close()
            cancel.check()
            raise Unavailable(f"{method} {self.url}{target}: {error!r}") from error

    def _send_body(self, body: Sequence[BytesLike]) -> None:
        try:
            for part in body:
                self._socket.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            # A worker that refused and hung up has often said why: `_answer` reads it.
            pass

    def _await_continue(self, protocol: h11.Connection) -> Response | None:
        """Return None when the body may go, or the final answer that came instead."""
        while True:
            event = protocol.next_event()
            if isinstance(event, h11.InformationalResponse) and event.status_code == 100:
                return None
            if isinstance(event, h11.Response):
                return self._response(protocol, event)
            if event is h11.NEED_DATA:
                try:
                    self._feed(protocol)
                except TimeoutError:
                    return None  # a server that does not know the header

    def _answer(self, protocol: h11.Connection) -> Response:
        while True:
            event = protocol.next_event()
            if isinstance(event, h11.Response):
                return self._response(protocol, event)
            if event is h11.NEED_DATA:
                self._feed(protocol)

    def _feed(self, protocol: h11.Connection) -> None:
        protocol.receive_data(self._socket.recv(_READ_BYTES))

    def _response(self, protocol: h11.Connection, head: h11.Response) -> Response:
        """Take the body's first bytes out of h11; the rest comes straight from the socket."""
        early = bytearray()
        while isinstance(event := protocol.next_event(), h11.Data):
            early += event.data
        return Response(self, head, bytes(early))

    def receive_into(self, target: memoryview) -> int:
        """Receive at least one byte."""
        try:
            n = self._socket.recv_into(target)
        except OSError as error:
            self.close()
            self._cancel.check()
            raise Unavailable(f"{self.url}: {error!r}") from error
        if not n:
            self.close()
            self._cancel.check()
            raise Unavailable(f"{self.url} closed the connection inside an answer")
        return n

    @property
    def stale(self) -> bool:
        """Whether the worker has closed this idle connection, or sent what nobody asked for."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        return True

    def release(self, *, keep: bool) -> None:
        """Give the connection back to its pool, or close it."""
        if keep and self._socket.fileno() >= 0 and not self._cancel.event.is_set():
            self._cancel.unwatch(self._socket)
            self._release(self)
        else:
            self.close()

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._cancel.unwatch(self._socket)
        self._socket.close()


def _connected(host: str, port: int, seconds: float, cancel: Cancel) -> socket.socket:
    """Return a socket connected to the first address of the host that answers.

    As `socket.create_connection`, but `cancel` ends it.
    """
    problem = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        cancel.check()
        found = socket.socket(family, kind, protocol)
        found.settimeout(seconds)
        cancel.watch(found)
        try:
            found.connect(address)
        except OSError as error:
            problem = error
        else:
            return found
        finally:
            cancel.unwatch(found)
        found.close()
    raise problem


class Pool:
    """Connections to any number of workers, reused. Safe to use from many threads."""

    def __init__(
        self,
        *,
        token: Callable[[], str],
        tls: ssl.SSLContext | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.cancel = Cancel("the cluster is closed")
        """Ends all calls; the parent of what ends some of them."""
        self._token = token
        self._tls = tls
        self._timeouts = timeouts or Timeouts()
        self._lock = threading.Lock()
        self._idle: dict[str, list[Connection]] = {}

    def request(
        self,
        method: str,
        url: str,
        target: str,
        *,
        body: Sequence[BytesLike] = (),
        wait_for_continue: bool = False,
        cancel: Cancel | None = None,
    ) -> Response:
        """Send a request to the worker at `url`. Use the answer as a context manager.

        Args:
            method: of HTTP.
            url: of the worker.
            target: path and query.
            body: parts that are sent one after the other.
            wait_for_continue: whether the worker may refuse before the body is sent.
            cancel: ends the request and the reading of its answer; default the pool's own.

        Raises:
            Unavailable: the worker does not answer.
            Closed: `cancel` was set.
        """
        cancel = cancel or self.cancel
        cancel.check()
        token = self._token()
        headers = [("Authorization", f"Bearer {token}")] if token else []

        def send(connection: Connection) -> Response:
            return connection.request(
                method,
                target,
                headers=headers,
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
        cancel: Cancel | None = None,
    ) -> Response:
        """Send a small request and check its answer; the body is still to be read."""
        return self.request(method, url, target, body=[body] if body else [], cancel=cancel).check()

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
            url, tls=tls, timeouts=self._timeouts, release=self._put_back, cancel=cancel
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
