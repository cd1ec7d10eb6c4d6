"""Bodies with very many rows: refused, or answered in few words, while others are served."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from crossdock.wire import tables
from harness import WorkerProcess
from raw import Peer, Target

MIB = 2**20


@pytest.fixture(scope="module")
def running() -> Iterator[WorkerProcess]:
    with WorkerProcess(options={"stall_seconds": 20}) as process:
        yield process.start()


@pytest.fixture
def filled(running: WorkerProcess, job_uid: str) -> Target:
    """A shuffle with one frame, of map 0."""
    target = Target(Peer(running.url, ""), job_uid)
    assert target.register().status == 201
    assert target.push(target.frame()).status == 200
    return target


def attempts(count: int) -> bytes:
    table = np.zeros(count, tables.ATTEMPT)
    table["map"] = np.arange(count)
    return tables.encode(table)


def test_of_many_missing_attempts_some_are_named(filled: Target) -> None:
    reply = filled.peer.ask("POST", f"{filled.path}/blocks", attempts(30_001))
    assert (reply.status, reply.code) == (409, "attempts_elsewhere")
    assert "30000 attempts" in reply.json()["message"]
    assert [m[0] for m in reply.json()["missing"]] == list(range(1, 10_001))
    reply = filled.peer.ask("POST", f"{filled.path}/blocks", attempts(3))
    assert [m[0] for m in reply.json()["missing"]] == [1, 2]
    reply = filled.peer.ask("POST", f"{filled.path}/blocks?partial=true", attempts(30_001))
    assert reply.status == 200


def test_a_read_of_too_many_attempts_is_refused(filled: Target, running: WorkerProcess) -> None:
    before = running.anonymous_bytes
    reply = filled.peer.ask("POST", f"{filled.path}/blocks", attempts(1_000_001))
    assert (reply.status, reply.code) == (400, "protocol")
    assert "1000000" in reply.json()["message"]
    reply = filled.peer.ask("POST", f"{filled.path}/blocks", attempts(1_000_000))
    assert (reply.status, reply.code) == (409, "attempts_elsewhere")
    assert running.anonymous_bytes - before < 200 * MIB


def test_places_of_more_frames_than_there_are(filled: Target, running: WorkerProcess) -> None:
    before = running.anonymous_bytes
    keys = np.zeros(4 * MIB, tables.FRAME_KEY)
    keys["map"] = np.arange(len(keys))
    slowest = 0.0
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(filled.register_places, keys)
        while not asked.done():
            begun = time.monotonic()
            assert running.request("GET", "/healthz").status == 200
            slowest = max(slowest, time.monotonic() - begun)
            assert running.anonymous_bytes - before < 400 * MIB
            time.sleep(0.01)
    _, reply = asked.result()
    assert (reply.status, reply.code) == (404, "places_unknown")
    assert f"{4 * MIB} frames are asked for" in reply.json()["message"]
    assert slowest < 10
