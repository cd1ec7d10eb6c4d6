"""Readers that ask for much and take nothing: every answer has a bound in memory and in time."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from crossdock.wire import frame, tables
from harness import WorkerProcess, eventually
from raw import WRITER, Line, Peer, Target

MIB = 2**20
PARTITIONS = 500_000
ROOM = 32 * MIB
READERS = 14


@pytest.fixture(scope="module")
def target() -> Iterator[tuple[WorkerProcess, Target]]:
    """A shuffle with half a million partitions, one block in each."""
    options = {"stall_seconds": 1, "threads": 2, "max_read_bytes": ROOM}
    with WorkerProcess(options=options) as process:
        worker = process.start()
        shuffle = Target(Peer(worker.url, ""), "slow", partitions=PARTITIONS)
        assert shuffle.register().status == 201
        ones = np.ones(PARTITIONS, np.uint32)
        head, payload = frame.build(
            payload=bytes(PARTITIONS), partition=np.arange(PARTITIONS), length=ones, rows=ones,
            partitions=PARTITIONS, map_id=0, attempt=0, seq=0, writer=WRITER, count=1,
        )  # fmt: skip
        assert shuffle.push(bytes(head) + bytes(payload)).status == 200
        yield worker, shuffle


def request(shuffle: Target, kind: str) -> tuple[str, str, bytes | None]:
    """Return a request with an answer of 6 to 12 MiB."""
    keys = shuffle.keys(shuffle.frames())
    places = f"{shuffle.path}/places/{shuffle.places_digest(keys)}"
    match kind:
        case "places":
            return "PUT", places, keys.tobytes()
        case "sizes":
            assert shuffle.peer.ask("PUT", places, keys.tobytes()).status == 200
            return "GET", f"{places}/sizes?partitions=0-{PARTITIONS}", None
        case "seal":
            winners = np.zeros(500_000, tables.ATTEMPT)
            winners["map"] = np.arange(len(winners))
            path = f"{shuffle.path}/seal?epoch=0"
            assert shuffle.peer.ask("PUT", path, winners.tobytes()).status in {200, 201}
            return "GET", f"{shuffle.path}/seal", None
    wish = {"partitions": PARTITIONS, "winners": [[0, 0]]}
    return "POST", f"{shuffle.path}/views", json.dumps(wish).encode()


def beginning(line: Line) -> bytes:
    try:
        return line.socket.recv(12, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize("kind", ["places", "sizes", "seal", "view"])
def test_readers_that_take_nothing_hold_no_more_than_the_limit(
    target: tuple[WorkerProcess, Target], kind: str
) -> None:
    worker, shuffle = target
    method, path, body = request(shuffle, kind)
    whole = shuffle.peer.ask(method, path, body)
    assert whole.status == 200
    assert len(whole.body) > 4 * MIB
    sockets, threads, before = worker.sockets, worker.threads, worker.anonymous_bytes
    peak = 0
    lines: list[Line] = []

    def over() -> bool:
        """Whether every reader was cut off inside its answer, or told to come again."""
        nonlocal peak
        peak = max(peak, worker.anonymous_bytes)
        begun = [beginning(line) for line in lines]
        refused = sum(b.startswith(b"HTTP/1.1 503") for b in begun)
        return all(begun) and worker.sockets <= sockets + refused

    with ExitStack() as stack:
        for _ in range(READERS):
            line = stack.enter_context(shuffle.peer.line())
            lines.append(line)
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            length = None if body is None else len(body)
            line.send(line.head(method, path, length=length) + (body or b""))
        eventually(over, seconds=60, what="readers cut off")
    # What is being made is not bounded by the room for what is made: two threads make two.
    assert peak - before < ROOM + 48 * MIB
    assert worker.threads <= threads + 2
    again = shuffle.peer.ask(method, path, body)
    assert (again.status, again.body) == (200, whole.body)
