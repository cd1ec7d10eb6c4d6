"""Workers whose store is a real S3 server: what `tests/persist` says of directories holds there."""

import random
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults import Answer as S3Answer
from faults import FaultyProxy, Forward, Request
from servers import ACCESS_KEY, SECRET_KEY, S3Server, running, s3_options

import crossdock
from crossdock import Shuffle, View
from crossdock.persisting import Progress
from crossdock.store.api import StoreOptions, Verb
from crossdock.store.opening import open_store
from crossdock.store.view import StoreView
from harness import StartWorker, WorkerProcess, connect_all, eventually, mutual_workers

Blocks = list[tuple[int, int, bytes, int]]
SMALL = {"segment_bytes": 2 * 2**20, "max_frame_bytes": 2**20}
CLIENT = crossdock.Options(
    frame_bytes=2**18, buffer_bytes=2**20, deadline_seconds=60, loss_after_seconds=1,
    connect_seconds=1,
)  # fmt: skip


@dataclass
class Bucket:
    """A bucket, and a folder of it for one test."""

    url: str
    options: StoreOptions

    @property
    def settings(self) -> dict[str, Any]:
        """Options of a worker."""
        found = self.options
        pairs = {"endpoint_url": found.endpoint_url, "region": found.region, "path_style": "true"}
        return {"store": self.url, "store_option": [f"{k}={v}" for k, v in pairs.items()], **SMALL}

    def keys(self, part: str = "") -> list[str]:
        """Return the keys that have `part`."""
        store = open_store(self.url, self.options)
        try:
            return [info.key for info in store.list("") if part in info.key]
        finally:
            store.close()

    def opened(self, job: str, view: View) -> StoreView:
        return crossdock.open_view(
            self.url, job, view.shuffle.key.name, view.id, store_options=self.options
        )


@pytest.fixture
def bucket(versitygw: S3Server, job_uid: str) -> Bucket:
    return Bucket(f"s3://{versitygw.bucket}/{job_uid}", s3_options(versitygw))


@contextmanager
def job_of(
    workers: list[WorkerProcess],
    uid: str,
    options: crossdock.Options = CLIENT,
    *,
    persistence: str = "OnPressure",
    lease_seconds: float = 60,
    **changes: Any,
) -> Iterator[crossdock.Job]:
    with (
        connect_all(workers, options=replace(options, **changes)) as cluster,
        cluster.job(
            uid, owner="runner", persistence=persistence, lease_seconds=lease_seconds
        ) as job,
    ):
        yield job


def write(shuffle: Shuffle, map_id: int, *, attempt: int = 0, size: int = 40_000) -> None:
    rng = random.Random(map_id)
    with shuffle.writer(map_id=map_id, attempt=attempt) as writer:
        for p in range(shuffle.partitions):
            writer.write(p, rng.randbytes(rng.randrange(size)), rows=rng.randrange(5))


def blocks_of(view: View | StoreView) -> Blocks:
    return [(b.partition, b.map_id, bytes(b.data), b.rows) for b in view.read()]


def test_a_persisted_view_is_read_with_every_worker_dead(
    start_worker: StartWorker, bucket: Bucket, job_uid: str
) -> None:
    workers = [start_worker(**bucket.settings) for _ in range(2)]
    with job_of(workers, job_uid) as job:
        shuffle = job.shuffle("words", partitions=20, maps=8)
        for m in range(8):
            write(shuffle, m)
        view = shuffle.view()
        expected = blocks_of(view)
        view.persist()
        for worker in workers:
            worker.kill9()
    assert not bucket.keys("/intents/")
    with bucket.opened(job_uid, view) as stored:
        assert blocks_of(stored) == expected


def test_what_a_drained_worker_had_is_read_through_another(
    start_worker: StartWorker, bucket: Bucket, job_uid: str
) -> None:
    workers = [start_worker(**bucket.settings) for _ in range(2)]
    with job_of(workers, job_uid) as job:
        shuffle = job.shuffle("words", partitions=20, maps=8)
        for m in range(8):
            write(shuffle, m)
        expected = blocks_of(shuffle.view(dict.fromkeys(range(8), 0)))

        def drained() -> bool:
            return bool(workers[0].request("POST", "/v1/drain").json()["drained"])

        eventually(drained, what="the drain")
        workers[0].kill9()
        assert blocks_of(shuffle.view(dict.fromkeys(range(8), 0))) == expected


