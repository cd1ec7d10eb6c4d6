"""Peers: whatever one answers, the worker goes on asking, and ends as it should."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest

from crossdock.errors import ConfigError
from crossdock_worker.membership import Membership, check_peer
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


def states(worker: WorkerProcess) -> dict[str, str]:
    """Return what a worker says of its peers, by id."""
    answer = worker.get_json("/v1/workers")
    return {w["id"]: w["state"] for w in answer["workers"] if w["id"] != answer["self"]["id"]}


def test_a_dead_peer_that_is_asked_by_another_name(start_worker: StartWorker) -> None:
    first = start_worker()
    alias = f"http://localhost:{first.port}"
    second = start_worker(peers=alias, peers_interval_seconds=0.05)
    id_ = first.get_json("/v1/workers")["self"]["id"]
    eventually(lambda: states(second) == {id_: "serving"})
    first.kill9()
    eventually(lambda: states(second) == {id_: "unreachable"})
    first.start()
    eventually(lambda: states(second) == {id_: "serving"})


def test_a_new_worker_at_a_peers_url(start_worker: StartWorker) -> None:
    first = start_worker()
    second = start_worker(peers=first.url, peers_interval_seconds=0.05)
    old = first.get_json("/v1/workers")["self"]["id"]
    eventually(lambda: states(second) == {old: "serving"})
    first.kill9()
    shutil.rmtree(first.data_dir)
    first.start()
    new = first.get_json("/v1/workers")["self"]["id"]
    assert new != old
    eventually(lambda: states(second) == {old: "unreachable", new: "serving"})


def test_a_peer_that_left_dns_is_asked_where_it_was(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    peer = start_worker()
    named = [(2, 1, 6, "", ("127.0.0.1", peer.port))]

    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        return list(named)

    async def watch() -> None:
        asyncio.get_running_loop().getaddrinfo = getaddrinfo  # type: ignore[method-assign,assignment]
        membership = Membership(
            (f"dns+http://workers:{peer.port}",),
            interval_seconds=0.02,
            token=str,
            tls=None,
            gone_file=tmp_path / "gone",
        )
        running = asyncio.create_task(membership.run("watcher"))

        async def becomes(state: str) -> None:
            await asyncio.to_thread(eventually, lambda: [i.state for i in membership] == [state])

        await becomes("serving")
        named.clear()
        await asyncio.sleep(0.2)
        await becomes("serving")
        peer.kill9()
        await becomes("unreachable")
        await asyncio.to_thread(peer.start)
        await becomes("serving")
        running.cancel()

    asyncio.run(watch())


@pytest.mark.parametrize("peer", ["dns+http://x:abc", "http://x:99999", "worker-1:7070", "http://"])
def test_peers_that_are_no_urls_are_refused(peer: str) -> None:
    with pytest.raises(ConfigError, match="--peers"):
        check_peer(peer)


def test_a_worker_does_not_start_with_such_a_peer() -> None:
    process = WorkerProcess(options={"peers": "dns+http://x:abc"})
    with process, pytest.raises(AssertionError, match="ended with 2"):
        process.start()
    assert "Traceback" not in process.log_text()
