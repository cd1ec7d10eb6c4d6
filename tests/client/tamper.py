"""A worker whose answers are changed on their way: a proxy in front of a real one."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Passing:
    """An answer on its way, and what was asked."""

    method: str
    target: str
    status: int
    headers: dict[str, str]
    body: bytes

    def but(self, **changes: Any) -> "Passing":
        return replace(self, **changes)


Change = Callable[[Passing], Passing]


@dataclass
class Tampered:
    """The proxy; `change` sees every answer."""

    url: str
    change: Change
    seen: list[str] = field(default_factory=list)
    """METHOD target of each request."""

    @contextmanager
    def changing(self, change: Change) -> Iterator[None]:
        """Change answers otherwise for a while."""
        before, self.change = self.change, change
        try:
            yield
        finally:
            self.change = before


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up on wrong answers: no news."""


@contextmanager
def tampered(url: str) -> Iterator[Tampered]:
    """Run a proxy in front of the worker at `url`; it changes nothing at first."""
    parts = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            proxy.seen.append(f"{self.command} {self.path}")
            behind = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            try:
                behind.request(self.command, self.path, body)
                response = behind.getresponse()
                headers = {k.lower(): v for k, v in response.getheaders()}
                data = response.read()
            finally:
                behind.close()
            if self.path == "/v1/workers":  # or clients would go past the proxy
                named = data.replace(url.encode(), proxy.url.encode())
                if headers.get("content-length") == str(len(data)):
                    headers["content-length"] = str(len(named))
                data = named
            answer = Passing(self.command, self.path, response.status, headers, data)
            length = len(answer.body)
            answer = proxy.change(answer)
            if answer.headers.get("content-length") == str(length):
                answer.headers["content-length"] = str(len(answer.body))
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(answer.body)

        do_GET = do_PUT = do_POST = do_DELETE = handle_one  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        proxy = Tampered(f"http://127.0.0.1:{server.server_address[1]}", lambda answer: answer)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
