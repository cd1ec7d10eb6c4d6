"""Every limit pushes back, and the worker recovers when the cause is gone."""

import re
import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import pytest

import crossdock
from harness import QUICK, StartWorker, WorkerProcess, eventually
from raw import Line, Peer, Target

MIB = 2**20
_SLOWEST = 1_000_000
"""Bytes a second below which `impatient` cuts peers off."""
_PATIENT = replace(QUICK, deadline_seconds=60)


def shuffle_of(worker: WorkerProcess, job: str = "limits", **record: object) -> Target:
    """Register a job; return its shuffle "words"."""
    target = Target(Peer(worker.url, ""), job)
    assert target.register(**record).status in {200, 201}
    return target


def inflight(worker: WorkerProcess) -> int:
    return int(worker.get_json("/v1/workers")["self"]["inflight_bytes"])


def count(worker: WorkerProcess, route: str, status: int) -> float:
    """Return how many requests to a route ended with a status."""
    text = worker.request("GET", "/metrics").body.decode()
    labels = f'route="{re.escape(route)}",status="{status}"'
    pattern = rf"^crossdock_http_requests_total{{{labels}}} (.+)$"
    return sum(float(n) for n in re.findall(pattern, text, re.MULTILINE))


FRAMES = "PUT /v1/jobs/{job}/shuffles/{shuffle}/{generation}/frames"


# -- bytes in flight -----------------------------------------------------------------------