def test_what_was_acked_outlives_the_disk(
    start_worker: StartWorker, bucket: Bucket, job_uid: str
) -> None:
    worker = start_worker(**bucket.settings, eager_quiet_seconds=0.5, store_settle_seconds=1)
    # Its lease is renewed soon: before that, a worker that begins anew may not write.
    with job_of([worker], job_uid, persistence="BeforeAck", lease_seconds=12) as job:
        shuffle = job.shuffle("words", partitions=9, maps=4)
        for m in range(4):
            write(shuffle, m)
        expected = blocks_of(shuffle.view(dict.fromkeys(range(4), 0)))
        worker.kill9()
        aside = worker.data_dir.rename(worker.data_dir.with_name("aside"))
        worker.start()
        job.introduce(worker.url)
        assert blocks_of(shuffle.view(dict.fromkeys(range(4), 0))) == expected
        worker.kill9()
        shutil.rmtree(worker.data_dir)
        aside.rename(worker.data_dir)
        worker.start()
        eventually(lambda: not bucket.keys(".log"), what="the end of the log objects")
        assert blocks_of(shuffle.view(dict.fromkeys(range(4), 0))) == expected


def test_two_clients_persist_one_view_at_once_and_agree(
    start_worker: StartWorker, bucket: Bucket, job_uid: str
) -> None:
    worker = start_worker(**bucket.settings)
    with job_of([worker], job_uid) as job, job_of([worker], job_uid) as other:
        for m in range(4):
            write(job.shuffle("words", partitions=9, maps=4), m)
        views = [each.shuffle("words", partitions=9, maps=4).view() for each in (job, other)]
        expected = blocks_of(views[0])
        with ThreadPoolExecutor(4) as pool:
            published = list(pool.map(View.persist, [*views, *views]))
    assert len(set(published)) == len(bucket.keys("/views/")) == len(bucket.keys("/records/")) == 1
    with bucket.opened(job_uid, views[0]) as stored:
        assert blocks_of(stored) == expected


def test_a_worker_says_what_its_store_can_do(start_worker: StartWorker, bucket: Bucket) -> None:
    worker = start_worker(**bucket.settings)

    def said() -> dict[str, Any] | None:
        return next((e for e in worker.log_lines() if e["event"] == "store is there"), None)

    found = eventually(said, what="the store")
    assert found["store"] == bucket.url
    assert [found[name] for name in ("conditional_put", "lists_uploads", "checks_checksums")] == [
        True, True, True,
    ]  # fmt: skip
    assert bucket.keys() == []


def test_a_worker_starts_without_its_store(start_worker: StartWorker, job_uid: str) -> None:
    nowhere = Bucket("s3://nowhere/x", StoreOptions(endpoint_url="http://127.0.0.1:1", region="x"))
    settings = nowhere.settings
    settings["store_option"].append("deadline_seconds=0.1")
    worker = start_worker(**settings)

    def warned() -> bool:
        return any(e["event"] == "store does not answer yet" for e in worker.log_lines())

    eventually(warned, what="the warning")
    with job_of([worker], job_uid) as job:
        shuffle = job.shuffle("words", partitions=9, maps=1)
        write(shuffle, 0)
        assert len(blocks_of(shuffle.view())) == 9


# -- a store that is slow, or refuses -----------------------------------------------------------


