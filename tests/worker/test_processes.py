"""`--processes N`: one supervisor, a worker per process, and nothing left behind."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import crossdock
from crossdock.wire import tables
from harness import COMMAND, QUICK, StartWorker, WorkerProcess, connect_all, eventually, send
from ports import unused_ports
from raw import Line, Peer, Target


class Supervisor:
    """`crossdock worker --processes 2`."""

    def __init__(self, directory: Path) -> None:
        self.first, _ = unused_ports(2, adjacent=True)
        self.urls = [f"http://127.0.0.1:{self.first + i}" for i in range(2)]
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(COMMAND, "worker", "--data-dir", directory / "data", "--processes", "2"),
                    *("--listen", f"127.0.0.1:{self.first}", "--insecure-no-auth"),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.known = psutil.Process(self.process.pid)

    def info(self, index: int) -> dict[str, Any] | None:
        """Return what a worker says of itself; None while it does not answer."""
        with suppress(OSError):
            return dict(send(self.urls[index], "GET", "/v1/workers").json()["self"])
        return None

    def wait(self) -> list[dict[str, Any]]:
        """Wait for both workers."""
        return [eventually(lambda i=i: self.info(i)) for i in range(2)]

    def members(self) -> list[psutil.Process]:
        """Return all processes under the supervisor."""
        return self.known.children(recursive=True)

    def worker_pid(self, index: int) -> int:
        """Return the process that listens on a worker's port."""
        port = self.first + index
        for process in self.members():
            with suppress(psutil.Error):
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                        return process.pid
        raise AssertionError(f"nobody listens on {port}")

    def close(self) -> None:
        members = self.members() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait()
        for process in members:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@contextmanager