def test_overload_at_ten_times_pushes_back_and_everything_is_stored(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(max_frame_bytes=MIB + 4096, max_inflight_bytes=2 * MIB, threads=4)
    options = replace(_PATIENT, frame_bytes=MIB, buffer_bytes=16 * MIB, push_threads=8)
    before = worker.anonymous_bytes
    high_water = [before]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            high_water.append(worker.anonymous_bytes)

    def write(cluster: crossdock.Cluster, map_id: int) -> None:
        shuffle = cluster.job("overload").shuffle("words", partitions=4, maps=6)
        with shuffle.writer(map_id=map_id, attempt=0) as writer:
            for i in range(24):
                writer.write(i % 4, bytes([map_id]) * MIB)

    with ExitStack() as stack:
        clusters = [stack.enter_context(worker.connect(options=options)) for _ in range(3)]
        job = clusters[0].job("overload", owner="runner")
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(6) as pool:  # 6 writers, 24 pushes at once: 12 times the limit
                list(pool.map(lambda m: write(clusters[m % 3], m), range(6)))
        finally:
            stop.set()
            watcher.join()
        assert count(worker, FRAMES, 503) > 0, "this was no overload"
        view = job.shuffle("words", partitions=4, maps=6).view(dict.fromkeys(range(6), 0))
        assert view.bytes.tolist() == [6 * 6 * MIB] * 4
        for block in view.read(partitions=2):
            assert block.data == bytes([block.map_id]) * 6 * MIB
    assert max(high_water) - before < 64 * MIB
    eventually(lambda: inflight(worker) == 0)
    assert worker.request("GET", "/readyz").status == 200


def test_a_frame_beyond_the_bytes_in_flight_is_told_when_to_come_back(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(max_frame_bytes=MIB, max_inflight_bytes=MIB)
    target = shuffle_of(worker)
    data = target.frame([(1, bytes(700_000), 1)])
    with target.peer.line() as slow:
        headers = {"Expect": "100-continue"}
        slow.send(slow.head("PUT", f"{target.path}/frames", length=len(data), headers=headers))
        assert slow.reply().status == 100
        assert inflight(worker) == len(data)
        for expect in (True, False):
            refused = target.push(target.frame([(1, bytes(700_000), 1)], map_id=1), expect=expect)
            assert (refused.status, refused.code) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            assert not refused.continued
        assert target.push(target.frame(map_id=2)).status == 200  # a small one fits
        slow.send(data)
        assert slow.reply().status == 200
    eventually(lambda: inflight(worker) == 0)  # given back when the answer is out
    assert target.push(target.frame([(1, bytes(700_000), 1)], map_id=1)).status == 200


# -- frame size ----------------------------------------------------------------------------


def test_a_frame_over_the_limit_is_413(start_worker: StartWorker) -> None:
    worker = start_worker(max_frame_bytes=MIB)
    target = shuffle_of(worker)
    fits = target.frame([(1, bytes(MIB - 104), 1)])
    assert len(fits) == MIB
    beyond = target.frame([(1, bytes(MIB - 103), 1)], map_id=1)
    for expect in (True, False):
        refused = target.push(beyond, expect=expect)
        assert (refused.status, refused.code) == (413, "frame_too_large")
        assert "--max-frame-bytes" in refused.json()["hint"]
        assert "retry-after" not in refused.headers
    assert target.push(fits).status == 200
    assert target.frames()["map"].tolist() == [0]
    options = replace(QUICK, frame_bytes=2 * MIB)
    with worker.connect(options=options) as cluster:
        shuffle = cluster.job("limits").shuffle("words", partitions=8)
        with pytest.raises(crossdock.FrameTooLarge), shuffle.writer(map_id=5) as writer:
            writer.write(0, bytes(2 * MIB - 10))


def test_too_many_partitions_are_refused(start_worker: StartWorker) -> None:
    worker = start_worker(max_partitions=1000)
    target = replace(shuffle_of(worker), partitions=1001)
    for expect in (True, False):
        refused = target.push(target.frame(), expect=expect)
        assert (refused.status, refused.code) == (400, "protocol")
        assert "--max-partitions" in refused.json()["hint"]
    wish = {"partitions": 1001, "winners": []}
    assert target.peer.ask_json("POST", f"{target.path}/views", wish).status == 400
    smaller = replace(target, partitions=1000)
    assert smaller.push(smaller.frame()).status == 200


# -- connections ---------------------------------------------------------------------------


def alone_on(line: Line) -> None:
    """Wait until a worker counts this connection only: the harness's last one ends by itself."""
    eventually(lambda: b"crossdock_connections 1.0" in line.ask("GET", "/metrics").body)


def test_connections_over_the_limit_are_refused_until_others_close(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(max_connections=5)
    address = ("127.0.0.1", worker.port)
    with ExitStack() as stack:
        lines = [stack.enter_context(Line(worker.url, ""))]
        alone_on(lines[0])
        lines += [stack.enter_context(Line(worker.url, "")) for _ in range(4)]
        for line in lines:
            assert line.ask("GET", "/healthz").status == 200
        for _ in range(20):
            with socket.create_connection(address, 10) as beyond:
                answer = b"".join(iter(lambda s=beyond: s.recv(65536), b""))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: " in head
            assert f"Content-Length: {len(body)}".encode() in head
            assert b'"overloaded"' in body
        for line in lines:  # those that are in keep working
            assert line.ask("GET", "/healthz").status == 200
        lines[0].close()
        eventually(lambda: worker.request("GET", "/healthz").status == 200)


def test_a_client_waits_for_a_free_connection(start_worker: StartWorker) -> None:
    worker = start_worker(max_connections=3)
    with ExitStack() as stack:
        lines = [stack.enter_context(Line(worker.url, ""))]
        alone_on(lines[0])
        lines += [stack.enter_context(Line(worker.url, "")) for _ in range(2)]
        for line in lines:
            assert line.ask("GET", "/healthz").status == 200
        with ThreadPoolExecutor(1) as pool, worker.connect(options=_PATIENT) as cluster:
            waiting = pool.submit(cluster.job, "patient", owner="runner")
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
            for line in lines:
                line.close()
            assert waiting.result(60).uid == "patient"


def test_connections_that_ask_nothing_are_closed(start_worker: StartWorker) -> None:
    worker = start_worker(max_connections=8, stall_seconds=1)
    address = ("127.0.0.1", worker.port)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(8)]
        for i, sock in enumerate(silent):
            sock.sendall(b"PUT /v1/jobs/x HTTP/1.1\r\nHost: x\r\n"[: 5 * i])
        eventually(lambda: worker.request("GET", "/healthz").status == 200)


# -- disk ----------------------------------------------------------------------------------


def fill(target: Target, name: str, first_map: int, frames: int, size: int) -> list[int]:
    """Push frames; return the statuses."""
    shuffle = replace(target, name=name)
    return [
        shuffle.push(shuffle.frame([(1, bytes(size), 1)], map_id=first_map + i)).status
        for i in range(frames)
    ]


def test_a_full_disk_pushes_back_until_it_has_fallen_below_the_low_mark(
    start_worker: StartWorker,
) -> None:
    worker = start_worker(disk_capacity_bytes=1_000_000, disk_high="0.9", disk_low="0.5")
    target = shuffle_of(worker)
    assert fill(target, "small", 0, 2, 100_000) == [200, 200]
    assert fill(target, "large", 0, 9, 100_000) == [200] * 7 + [503] * 2
    for expect in (True, False):
        refused = target.push(target.frame(), expect=expect)
        assert (refused.status, refused.code) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
    ready = worker.request("GET", "/readyz")
    assert (ready.status, ready.json()) == (503, {"state": "full"})
    assert worker.get_json("/v1/workers")["self"]["state"] == "full"
    large = replace(target, name="large")
    assert len(large.frames()) == 7  # readers are served
    _, reply = large.register_places(large.keys(large.frames()))
    assert reply.status == 200
    small = replace(target, name="small")
    assert target.peer.ask("DELETE", small.path).status == 200
    assert fill(target, "other", 0, 1, 100) == [503]  # 70 %: below high, above low
    assert target.peer.ask("DELETE", large.path).status == 200
    assert worker.request("GET", "/readyz").status == 200
    assert fill(target, "other", 0, 3, 100_000) == [200] * 3


def test_a_client_waits_for_room_on_the_disk(start_worker: StartWorker) -> None:
    worker = start_worker(disk_capacity_bytes=MIB, disk_high="0.5", disk_low="0.5")
    with worker.connect(options=_PATIENT) as cluster:
        job = cluster.job("disk", owner="runner")
        first = job.shuffle("first", partitions=1)
        with first.writer(map_id=0) as writer:
            writer.write(0, bytes(600_000))

        def write() -> int:
            second = job.shuffle("second", partitions=1)
            with second.writer(map_id=0, attempt=0) as writer:
                writer.write(0, b"patience")
            return int(second.view({0: 0}).bytes[0])

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(write)
            eventually(lambda: count(worker, FRAMES, 503) > 0)
            assert not waiting.done()
            first.release()
            assert waiting.result(60) == 8


@pytest.mark.parametrize("by", ["record", "option"])
def test_a_quota_stops_its_job_alone(start_worker: StartWorker, by: str) -> None:
    worker = start_worker(**({"job_quota_bytes": 250_000} if by == "option" else {}))
    record = {"quota_bytes": 250_000} if by == "record" else {}
    full = shuffle_of(worker, "full", **record)
    assert fill(full, "words", 0, 2, 100_000) == [200, 200]
    for expect in (True, False):
        refused = full.push(full.frame([(1, bytes(100_000), 1)], map_id=2), expect=expect)
        assert (refused.status, refused.code) == (507, "quota_exceeded")
        assert "retry-after" not in refused.headers
    other = shuffle_of(worker, "other")
    assert fill(other, "words", 0, 2, 100_000) == [200, 200]
    assert full.push(full.frame(map_id=3)).status == 200  # what fits is taken
    with worker.connect() as cluster:
        shuffle = cluster.job("full").shuffle("words", partitions=8)
        with pytest.raises(crossdock.QuotaExceeded), shuffle.writer(map_id=9) as writer:
            writer.write(0, bytes(200_000))
    assert full.peer.ask("DELETE", full.path).status == 200
    assert fill(full, "more", 0, 2, 100_000) == [200, 200]


def test_a_frame_that_was_acked_is_a_duplicate_even_at_the_quota(
    start_worker: StartWorker,
) -> None:
    """The ack may have been lost: the writer must learn that its frame is in."""
    target = shuffle_of(start_worker(job_quota_bytes=150_000))
    data = target.frame([(1, bytes(100_000), 1)])
    assert target.push(data).status == 200
    for expect in (True, False):
        again = target.push(data, expect=expect)
        assert (again.status, again.json()["duplicate"]) == (200, True)


# -- peers that are slow, or go ------------------------------------------------------------


@contextmanager
def half_a_frame(target: Target, data: bytes, *, expect: bool) -> Iterator[Line]:
    """Open a connection on which half of a frame has been sent."""
    with target.peer.line() as line:
        headers = {"Expect": "100-continue"} if expect else {}
        line.send(line.head("PUT", f"{target.path}/frames", length=len(data), headers=headers))
        if expect:
            assert line.reply().status == 100
        line.send(data[: len(data) // 2])
        yield line


@pytest.fixture(scope="module")
def impatient() -> Iterator[WorkerProcess]:
    """A worker that cuts peers off after two seconds, with two threads."""
    options = {"stall_seconds": 2, "threads": 2, "min_bytes_per_second": _SLOWEST}
    with WorkerProcess(options=options) as process:
        yield process.start()


def is_answered(line: Line) -> bool:
    """Whether something has come, or the end."""
    return bool(select.select([line.socket], [], [], 0)[0])


def cut_off(worker: WorkerProcess) -> float:
    """Return how many frames did not come to their end: they may be over before one looks."""
    return count(worker, FRAMES, 503)


both_ways = pytest.mark.parametrize("expect", [False, True], ids=["plain", "expect"])


@both_ways
@pytest.mark.parametrize("end", ["stalls", "disconnects", "resets"])
def test_half_a_frame_leaves_nothing(impatient: WorkerProcess, end: str, *, expect: bool) -> None:
    target = shuffle_of(impatient, f"half-{end}-{expect}")
    assert target.push(target.frame(map_id=9)).status == 200
    before, sockets, cut = target.disk_bytes(), impatient.sockets, cut_off(impatient)
    data = target.frame([(1, bytes(4 * MIB), 1)])
    with half_a_frame(target, data, expect=expect) as line:
        eventually(lambda: inflight(impatient) > 0 or cut_off(impatient) > cut)
        if expect:
            eventually(
                lambda: target.disk_bytes() >= before + 4 * MIB or cut_off(impatient) > cut,
                what="the reservation",
            )
        if end == "resets":
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if end != "stalls":
            line.close()
        eventually(lambda: inflight(impatient) == 0)
        eventually(lambda: target.disk_bytes() == before)
        if end == "stalls":
            try:
                reply = line.reply()
                assert (reply.status, reply.code) == (503, "peer_gone")
            except ConnectionError:
                pass
            line.close()
    assert target.frames()["map"].tolist() == [9]
    eventually(lambda: impatient.sockets <= sockets)
    assert target.push(data).status == 200


@pytest.mark.parametrize("sent", [0, 10], ids=["nothing", "a part"])
def test_other_calls_are_cut_off_too(impatient: WorkerProcess, sent: int) -> None:
    target = shuffle_of(impatient, "calls")
    assert target.push(target.frame()).status == 200
    sockets = impatient.sockets
    lines = []
    with ExitStack() as stack:
        for method, path in (
            ("PUT", "/v1/jobs/calls"),
            ("POST", f"{target.path}/frames/list"),
            ("POST", f"{target.path}/blocks"),
            ("POST", f"{target.path}/views"),
            ("PUT", f"{target.path}/seal"),
        ):
            lines.append(line := stack.enter_context(target.peer.line()))
            line.send(line.head(method, path, length=1_000_000) + bytes(sent))
        eventually(lambda: all(map(is_answered, lines)), what="an answer, or the end, of each")
        eventually(lambda: impatient.sockets <= sockets, what="callers cut off")
    eventually(lambda: inflight(impatient) == 0)


def test_large_bodies_of_other_calls_are_bytes_in_flight(start_worker: StartWorker) -> None:
    worker = start_worker(max_frame_bytes=MIB, max_inflight_bytes=MIB)
    target = shuffle_of(worker)
    assert target.push(target.frame()).status == 200
    path = f"{target.path}/frames/list"
    with target.peer.line() as slow:
        slow.send(slow.head("POST", path, length=12 * 80_000) + bytes(100))
        eventually(lambda: inflight(worker) == 12 * 80_000)
        refused = target.peer.ask("POST", path, bytes(12 * 80_000))
        assert (refused.status, refused.code) == (503, "overloaded")
        assert target.register().status == 200  # leases are renewed at any load
        assert len(target.frames([(0, 0)])) == 1
        slow.send(bytes(12 * 80_000 - 100))
        assert slow.reply().status == 200
    eventually(lambda: inflight(worker) == 0)  # given back when the answer is out
    refused = target.peer.ask("POST", path, headers={"Content-Length": str(2**40)}, expect=True)
    assert refused.status == 413


def test_any_call_may_expect_100_continue(start_worker: StartWorker) -> None:
    target = shuffle_of(start_worker())
    assert target.push(target.frame()).status == 200
    with target.peer.line() as line:
        body = b'{"owner": "cluster"}'
        assert line.ask("PUT", target.job_path, body, expect=True).continued
        reply = line.ask("POST", f"{target.path}/frames/list", bytes(12), expect=True)
        assert (reply.status, reply.continued) == (200, True)


def test_many_slow_writers_do_not_block_a_quick_one(start_worker: StartWorker) -> None:
    worker = start_worker(stall_seconds=6, threads=2)
    target = shuffle_of(worker, "crowd")
    assert target.push(target.frame()).status == 200
    threads, sockets = worker.threads, worker.sockets
    data = target.frame([(1, bytes(100_000), 1)], map_id=1)
    with ExitStack() as stack:
        for i in range(40):
            stack.enter_context(half_a_frame(target, data, expect=bool(i % 2)))
        quick = [target.push(target.frame(map_id=2 + i)).status for i in range(10)]
        assert quick == [200] * 10
        assert inflight(worker) > 0, "the slow ones were cut off before the quick one came"
        assert worker.threads <= threads + 2
        eventually(lambda: inflight(worker) == 0)
    eventually(lambda: worker.sockets <= sockets)
    assert worker.threads <= threads + 2
    assert len(target.frames()) == 11


@pytest.mark.parametrize("piece", [MIB, 100], ids=["sendfile", "gather"])
def test_a_reader_that_reads_nothing_is_cut_off(impatient: WorkerProcess, piece: int) -> None:
    target = shuffle_of(impatient, f"reader-{piece}")
    for map_id in range(4):
        pieces = [(p, bytes(piece), 1) for p in range(8) for _ in range(8 * MIB // piece // 8)]
        assert target.push(target.frame(pieces, map_id=map_id)).status == 200
    path, _ = target.register_places(target.keys(target.frames()))
    threads, sockets = impatient.threads, impatient.sockets
    descriptors = impatient.descriptors
    lines = []
    with ExitStack() as stack:
        for _ in range(6):
            lines.append(line := stack.enter_context(target.peer.line()))
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.send(line.head("GET", f"{path}/blocks", length=None))
        eventually(lambda: all(map(is_answered, lines)), what="the begin of each answer")
        assert target.push(target.frame(map_id=99)).status == 200  # writers do not wait for them
        eventually(lambda: impatient.sockets <= sockets, what="readers cut off")
    eventually(lambda: impatient.descriptors <= descriptors)
    assert impatient.threads <= threads + 2
    with impatient.connect() as cluster:
        shuffle = cluster.job(target.job).shuffle("words", partitions=8)
        view = shuffle.view(dict.fromkeys(range(4), 0))
        total = sum(batch.nbytes for batch in view.read_batches())
        assert total == int(view.bytes.sum()) == len(pieces) * piece * 4


def test_a_slow_reader_does_not_hold_up_others(start_worker: StartWorker) -> None:
    """What goes straight from the log to a socket takes no room in memory."""
    worker = start_worker(max_read_bytes=16 * MIB, stall_seconds=20)
    target = shuffle_of(worker)
    assert target.push(target.frame([(p, bytes(4 * MIB), 1) for p in range(4)])).status == 200
    path, _ = target.register_places(target.keys(target.frames()))
    with target.peer.line() as slow, ThreadPoolExecutor(1) as pool:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.send(slow.head("GET", f"{path}/blocks", length=None))
        none = b'crossdock_served_bytes_total{tier="disk"} 0.0'
        eventually(lambda: none not in worker.request("GET", "/metrics").body)
        quick = pool.submit(target.peer.ask, "GET", f"{path}/blocks?partitions=1")
        assert quick.result(15).status == 200


# -- peers that are slow on the whole ------------------------------------------------------


def drip(line: Line, data: bytes, *, step: int, pause_seconds: float) -> None:
    """Send data little by little until it is out or the other side has had enough."""
    pace = threading.Event()
    with suppress(OSError):
        for at in range(0, len(data), step):
            line.send(data[at : at + step])
            pace.wait(pause_seconds)


@both_ways
@pytest.mark.parametrize("pause_seconds", [0.002, 0.3], ids=["often", "seldom"])
def test_a_frame_that_drips_is_cut_off(
    impatient: WorkerProcess, pause_seconds: float, *, expect: bool
) -> None:
    """It never stalls for two seconds, but would be in flight for an hour and more."""
    target = shuffle_of(impatient, f"drip-{expect}-{pause_seconds}")
    data = target.frame([(1, bytes(4 * MIB), 1)])
    with half_a_frame(target, data, expect=expect) as line, ThreadPoolExecutor(1) as pool:
        rest = data[len(data) // 2 :]
        dripping = pool.submit(drip, line, rest, step=1, pause_seconds=pause_seconds)
        eventually(lambda: inflight(impatient) > 0 or dripping.done())
        eventually(lambda: inflight(impatient) == 0, what="the drip's end")
        line.close()
        dripping.result(60)
    assert not len(target.frames())


def test_another_body_that_drips_is_cut_off(impatient: WorkerProcess) -> None:
    target = shuffle_of(impatient, "drip-list")
    with target.peer.line() as line, ThreadPoolExecutor(1) as pool:
        line.send(line.head("POST", f"{target.path}/frames/list", length=12 * 80_000))
        dripping = pool.submit(drip, line, bytes(12 * 80_000), step=1, pause_seconds=0.2)
        eventually(lambda: inflight(impatient) > 0 or dripping.done())
        eventually(lambda: inflight(impatient) == 0, what="the drip's end")
        line.close()
        dripping.result(60)


@both_ways
def test_a_slow_frame_above_the_lowest_rate_is_taken(
    impatient: WorkerProcess, *, expect: bool
) -> None:
    """It takes longer than `stall_seconds`, at four times the lowest rate."""
    target = shuffle_of(impatient, f"slow-{expect}")
    data = target.frame([(1, bytes(3 * 4 * _SLOWEST), 1)])
    with target.peer.line() as line:
        headers = {"Expect": "100-continue"} if expect else {}
        line.send(line.head("PUT", f"{target.path}/frames", length=len(data), headers=headers))
        if expect:
            assert line.reply().status == 100
        drip(line, data, step=_SLOWEST // 2, pause_seconds=0.125)
        assert line.reply().status == 200


def test_requests_are_answered_after_every_storm(impatient: WorkerProcess) -> None:
    assert impatient.request("GET", "/readyz").status == 200
    eventually(lambda: inflight(impatient) == 0)
    gauges = impatient.request("GET", "/metrics").body.decode()
    assert "crossdock_inflight_bytes 0.0" in gauges
