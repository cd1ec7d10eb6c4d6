"""A proxy before an S3 server that fails as it is told to, verb by verb."""

import http.client
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

from crossdock.store.api import Verb

PIECE_BYTES: Final = 2**16
_FOR_EVER_SECONDS: Final = 120.0
_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class Request:
    """What a client sent."""

    verb: Verb
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What the server said, or what is said in its place."""

    status: int
    headers: dict[str, str]
    """By names in small letters."""
    body: bytes
    cut: int | None = None
    """Close the connection after so many bytes of the body."""
    pause: float = 0.0
    """Seconds between pieces."""
    stall: int | None = None
    """Send no more than so many bytes of the body, and keep the connection until the end."""


Forward = Callable[[Request], Answer]
Action = Callable[[Request, Forward], Answer | None]
"""Answers a request; None closes the connection without a word."""


@dataclass
class Fault:
    """What goes wrong, with which requests, and how often."""

    verb: Verb
    action: Action
    times: int = 1
    skip: int = 0
    """Requests of the verb that pass before."""
    hits: int = field(default=0, init=False)


class FaultyProxy:
    """Listens on a free port while its context lasts."""

    def __init__(self, endpoint: str) -> None:
        upstream = urlsplit(endpoint)
        self._host, self._port = upstream.hostname or "", upstream.port or 80
        self._lock = threading.Lock()
        self.released = threading.Event()
        """Set at the end, for what hangs."""
        self.faults: list[Fault] = []
        self.seen: Counter[Verb] = Counter()
        self.requests: list[Request] = []
        """All of them, in order, without bodies."""
        self.connections = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, verb: Verb, action: Action, *, times: int = 1, skip: int = 0) -> Fault:
        """Let the next requests of a verb fail."""
        fault = Fault(verb, action, times, skip)
        with self._lock:
            self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self.faults.clear()

    def answer(self, request: Request) -> Answer | None:
        """Answer a request, by the first fault that fits it, or truly."""
        with self._lock:
            self.seen[request.verb] += 1
            self.requests.append(replace(request, body=b""))
            action = self._next(request.verb)
        return action(request, self.forward) if action else self.forward(request)

    def forward(self, request: Request) -> Answer:
        """Ask the server."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        try:
            connection.request(request.method, request.target, request.body, request.headers)
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            headers = {name: value for name, value in received.items() if name not in _HOP}
            if request.method == "HEAD":
                headers["content-length"] = response.getheader("Content-Length", "0")
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()

    def _next(self, verb: Verb) -> Action | None:
        for fault in self.faults:
            if fault.verb is not verb:
                continue
            if fault.skip:
                fault.skip -= 1
            elif fault.hits < fault.times:
                fault.hits += 1
                return fault.action
        return None

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.socket.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                proxy.connections += 1
                super().setup()

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True  # the client went away

            def log_message(self, *_: object) -> None: ...

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
                body = self.rfile.read(length)
                verb = verb_of(self.command, self.path)
                answer = proxy.answer(Request(verb, self.command, self.path, headers, body))
                if answer is None:
                    self.close_connection = True
                    return
                self._send(answer)

            def _send(self, answer: Answer) -> None:
                self.send_response_only(answer.status)
                lengths = {"content-length": str(len(answer.body))}
                for name, value in {**lengths, **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                body = answer.body[: answer.cut][: answer.stall]
                for start in range(0, len(body), PIECE_BYTES):
                    self.wfile.write(body[start : start + PIECE_BYTES])
                    if answer.pause:
                        proxy.released.wait(answer.pause)
                if answer.stall is not None:
                    proxy.released.wait(_FOR_EVER_SECONDS)
                    self.close_connection = True
                self.close_connection |= answer.cut is not None

        for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
            setattr(Handler, f"do_{method}", Handler._serve)
        return Handler


def verb_of(method: str, target: str) -> Verb:
    """Return what a request of S3's asks."""
    query = parse_qs(urlsplit(target).query, keep_blank_values=True)
    for known, parameter, verb in _VERBS:
        if known == method and (not parameter or parameter in query):
            return verb
    raise ValueError(f"{method} {target} is not one of the store's")


_VERBS: Final = [
    ("PUT", "partNumber", Verb.UPLOAD_PART),
    ("PUT", "lifecycle", Verb.PUT_LIFECYCLE),
    ("PUT", "", Verb.PUT),
    ("POST", "delete", Verb.DELETE),
    ("POST", "uploads", Verb.CREATE_UPLOAD),
    ("POST", "uploadId", Verb.COMPLETE_UPLOAD),
    ("DELETE", "uploadId", Verb.ABORT_UPLOAD),
    ("HEAD", "", Verb.HEAD),
    ("GET", "uploads", Verb.LIST_UPLOADS),
    ("GET", "uploadId", Verb.LIST_PARTS),
    ("GET", "list-type", Verb.LIST),
    ("GET", "lifecycle", Verb.GET_LIFECYCLE),
    ("GET", "versioning", Verb.GET_VERSIONING),
    ("GET", "versions", Verb.LIST_VERSIONS),
    ("GET", "", Verb.GET),
]


# -- what can go wrong ---------------------------------------------------------------------


def error(status: int, code: str) -> Answer:
    """Return an answer that says what is wrong, as S3 does."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told to</Message></Error>"
    return Answer(status, {"content-type": "application/xml"}, body.encode())


def refuse(status: int, code: str) -> Action:
    """Answer with an error, and do nothing."""
    return lambda *_: error(status, code)


def late(status: int, code: str) -> Action:
    """Do it, and then answer with an error."""

    def action(request: Request, forward: Forward) -> Answer:
        forward(request)
        return error(status, code)

    return action


def vanish(request: Request, forward: Forward) -> None:
    """Close the connection, and do nothing."""


def vanish_late(request: Request, forward: Forward) -> None:
    """Do it, and close the connection without an answer."""
    forward(request)


def hang(proxy: FaultyProxy, *, late: bool) -> Action:
    """Never answer; having done it, or not."""

    def action(request: Request, forward: Forward) -> None:
        if late:
            forward(request)
        proxy.released.wait(60)

    return action


def changed(change: Callable[[Answer], object]) -> Action:
    """Do it, and change the answer."""

    def action(request: Request, forward: Forward) -> Answer:
        answer = forward(request)
        change(answer)
        return answer

    return action
