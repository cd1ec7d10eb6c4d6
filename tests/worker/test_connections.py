"""Connections that are used otherwise than clients do: pipelined, dripping, compressed, cut."""

import gzip
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from harness import StartWorker, WorkerProcess, eventually
from raw import Line, Peer, Target

MIB = 2**20


@pytest.fixture
def words(worker: WorkerProcess, job_uid: str) -> Target:
    target = Target(Peer(worker.url, ""), job_uid)
    assert target.register().status == 201
    return target


# -- compression ---------------------------------------------------------------------------


def test_compressed_bodies_are_refused_and_not_opened(worker: WorkerProcess, words: Target) -> None:
    bomb = gzip.compress(bytes(256 * MIB), 1)
    before = worker.anonymous_bytes
    for path in (words.job_path, f"{words.path}/seal", f"{words.path}/frames"):
        reply = words.peer.ask("PUT", path, bomb, headers={"Content-Encoding": "gzip"})
        assert (reply.status, reply.code) == (415, "http")
    assert worker.anonymous_bytes - before < 32 * MIB


@pytest.mark.parametrize("expect", [True, False])
def test_a_frame_that_says_it_is_compressed_is_refused(words: Target, *, expect: bool) -> None:
    headers = {"Content-Encoding": "gzip"}
    path = f"{words.path}/frames"
    reply = words.peer.ask("PUT", path, words.frame(), expect=expect, headers=headers)
    assert (reply.status, reply.continued) == (415, False)
    assert not len(words.frames())


# -- heads inside bodies -------------------------------------------------------------------

HEAD = (
    b"PUT /v1/jobs/a/shuffles/b/0/frames HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
    b"Content-Length: 5\r\n\r\n"
)
"""What a frame of five bytes begins with."""


def is_answered(line: Line) -> bool:
    """Whether something has come that was not read yet."""
    return bool(select.select([line.socket], [], [], 0)[0])


def in_parts(line: Line, *parts: bytes) -> None:
    """Send each part so that it arrives by itself."""
    for part in parts:
        line.send(part)
        time.sleep(0.05)


@pytest.mark.parametrize("before", ["nothing", "an answer", "a frame"])
@pytest.mark.parametrize("parts", ["head, payload", "head and index, payload", "head in two"])
def test_a_payload_that_looks_like_a_frame_stays_as_it_is(
    words: Target, before: str, parts: str
) -> None:
    data = words.frame([(1, HEAD, 1)], map_id=7)
    path = f"{words.path}/frames"
    index = data[: -len(HEAD)]
    with words.peer.line() as line:
        if before == "an answer":
            assert line.ask("GET", words.job_path).status == 200
        elif before == "a frame":
            assert line.ask("PUT", path, words.frame(), expect=True).continued
        head = line.head("PUT", path, length=len(data))
        match parts:
            case "head, payload":
                in_parts(line, head, index, HEAD)
            case "head and index, payload":
                in_parts(line, head + index, HEAD)
            case _:
                in_parts(line, head[:50], head[50:] + index, HEAD)
        assert line.reply().status == 200
        again = line.ask("PUT", path, data, expect=True)
        assert again.continued
        assert again.json()["duplicate"]


def test_a_head_in_the_body_of_a_pipelined_request_stays_as_it_is(words: Target) -> None:
    """Two requests at once, and the second one's body when the first is answered."""
    seal = bytes(12) + HEAD + bytes(-len(HEAD) % 12)
    path = f"{words.path}/seal"
    with words.peer.line() as line:
        head = line.head("PUT", path, length=len(seal))
        line.send(line.head("GET", "/healthz", length=None) + head + seal[:12])
        assert line.reply().status == 200
        in_parts(line, HEAD, seal[12 + len(HEAD) :])
        reply = line.reply()
        assert (reply.status, reply.code) == (400, "protocol")  # its maps do not rise
        assert line.ask("GET", "/healthz").status == 200


# -- readers that leave --------------------------------------------------------------------