def supervised(directory: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(directory)
    try:
        yield supervisor
    finally:
        supervisor.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    with supervised(tmp_path) as found:
        yield found


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_a_dead_worker_is_started_again_with_its_identity_and_data(
    supervisor: Supervisor,
) -> None:
    before = supervisor.wait()
    assert before[0]["id"] != before[1]["id"]
    assert [w["url"] for w in before] == supervisor.urls
    with crossdock.connect(supervisor.urls, options=QUICK) as cluster:
        assert {w.id for w in cluster.members().reachable.values()} == {w["id"] for w in before}
        job = cluster.job("supervised", owner="runner")
        shuffle = job.shuffle("words", partitions=16, maps=1)
        with shuffle.writer(map_id=0, attempt=0) as writer:
            for partition in range(16):
                writer.write(partition, bytes([partition]) * 1000)
        view = shuffle.view({0: 0})
        assert len(view.places()) == 2
        os.kill(supervisor.worker_pid(1), signal.SIGKILL)
        eventually(lambda: (supervisor.info(1) or {"incarnation": 0})["incarnation"] == 2)
        after = supervisor.wait()
        assert [w["id"] for w in after] == [w["id"] for w in before]
        assert after[0]["incarnation"] == 1
        assert [bytes(b.data) for b in view.read()] == [bytes([p]) * 1000 for p in range(16)]
        assert shuffle.view({0: 0}).id == view.id
    assert "worker process died" in supervisor.log.read_text()


def test_sigterm_ends_all(supervisor: Supervisor) -> None:
    supervisor.wait()
    members = supervisor.members()
    assert len(members) >= 2
    supervisor.process.terminate()
    assert supervisor.process.wait(60) == 0
    eventually(lambda: gone(members))
    assert supervisor.log.read_text().count("worker stops") == 2


def test_kill_9_of_the_supervisor_leaves_no_process(supervisor: Supervisor) -> None:
    supervisor.wait()
    members = supervisor.members()
    supervisor.process.kill()
    supervisor.process.wait()
    eventually(lambda: gone(members))
    assert supervisor.info(0) is None
    with supervised(supervisor.log.parent) as again:  # its directories can be used again
        infos = again.wait()
        assert [w["incarnation"] for w in infos] == [2, 2]


def test_kill_9_during_the_start_leaves_no_process(tmp_path: Path) -> None:
    with supervised(tmp_path) as supervisor:
        members = eventually(supervisor.members, pause=0.001)
        supervisor.process.kill()
        supervisor.process.wait()
        eventually(lambda: gone(members))


def test_processes_need_a_port(tmp_path: Path) -> None:
    ended = subprocess.run(
        [
            *(COMMAND, "worker", "--data-dir", tmp_path / "data", "--insecure-no-auth"),
            *("--listen", "127.0.0.1:0", "--processes", "2"),
        ],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "--processes" in ended.stderr
    assert "Traceback" not in ended.stderr


# -- one process ---------------------------------------------------------------------------


def test_sigterm_lets_a_push_finish_and_refuses_new_ones(start_worker: StartWorker) -> None:
    worker = start_worker(shutdown_grace_seconds=10)
    target = Target(Peer(worker.url, ""), "stopping")
    assert target.register().status == 201
    data = target.frame([(1, bytes(1_000_000), 1)])
    with Line(worker.url, "", timeout=20) as line, Line(worker.url, "") as other:
        assert other.ask("GET", "/healthz").status == 200
        headers = {"Expect": "100-continue"}
        line.send(line.head("PUT", f"{target.path}/frames", length=len(data), headers=headers))
        assert line.reply().status == 100
        line.send(data[:1000])
        os.kill(worker.pid, signal.SIGTERM)
        eventually(lambda: "worker stops" in worker.log_text())
        with suppress(ConnectionError):  # an idle connection may have been closed
            refused = other.ask("PUT", f"{target.path}/frames", target.frame(map_id=1))
            assert (refused.status, refused.code) == (503, "overloaded")
        eventually(lambda: listens_no_more(worker), what="the end of listening")
        line.send(data[1000:])
        reply = line.reply()
        assert (reply.status, reply.json()["duplicate"]) == (200, False)
    assert worker.terminate() == 0
    worker.start()
    assert len(target.frames()) == 1


def test_more_signals_while_it_stops_do_not_look_like_a_crash(start_worker: StartWorker) -> None:
    worker = start_worker(shutdown_grace_seconds=10)
    pid = worker.pid
    os.kill(pid, signal.SIGTERM)
    with suppress(ProcessLookupError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            os.kill(pid, signal.SIGTERM)
    assert worker.terminate() == 0


def listens_no_more(worker: WorkerProcess) -> bool:
    """Whether nobody listens on the worker's port any more."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", worker.port)) != 0


def test_sigterm_does_not_wait_for_ever(start_worker: StartWorker) -> None:
    worker = start_worker(shutdown_grace_seconds=1)
    target = Target(Peer(worker.url, ""), "stopping")
    assert target.register().status == 201
    data = target.frame([(1, bytes(1_000_000), 1)])
    with Line(worker.url, "", timeout=20) as line, Line(worker.url, "") as idle:
        assert idle.ask("GET", "/healthz").status == 200
        headers = {"Expect": "100-continue"}
        line.send(line.head("PUT", f"{target.path}/frames", length=len(data), headers=headers))
        assert line.reply().status == 100
        started = time.monotonic()
        assert worker.terminate() == 0
        assert time.monotonic() - started < 20, "it is cut off after half a minute anyway"
    worker.start()
    assert not len(target.frames())


def test_a_reader_that_stalls_gets_the_grace_once(start_worker: StartWorker) -> None:
    grace = 4.0
    worker = start_worker(shutdown_grace_seconds=grace, stall_seconds=60)
    target = Target(Peer(worker.url, ""), "stopping")
    assert target.register().status == 201
    assert target.push(target.frame([(1, bytes(30_000_000), 1)])).status == 200
    path, _ = target.register_places(target.keys(target.frames()))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", worker.port))
        sock.sendall(f"GET {path}/blocks HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert sock.recv(1)
        started = time.monotonic()
        assert worker.terminate() == 0
        assert grace - 0.1 < time.monotonic() - started < 2 * grace - 0.2


def test_a_data_directory_has_one_worker(start_worker: StartWorker) -> None:
    worker = start_worker()
    other = WorkerProcess(directory=worker.directory)
    with other:
        with pytest.raises(AssertionError, match="ended with 2"):
            other.start()
        assert "is in use by another worker" in other.log_text()
    assert worker.request("GET", "/healthz").status == 200


def test_a_port_that_is_taken_is_a_clear_error(start_worker: StartWorker) -> None:
    worker = start_worker()
    with WorkerProcess() as other:
        other.port = worker.port
        with pytest.raises(AssertionError, match="ended with 2"):
            other.start()
        assert f"cannot listen on 127.0.0.1:{worker.port}" in other.log_text()
        assert "Traceback" not in other.log_text()


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with WorkerProcess(directory=tmp_path) as process:
        process.data_dir.mkdir()
        (process.data_dir / "thesis.txt").write_text("precious")
        with pytest.raises(AssertionError, match="ended with 2"):
            process.start()
        assert (process.data_dir / "thesis.txt").read_text() == "precious"


def test_a_cluster_of_two_uses_both(two_workers: list[WorkerProcess]) -> None:
    with connect_all(two_workers) as cluster:
        shuffle = cluster.job("two", owner="runner").shuffle("words", partitions=16, maps=1)
        with shuffle.writer(map_id=0) as writer:
            for partition in range(16):
                writer.write(partition, b"x")
        assert len(shuffle.view().places()) == 2


def test_a_slow_disk_under_a_seal_holds_up_nobody_else(start_worker: StartWorker) -> None:
    """The seal's new file is a pipe here, which takes nothing before somebody reads it."""
    worker = start_worker()
    target = Target(Peer(worker.url, ""), "sealing")
    assert target.register().status == 201
    assert target.push(target.frame()).status == 200
    directory = worker.data_dir / "jobs/sealing/shuffles/words/0"
    pipe = directory / ".seal.new"
    os.mkfifo(pipe)
    body = tables.encode(tables.attempts([(0, 0)]))
    with target.peer.line() as sealing, target.peer.line() as other:
        sealing.send(sealing.head("PUT", f"{target.path}/seal", length=len(body)) + body)
        for _ in range(20):
            assert other.ask("GET", "/healthz").status == 200
            assert other.ask("GET", target.job_path).status == 200
            assert other.ask("PUT", f"{target.path}/frames", target.frame()).status == 200
        with pipe.open("rb") as reader:
            assert reader.read()[:-4] == body  # and its checksum
        assert sealing.reply().status == 201
    (directory / "seal").unlink()


@pytest.mark.parametrize(
    "options",
    [
        {"listen": "127.0.0.1:65535"},
        {"listen": "127.0.0.1:20000", "advertise": "http://worker:65535"},
    ],
)
def test_processes_need_ports_that_there_are(tmp_path: Path, options: dict[str, str]) -> None:
    line = [part for name, value in options.items() for part in (f"--{name}", value)]
    ended = subprocess.run(
        [
            *(COMMAND, "worker", "--data-dir", tmp_path / "data", "--insecure-no-auth"),
            *("--processes", "2", *line),
        ],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "65536" in ended.stderr
    assert f"--{list(options)[-1] if len(options) > 1 else 'processes'}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()


def test_peers_are_asked_as_often_as_told(start_worker: StartWorker) -> None:
    asked = start_worker()
    start_worker(peers=asked.url, peers_interval_seconds=0.02)
    pattern = re.compile(r'http_requests_total{route="GET /v1/workers",status="200"} (\d+)')

    def times() -> int:
        found = pattern.search(asked.request("GET", "/metrics").body.decode())
        return int(found[1]) if found else 0

    eventually(lambda: times() >= 20)


def test_an_interval_of_nothing_is_refused(tmp_path: Path) -> None:
    process = WorkerProcess(directory=tmp_path, options={"peers_interval_seconds": 0})
    with process, pytest.raises(AssertionError, match="ended with 2"):
        process.start()
    assert "--peers-interval-seconds" in process.log_text()
