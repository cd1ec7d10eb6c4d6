"""A proxy before the API server that refuses, and cuts watches, as it is told to."""

import http.client
import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from control_plane import ControlPlane

from crossdock_operator.calls import Call, call_of
from harness import eventually

_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}
_HELD_SECONDS: Final = 60.0


@dataclass
class Refusal:
    """What is answered in place of the server."""

    matches: Callable[[Call], bool]
    status: int
    times: int
    hits: int = 0


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing: operators are killed in the middle of requests."""


class ApiProxy:
    """Speaks HTTP on a free port while its context lasts, and HTTPS to the server."""

    def __init__(self, plane: ControlPlane) -> None:
        upstream = urlsplit(plane.url)
        self._host, self._port = upstream.hostname or "", upstream.port or 443
        self._context = ssl.create_default_context(cafile=plane.ca)
        self._lock = threading.Lock()
        self._refusals: list[Refusal] = []
        self._held: set[str] = set()
        self._waiting: set[str] = set()
        """Of those, the ones with a watch that waits."""
        self._let_go = threading.Event()
        self._watches: dict[str, set[http.client.HTTPResponse]] = {}
        self.calls: list[Call] = []
        """Requests that came, in order."""
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._let_go.set()
        for resource in list(self._watches):
            self._cut(resource)
        self._server.shutdown()
        self._server.server_close()

    def refuse(self, matches: Callable[[Call], bool], status: int, *, times: int = 1) -> Refusal:
        """Answer the next requests that match with an error."""
        refusal = Refusal(matches, status, times)
        with self._lock:
            self._refusals.append(refusal)
        return refusal

    def silence(self, resource: str) -> None:
        """Cut the watches of a resource, and answer no new one before `expire`."""
        with self._lock:
            self._held.add(resource)
            self._let_go.clear()
        self._cut(resource)

    def expire(self) -> None:
        """Wait for the watches that are held, and say to them that their place is gone."""
        eventually(lambda: self._waiting >= self._held, what="new watches")
        with self._lock:
            self._held.clear()
            self._waiting.clear()
        self._let_go.set()

    def _cut(self, resource: str) -> None:
        with self._lock:
            found = self._watches.pop(resource, set())
        for response in found:
            with suppress(OSError, AttributeError):
                response.fp.raw._sock.shutdown(2)

    def _refusal(self, call: Call) -> Refusal | None:
        with self._lock:
            self.calls.append(call)
            for refusal in self._refusals:
                if refusal.hits < refusal.times and refusal.matches(call):
                    refusal.hits += 1
                    return refusal
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                call = call_of(self.command, self.path)
                if (refusal := proxy._refusal(call)) is not None:
                    self.say(refusal.status, _status(refusal.status))
                elif call.verb == "watch" and call.resource in proxy._held:
                    proxy._waiting.add(call.resource)
                    proxy._let_go.wait(_HELD_SECONDS)
                    gone = {"type": "ERROR", "object": _status(410)}
                    self.say(200, gone)
                else:
                    with suppress(OSError, http.client.HTTPException):
                        self.pass_on(call, body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

            def say(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode() + b"\n"
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if status == 429:
                    self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(data)

            def pass_on(self, call: Call, body: bytes) -> None:
                upstream = http.client.HTTPSConnection(
                    proxy._host, proxy._port, context=proxy._context, timeout=400
                )
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
                    upstream.request(self.command, self.path, body or None, headers)
                    response = upstream.getresponse()
                    self.send_response(response.status)
                    for name, value in response.getheaders():
                        if name.lower() not in _HOP:
                            self.send_header(name, value)
                    if call.verb == "watch":
                        self.stream(call, response)
                    else:
                        data = response.read()
                        self.send_header("Content-Length", str(len(data)))
                        self.end_headers()
                        self.wfile.write(data)
                finally:
                    upstream.close()

            def stream(self, call: Call, response: http.client.HTTPResponse) -> None:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.close_connection = True
                with proxy._lock:
                    if call.resource in proxy._held:  # it came while the others were cut
                        return
                    proxy._watches.setdefault(call.resource, set()).add(response)
                try:
                    while data := response.read1(65536):
                        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                        self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                finally:
                    with proxy._lock:
                        proxy._watches.get(call.resource, set()).discard(response)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _status(code: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": "Expired" if code == 410 else "Injected",
        "message": "injected by the test",
    }
