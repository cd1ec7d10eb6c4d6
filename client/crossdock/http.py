"""HTTP/1.1 to one worker over plain sockets: heads by h11, bodies without a copy.

Bodies are sent from, and received into, the caller's memory. A frame waits for `100 Continue`, so
a worker that pushes back does so before the bytes travel.
"""

import json
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import h11

from crossdock.cancel import Cancel
from crossdock.errors import ConfigError, ProtocolError, Unavailable
from crossdock.refusals import from_response
from crossdock.wire.crc import BytesLike

_READ_BYTES: Final = 64 * 1024
_CONTINUE_WAIT_SECONDS: Final = 5.0
_MAX_ERROR_BYTES: Final = 16 * 2**20
_MAX_BODY_BYTES: Final = 2**30
"""Of an answer that is read at once; batches are not."""


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
        if length is None or not (length.isascii() and length.isdigit()):
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
        if self._left > _MAX_BODY_BYTES:
            raise ProtocolError(f"{self._connection.url} answers with {self._left} bytes")
        body = bytearray(self._left)
        self.read_into(memoryview(body))
        return bytes(body)

    def read_json(self) -> object:
        """Return the rest of the body, parsed; raises `ProtocolError` if it is no JSON."""
        body = self.read()
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"{self._connection.url} answered no JSON: {error}") from error

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
        self.close()

    def close(self) -> None:
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
        address: str = "",
    ) -> None:
        """Connect. `cancel` ends that, and what goes on until the connection is released.

        Args: `address` is where the host is; "": as DNS has it.
        """
        self.url = url
        self._host, host, port = address_of(url)
        self._release = release
        self._timeouts = timeouts
        self._cancel = cancel
        try:
            self._socket = _connected(address or host, port, timeouts.connect_seconds, cancel)
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
        if self._plain:
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeouts.stall_seconds)
            )
        self._receive_flags = socket.MSG_WAITALL if self._plain else 0

    def _encrypt(self, tls: ssl.SSLContext, host: str) -> None:
        encrypted = tls.wrap_socket(
            self._socket, server_hostname=host, do_handshake_on_connect=False
        )
        self._socket = encrypted
        self._cancel.watch(encrypted, partial(_shut_down, encrypted))
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
        try:
            head = protocol.send(h11.Request(method=method, target=target, headers=lines))
        except (h11.LocalProtocolError, UnicodeError):
            self.close()
            # Without the cause, which would show the token.
            raise ConfigError(
                f"the token, or the URL {self.url!r}, has characters that HTTP cannot carry"
            ) from None
        self._cancel = cancel
        cancel.watch(self._socket, partial(_shut_down, self._socket))
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
        if self._plain:
            # SO_RCVTIMEO bounds the waits from here on, in the kernel: one call per piece of the
            # body, where Python's own time-out makes two for every few packets.
            self._socket.settimeout(None)
        return Response(self, head, bytes(early))

    def receive_into(self, target: memoryview) -> int:
        """Receive at least one byte."""
        try:
            n = self._socket.recv_into(target, 0, self._receive_flags)
        except BlockingIOError as error:
            self.close()
            raise Unavailable(
                f"{self.url} sent no byte for {self._timeouts.stall_seconds:g} s"
            ) from error
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


def address_of(url: str) -> tuple[str, str, int]:
    """Return network location, host and port of a worker's URL, or raise `ProtocolError`."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError as error:
        raise ProtocolError(f"{url!r} is no URL of a worker: {error}") from error
    if not url.startswith(("http://", "https://")) or not host or "\0" in host:
        raise ProtocolError(f"{url!r} is no URL of a worker", hint="http://HOST:PORT")
    return parts.netloc, host, port


def _timeval(seconds: float) -> bytes:
    """Return a `struct timeval`; of zero, which would mean for ever, at least a microsecond."""
    return struct.pack("@ll", *divmod(max(1, round(seconds * 1e6)), 1_000_000))


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
        cancel.watch(found, partial(_shut_down, found))
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


def _shut_down(sock: socket.socket) -> None:
    """Wake a thread that waits for a socket; closing it alone would not.

    Past the TLS layer: `SSLSocket.shutdown` drops the encryption first, and the other thread would
    go on in plain text.
    """
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