@pytest.fixture
def proxy(moto: S3Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(moto.endpoint) as found:
        yield found


def behind(proxy: FaultyProxy, server: S3Server, job_uid: str) -> Bucket:
    options = replace(s3_options(server), endpoint_url=proxy.endpoint)
    return Bucket(f"s3://{server.bucket}/{job_uid}", options)


def test_who_waits_for_other_runs_is_patient(
    start_worker: StartWorker, proxy: FaultyProxy, moto: S3Server, job_uid: str
) -> None:
    """A worker does two runs at once; the third waits for longer than its client's deadline."""
    worker = start_worker(**behind(proxy, moto, job_uid).settings)
    go_on, held = threading.Event(), threading.Semaphore(0)

    def hold(request: Request, forward: Forward) -> S3Answer:
        if f"/{job_uid}/" in request.target.replace(f"/{job_uid}/", "", 1):  # not the probe
            held.release()
            go_on.wait(60)
        return forward(request)

    proxy.fail(Verb.PUT, hold, times=1000)
    hasty = replace(CLIENT, deadline_seconds=3)
    with (
        job_of([worker], job_uid) as job,
        job_of([worker], job_uid, hasty) as other,
        ThreadPoolExecutor(3) as pool,
    ):
        views = []
        for number in range(3):
            shuffle = (job, job, other)[number].shuffle(f"s{number}", partitions=3, maps=1)
            write(shuffle, 0)
            views.append(shuffle.view())
        first = [pool.submit(view.persist) for view in views[:2]]
        for _ in first:
            assert held.acquire(timeout=60)
        told: list[float] = []

        def tell(_: Progress) -> None:
            told.append(time.monotonic())

        last = pool.submit(views[2].persist, tell)
        try:
            eventually(
                lambda: last.done() or (told and told[-1] - told[0] > 1.2 * hasty.deadline_seconds),
                what="the client's deadline",
            )
        finally:
            go_on.set()
        assert last.result().view == views[2].id
        assert [f.result().view for f in first] == [view.id for view in views[:2]]


def test_homes_that_drained_and_came_back_decide_where_the_store_cannot(
    proxy: FaultyProxy, moto: S3Server, job_uid: str
) -> None:
    def unconditional(request: Request, forward: Forward) -> S3Answer:
        names = {"if-none-match", "if-match"}
        request.headers = {k: v for k, v in request.headers.items() if k.lower() not in names}
        return forward(request)

    proxy.fail(Verb.PUT, unconditional, times=10**6)
    settings = behind(proxy, moto, job_uid).settings
    with mutual_workers(2, peers_interval_seconds=0.2, **settings) as workers:
        for worker in workers:
            eventually(lambda w=worker: serving(w) == 2, what="the peers")
        with job_of(workers, job_uid, loss_after_seconds=60) as job:
            shuffle = job.shuffle("open", partitions=3, maps=2)
            for m in range(2):
                write(shuffle, m, attempt=9)
            for worker in workers:
                drained = partial(worker.request, "POST", "/v1/drain")
                eventually(lambda d=drained: d().json()["drained"], what="the drain")
                worker.restart()
                eventually(lambda w=worker: serving(w) == 2, what="the peers")
            first = shuffle.view()
            for m in range(2):
                write(shuffle, m, attempt=1)
            with job_of(workers, job_uid) as other:
                assert other.shuffle("open", partitions=3, maps=2).view().id == first.id
            assert first.winners == {0: 9, 1: 9}


def serving(worker: WorkerProcess) -> int:
    """Return how many workers a worker knows to serve, itself included."""
    return [w["state"] for w in worker.get_json("/v1/workers")["workers"]].count("serving")


def mount(secret: Path, keys: tuple[str, str]) -> None:
    """Do as kubelets do with a Secret: all its files are others at once."""
    files = secret / f"..{keys[1]}"
    files.mkdir(parents=True)
    for name, value in zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), keys, strict=True):
        (files / name).write_text(value)
        if not (secret / name).is_symlink():
            (secret / name).symlink_to(f"..data/{name}")
    (secret / "..new").symlink_to(files.name)
    (secret / "..new").rename(secret / "..data")


def test_credentials_renewed_in_their_files_are_used_at_once(
    start_worker: StartWorker, tmp_path: Path, job_uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, site, new = tmp_path / "secret", tmp_path / "site", (ACCESS_KEY, "another-secret")
    site.mkdir()
    mount(secret, (ACCESS_KEY, SECRET_KEY))
    with running("versitygw", site) as server:
        bucket = Bucket(f"s3://{server.bucket}/{job_uid}", s3_options(server))
        worker = start_worker(**bucket.settings, store_credentials=secret, eager_quiet_seconds=0.2)
        with job_of([worker], job_uid, persistence="Eager") as job:
            shuffle = job.shuffle("before", partitions=4, maps=1)
            write(shuffle, 0)
            shuffle.view().persist()
    port = int(server.endpoint.rpartition(":")[2])
    with (
        running("versitygw", site, port=port, keys=new),
        job_of([worker], job_uid, persistence="Eager") as job,
    ):
        mount(secret, new)
        shuffle = job.shuffle("after", partitions=4, maps=1)
        write(shuffle, 0)
        view = shuffle.view()
        expected = blocks_of(view)
        view.persist()
        assert not [e for e in worker.log_lines() if "persisting failed" in e["event"]]
        worker.kill9()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", new[1])
        with bucket.opened(job_uid, view) as stored:
            assert blocks_of(stored) == expected
