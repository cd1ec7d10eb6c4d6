"""What the client's tests share: jobs on several workers, simple contents, simple readings."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import crossdock
from crossdock import Shuffle, View
from harness import QUICK, WorkerProcess, connect_all, eventually, send

Blocks = list[tuple[int, int, bytes, int]]
"""(partition, map, data, rows) in the order of reads."""


def options(**changes: float) -> crossdock.Options:
    """Return quick options with some changed."""
    values = {name: getattr(QUICK, name) for name in QUICK.__dataclass_fields__}
    return crossdock.Options(**{**values, **changes})


@contextmanager
def open_job(workers: Iterable[WorkerProcess], **changes: float) -> Iterator[crossdock.Job]:
    """Register a job with all the workers, with client options of its own."""
    with (
        connect_all(list(workers), options=options(**changes)) as cluster,
        cluster.job(f"job-{secrets.token_hex(6)}", owner="runner", lease_seconds=3600) as job,
    ):
        yield job


def attached(job: crossdock.Job, workers: Iterable[WorkerProcess], **changes: float) -> Iterator:
    """Attach to the job with a client of its own; a context manager."""

    @contextmanager
    def attach() -> Iterator[crossdock.Job]:
        with (
            connect_all(list(workers), options=options(**changes)) as cluster,
            cluster.job(job.uid) as other,
        ):
            yield other

    return attach()


def content(map_id: int, attempt: int, partition: int, size: int = 40) -> bytes:
    """Return bytes that no other block has."""
    head = b"m%d a%d p%d|" % (map_id, attempt, partition)
    return (head * (size // len(head) + 1))[: max(size, len(head))]


def write(
    shuffle: Shuffle,
    map_id: int,
    attempt: int = 0,
    *,
    replicas: int = 1,
    size: int = 40,
    partitions: Iterable[int] | None = None,
) -> None:
    """Write an attempt that has a block in each of the partitions."""
    with shuffle.writer(map_id=map_id, attempt=attempt, replicas=replicas) as writer:
        for p in range(shuffle.partitions) if partitions is None else partitions:
            writer.write(p, content(map_id, attempt, p, size), rows=p + 1)


def expected(
    shuffle: Shuffle,
    winners: Mapping[int, int],
    *,
    size: int = 40,
    partitions: Iterable[int] | None = None,
) -> Blocks:
    """Return what `write` wrote of the winners, in the order of reads."""
    wanted = range(shuffle.partitions) if partitions is None else partitions
    return [
        (p, m, content(m, a, p, size), p + 1) for p in wanted for m, a in sorted(winners.items())
    ]


def read(view: View, **ranges: range) -> Blocks:
    """Read a view to its end."""
    return [(b.partition, b.map_id, bytes(b.data), b.rows) for b in view.read(**ranges)]


def wipe(worker: WorkerProcess) -> None:
    """Kill a worker and remove its disk."""
    worker.kill9()
    shutil.rmtree(worker.data_dir)


@contextmanager
def started_after(worker: WorkerProcess, seconds: float) -> Iterator[None]:
    """Start a worker in a thread, some seconds after the block begins."""
    timer = threading.Timer(seconds, worker.start)
    timer.start()
    try:
        yield
    finally:
        timer.join()


_FORKER = """
import json, os, select, signal, sys, threading
from pathlib import Path
from crossdock_worker import server
from crossdock_worker.settings import Settings
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
tests = os.dup(0)  # a pipe whose other end only the tests hold, however they end

def die_with_the_tests():
    gone = select.poll()
    gone.register(tests, 0)  # told of the end only; what is written is for the parent
    gone.poll()
    os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    data_dir, port, log = json.loads(line)
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(file, 1)
        os.dup2(file, 2)
        threading.Thread(target=die_with_the_tests, daemon=True).start()
        server.configure_logging(level="info")
        server.run(Settings(data_dir=Path(data_dir), port=port, insecure=True))
        os._exit(0)
    print(pid, flush=True)
"""


class Forker:
    """Starts workers in hundredths of a second: forks of a process that has imported all."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def fork(self, data_dir: Path, port: int, log: Path) -> int:
        """Return the process id of a new worker; it may not listen yet."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(data_dir), port, str(log)]), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the forker, and with it its workers."""
        self._process.communicate()


class ForkedWorker:
    """A worker process in a directory of its own, killed and started again at will."""

    def __init__(self, forker: Forker, directory: Path) -> None:
        self._forker = forker
        self._pid = 0
        directory.mkdir(exist_ok=True)
        self.data_dir = directory / "data"
        self.log = directory / "log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def launch(self) -> None:
        """Start it, without waiting until it listens."""
        self._pid = self._forker.fork(self.data_dir, self.port, self.log)

    def start(self) -> Self:
        """Start it and wait until it answers."""
        self.launch()
        eventually(self._answers, seconds=30, pause=0.003, what=f"start; log {self.log}")
        return self

    def _answers(self) -> bool:
        assert self.running, self.log.read_text()[-2000:]
        with suppress(OSError):
            return send(self.url, "GET", "/healthz").status == 200
        return False

    @property
    def running(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return self._pid > 0

    def kill9(self) -> None:
        """Kill it and wait until it is gone."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            eventually(lambda: not self.running, pause=0.001, what="the end of the worker")
            self._pid = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill9()
