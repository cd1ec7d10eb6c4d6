"""Peers: whatever one answers, the worker goes on asking, and ends as it should."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest

from crossdock.errors import ConfigError
from crossdock_worker.membership import check_peer
from harness import KEY, StartWorker, WorkerProcess, eventually

ODD = [b"[]", b"null", b"3", b'{"self": []}', b'{"self": {"id": 3}}', b"[" * 100_000, b"\xff{"]


class OddPeer:
    """Answers each call with the next of `ODD`."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.url = ""


@contextmanager
def odd_peer() -> Iterator[OddPeer]:
    peer = OddPeer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = ODD[len(peer.tokens) % len(ODD)]
            peer.tokens.append(self.headers.get("Authorization", ""))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        peer.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield peer
        finally:
            server.shutdown()
            thread.join()


def test_odd_answers_of_a_peer_stop_nothing(start_worker: StartWorker) -> None:
    with odd_peer() as peer:
        worker = start_worker(key=KEY, peers=peer.url, peers_interval_seconds=0.02)
        eventually(lambda: len(peer.tokens) > 2 * len(ODD))
        assert len(worker.get_json("/v1/workers")["workers"]) == 1
        assert worker.terminate() == 0
        assert "failed" not in worker.log_text()


def test_peers_are_asked_with_the_right_to_read_alone(start_worker: StartWorker) -> None:
    with odd_peer() as peer:
        start_worker(key=KEY, peers=peer.url, peers_interval_seconds=0.02)
        eventually(lambda: peer.tokens)
        claims = jwt.decode(peer.tokens[0].split()[1], KEY, ["HS256"])
    assert json.dumps(claims["rights"]) == '["read"]'


@pytest.mark.parametrize("peer", ["dns+http://x:abc", "http://x:99999", "worker-1:7070", "http://"])
def test_peers_that_are_no_urls_are_refused(peer: str) -> None:
    with pytest.raises(ConfigError, match="--peers"):
        check_peer(peer)


def test_a_worker_does_not_start_with_such_a_peer() -> None:
    process = WorkerProcess(options={"peers": "dns+http://x:abc"})
    with process, pytest.raises(AssertionError, match="ended with 2"):
        process.start()
    assert "Traceback" not in process.log_text()
