"""A worker that is killed at each request of a persist run: before it, within it, and after it."""

import http.client
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest
from faults import Answer, FaultyProxy, Request
from servers import S3Server, s3_options

import crossdock
from crossdock.store.api import Verb
from crossdock.store.opening import open_store
from harness import WorkerProcess, connect_all, eventually

MOMENTS: Final = ("before", "within", "after")
MAPS, PARTITIONS = 3, 5
URL: Final = "s3://shuffles/steps"
CLIENT: Final = crossdock.Options(
    frame_bytes=2**17, buffer_bytes=2**20, deadline_seconds=60, loss_after_seconds=60
)


class Killer(FaultyProxy):
    """Kills a worker at the n-th request about a job, and starts it again."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.worker: WorkerProcess | None = None
        self.steps: list[str] = []
        self._job = ""
        self._at = (-1, "")
        self._turn = threading.Lock()
        self._restart: threading.Thread | None = None

    def arm(self, job: str, step: int, moment: str) -> None:
        """Kill at a step of a job, counted from 0; -1: not at all."""
        with self._turn:
            self.steps, self._job, self._at = [], job, (step, moment)

    def settled(self) -> None:
        """Wait until the worker runs again, if it was killed."""
        if self._restart is not None:
            self._restart.join()
            self._restart = None

    def answer(self, request: Request) -> Answer | None:
        """Answer a request, or kill the worker that sent it."""
        with self._turn:
            named = request.target.encode()
            if request.verb is Verb.DELETE:
                named += request.body
            mine = self._job and self._job.encode() in named
            number = len(self.steps)
            if mine:
                self.steps.append(f"{request.verb} {request.target.split('?')[0]}")
            step, moment = self._at
            now = mine and number == step
        if not now:
            return self.forward(request)
        if moment == "within":
            self._send_half(request)
        elif moment == "after":
            self.forward(request)
        assert self.worker is not None
        self.worker.kill9()
        self._restart = threading.Thread(target=self.worker.start)
        self._restart.start()
        return None

    def _send_half(self, request: Request) -> None:
        """Let the server see the beginning of a request, as when its sender dies."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        connection.putrequest(
            request.method, request.target, skip_host=True, skip_accept_encoding=True
        )
        for name, value in request.headers.items():
            connection.putheader(name, value)
        connection.endheaders(request.body[: len(request.body) // 2] or None)
        connection.close()


@contextmanager
def killing(server: S3Server, directory: Path) -> Iterator[tuple[Killer, crossdock.Cluster]]:
    """Run a worker whose store is behind a killer."""
    with Killer(server.endpoint) as killer:
        options = s3_options(server)
        worker = WorkerProcess(
            options={
                "store": URL,
                "store_option": [
                    f"endpoint_url={killer.endpoint}", f"region={options.region}", "path_style=true"
                ],
                "segment_bytes": 2**20 + 2**19,
                "max_frame_bytes": 2**18,
                "store_settle_seconds": 0.2,
                "drain_grace_seconds": 0,
            },
            directory=directory,
        )  # fmt: skip
        killer.worker = worker
        with worker.start(), connect_all([worker], options=CLIENT) as cluster:
            yield killer, cluster


def persist_with_a_kill(
    killer: Killer, cluster: crossdock.Cluster, server: S3Server, job_uid: str, at: tuple[int, str]
) -> list[str]:
    """Persist a view while the worker is killed; check everything; return the requests."""
    options = s3_options(server)
    rng = random.Random(job_uid)
    with cluster.job(job_uid, owner="runner") as job:
        shuffle = job.shuffle("killed", partitions=PARTITIONS, maps=MAPS)
        for m in range(MAPS):
            with shuffle.writer(map_id=m, attempt=0) as writer:
                for p in range(PARTITIONS):
                    writer.write(p, rng.randbytes(rng.randrange(300_000)), rows=p)
        view = shuffle.view()
        expected = [(b.partition, b.map_id, bytes(b.data), b.rows) for b in view.read()]
        killer.arm(job_uid, *at)
        view.persist()
        killer.settled()
        steps = list(killer.steps)
        with crossdock.open_view(URL, job.uid, "killed", view.id, store_options=options) as stored:
            found = [(b.partition, b.map_id, bytes(b.data), b.rows) for b in stored.read()]
            named = {s.key for s in stored.manifest.segments}
        assert found == expected
        with closing(open_store(URL, options)) as store:

            def leftovers() -> set[str]:
                keys = {info.key for info in store.list(f"default/{job.uid}/")}
                known = {k for k in keys if "/records/" in k or "/views/" in k}
                unfinished = {u.key for u in store.uploads(f"default/{job.uid}/")}
                return (keys - known - named) | unfinished

            eventually(lambda: not leftovers(), what="the end of what was half done")
        job.end()
    return steps


def steps_of(killer: Killer, cluster: crossdock.Cluster, server: S3Server) -> int:
    """Return how many requests a run without a fault makes."""
    persist_with_a_kill(killer, cluster, server, "whole-warm", (-1, ""))
    steps = persist_with_a_kill(killer, cluster, server, "whole", (-1, ""))
    writes = [step for step in steps if step.startswith("PutObject")]
    assert len(writes) >= 5, steps  # the intent, segments, the record and the manifest
    return len(steps)


def kills(server: S3Server, directory: Path, points: Callable[[int], list[tuple[int, str]]]) -> int:
    """Kill a worker at some (step, moment)s of a run; return how often."""
    with killing(server, directory) as (killer, cluster):
        chosen = points(steps_of(killer, cluster, server))
        for step, moment in chosen:
            print(f"killed {moment} request {step}")
            uid = f"kill-{step}-{moment}"
            persist_with_a_kill(killer, cluster, server, uid, (step, moment))
    return len(chosen)


def test_kills_at_each_request(moto: S3Server, tmp_path: Path) -> None:
    def points(count: int) -> list[tuple[int, str]]:
        return [(step, MOMENTS[step % 3]) for step in range(count)]

    assert kills(moto, tmp_path, points) >= 6


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_kills_before_within_and_after_each_request(versitygw: S3Server, tmp_path: Path) -> None:
    def points(count: int) -> list[tuple[int, str]]:
        return [(step, moment) for step in range(count) for moment in MOMENTS]

    assert kills(versitygw, tmp_path, points) >= 18