def served(worker: WorkerProcess) -> float:
    """Return how many bytes of blocks a worker has answered."""
    text = worker.request("GET", "/metrics").body.decode()
    lines = [x for x in text.splitlines() if x.startswith("crossdock_served_bytes_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def unchanging(probe: Callable[[], float]) -> None:
    """Wait until a number is more than 0 and has been the same for a second."""
    last, since = 0.0, time.monotonic()

    def is_over() -> bool:
        nonlocal last, since
        found = probe()
        if found != last:
            last, since = found, time.monotonic()
        return bool(last) and time.monotonic() > since + 1

    eventually(is_over, pause=0.1)


def test_readers_that_leave_while_they_wait_for_room_cost_no_descriptor(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(max_read_bytes=MIB, read_batch_bytes=MIB, stall_seconds=300)
    target = Target(Peer(worker.url, ""), "leaving", partitions=2)
    assert target.register().status == 201
    for map_id in range(60):  # short runs are gathered in memory, so that they take room
        data = target.frame([(0, bytes(20_000), 1), (1, b"x", 1)], map_id=map_id)
        assert target.push(data).status == 200
    assert target.push(target.frame([(1, bytes(MIB), 1)], map_id=60)).status == 200
    frames = target.frames()
    gathered, _ = target.register_places(target.keys(frames[frames["map"] < 60]))
    sent, _ = target.register_places(target.keys(frames[frames["map"] == 60]))
    before = worker.descriptors
    with target.peer.line() as holder:
        holder.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(20):
            holder.send(holder.head("GET", f"{gathered}/blocks?partitions=0-1", length=None))
        unchanging(lambda: served(worker))  # it is stuck in an answer, which takes all the room
        waiting = [target.peer.line() for _ in range(20)]
        for line in waiting:
            line.send(line.head("GET", f"{sent}/blocks", length=None))
        time.sleep(0.5)
        assert not any(map(is_answered, waiting))
        for line in waiting:
            line.close()
        time.sleep(0.2)
    assert target.peer.ask("GET", f"{gathered}/blocks?partitions=0-1").status == 200
    eventually(lambda: worker.descriptors <= before + 1, what="no descriptor is left")
    time.sleep(0.3)  # the others have had their turn too
    eventually(lambda: worker.descriptors <= before + 1, what="nor is later")


@pytest.fixture(scope="module")
def impatient() -> Iterator[WorkerProcess]:
    """A worker that cuts peers off soon."""
    options = {"stall_seconds": 2, "min_bytes_per_second": 2**24, "max_connections": 8}
    with WorkerProcess(options=options) as process:
        yield process.start()


def pipeline(line: Line, request: bytes, *, most_bytes: int) -> None:
    """Send a request again and again, until the worker takes no more of them."""
    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.socket.settimeout(2)
    many, sent = request * 1000, 0
    with suppress(TimeoutError, ConnectionError):
        while sent < most_bytes:
            line.send(many)
            sent += len(many)


def is_cut(line: Line) -> bool:
    """Whether the other side has reset the connection."""
    line.socket.settimeout(0)
    try:
        line.socket.send(b"x")
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return False


def test_who_asks_for_small_answers_and_takes_none_is_cut_off(impatient: WorkerProcess) -> None:
    with Line(impatient.url, "") as line:
        # Of some dozens of kB each: a slow worker, too, soon fills what the kernel takes of them.
        pipeline(line, line.head("GET", "/metrics", length=None), most_bytes=64 * MIB)
        eventually(lambda: is_cut(line), what="the connection is closed")
    assert impatient.request("GET", "/healthz").status == 200


# -- JSON ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["word", "view"])
def test_json_is_bounded_before_it_is_parsed(words: Target, kind: str) -> None:
    method, path = ("PUT", words.job_path) if kind == "word" else ("POST", f"{words.path}/views")
    reply = words.peer.ask(method, path, b"[]".ljust(4 * MIB))
    assert (reply.status, reply.code) == (400, "protocol")
    reply = words.peer.ask(method, path, b"[]".ljust(4 * MIB + 1))
    assert (reply.status, reply.code) == (413, "http")


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_head_that_drips_is_cut_off(impatient: WorkerProcess, before: int) -> None:
    with Line(impatient.url, "") as line:
        for _ in range(before):
            assert line.ask("GET", "/healthz").status == 200
        line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: ")
        eventually(lambda: is_cut(line), pause=0.1, what="the connection is closed")


def test_a_head_in_two_parts_is_taken(impatient: WorkerProcess) -> None:
    with Line(impatient.url, "") as line:
        for _ in range(3):
            in_parts(line, b"GET /healthz HTTP/1.1\r\n", b"Host: x\r\n\r\n")
            assert line.reply().status == 200
        time.sleep(2.5)  # between requests a connection may rest for longer
        assert line.ask("GET", "/healthz").status == 200
