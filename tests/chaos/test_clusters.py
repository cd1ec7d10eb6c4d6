"""Two clusters in one bucket, one of which is uninstalled: the other, at work, loses nothing."""

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from chaos_blocks import PARTITIONS, block, check
from servers import ENVIRONMENT, S3Server, running, s3_options

import crossdock
from crossdock.store.opening import open_store
from harness import COMMAND, StartWorker, WorkerProcess, eventually

JOBS = 6
MAPS = 3
BLOCK_BYTES = 20_000
SETTLE_SECONDS = 1.0


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running("versitygw", tmp_path_factory.mktemp("versitygw")) as found:
        yield found


def settings(server: S3Server) -> list[str]:
    return [f"endpoint_url={server.endpoint}", f"region={server.region}", "path_style=true"]


@contextmanager
def client(server: S3Server, worker: WorkerProcess, cluster: str) -> Iterator[crossdock.Cluster]:
    options = crossdock.Options(
        frame_bytes=2**15, buffer_bytes=2**17, deadline_seconds=60, loss_after_seconds=60,
        store=f"s3://{server.bucket}/shared", store_cluster=cluster,
        store_settle_seconds=SETTLE_SECONDS,
    )  # fmt: skip
    with crossdock.connect(
        [worker.url], options=options, store_options=s3_options(server)
    ) as found:
        yield found


def job_of(cluster: crossdock.Cluster, number: int) -> crossdock.View:
    """Begin a job, of the same uid in both clusters, that has persisted all it has."""
    job = cluster.job(f"job-{number}", owner="runner", lease_seconds=120)
    shuffle = job.shuffle("words", partitions=PARTITIONS, maps=MAPS)
    for m in range(MAPS):
        with shuffle.writer(map_id=m, attempt=0) as writer:
            for p in range(PARTITIONS):
                writer.write(p, block(number, m, p, BLOCK_BYTES), rows=m + 1)
    view = shuffle.view()
    view.persist()
    return view


def uninstall(server: S3Server) -> dict[str, object]:
    """Audit the first cluster as an admin does that has removed it: no job lives."""
    line = [
        *(COMMAND, "audit", "--store", f"s3://{server.bucket}/shared", "--cluster", "one"),
        *("--delete", "--live", "", "--grace-seconds", "0", "--json"),
        *(part for option in settings(server) for part in ("--store-option", option)),
    ]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found: dict[str, object] = json.loads(ended.stdout)
    return found


def test_the_other_cluster_loses_nothing(
    server: S3Server, start_worker: StartWorker, tmp_path: Path
) -> None:
    workers = {
        name: start_worker(
            cluster=name, store=f"s3://{server.bucket}/shared", store_option=settings(server),
            store_settle_seconds=SETTLE_SECONDS, drain_grace_seconds=0,
        )
        for name in ("one", "two")
    }  # fmt: skip
    store = open_store(f"s3://{server.bucket}/shared", s3_options(server))
    gone = threading.Event()

    def work_on(cluster: crossdock.Cluster) -> list[crossdock.View]:
        """Begin jobs as long as the other is being uninstalled; end each second one."""
        kept: list[crossdock.View] = []
        number = 0
        while not gone.is_set() or len(kept) < JOBS:
            view = job_of(cluster, number)
            if number % 2:
                view.shuffle.job.end()
            else:
                kept.append(view)
            number += 1
        return kept

    with (
        client(server, workers["one"], "one") as one,
        client(server, workers["two"], "two") as two,
        ThreadPoolExecutor(1) as pool,
    ):
        views = [job_of(one, number) for number in range(JOBS)]
        busy = pool.submit(work_on, two)
        try:
            for view in views[: JOBS // 2]:
                view.shuffle.job.end()
            one.close()
            workers["one"].kill9()  # with half of its jobs left
            assert list(store.list("one/"))
            eventually(lambda: uninstall(server) and not list(store.list("one/")), seconds=180)
        finally:
            gone.set()
        assert not list(store.uploads("one/"))
        read = 0
        kept = busy.result()
        for view in kept:
            number = int(view.shuffle.job.uid.rpartition("-")[2])
            read += check(list(view.read()), number, MAPS, BLOCK_BYTES)
        assert read > 0
        workers["two"].kill9()  # what is read now is in the store
        for view in kept:
            number = int(view.shuffle.job.uid.rpartition("-")[2])
            with crossdock.open_view(
                f"s3://{server.bucket}/shared", view.shuffle.job.uid, "words", view.id,
                cluster="two", store_options=s3_options(server),
            ) as stored:  # fmt: skip
                assert check(list(stored.read()), number, MAPS, BLOCK_BYTES) > 0
    store.close()
