"""`BeforeAck`: what was acked is in the store, even if the worker and its disk are gone at once."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import crossdock
from crossdock import Shuffle, Unavailable, View
from crossdock.errors import ConfigError, CrossdockError
from crossdock.store.api import ObjectInfo
from crossdock.store.file import FileStore
from harness import StartWorker, WorkerProcess, connect_all, eventually
from listing import files_below
from raw import Peer, Target

Blocks = list[tuple[int, int, bytes, int]]
SETTINGS = {
    "store_settle_seconds": 0.5,
    "segment_bytes": 2 * 2**20,
    "max_frame_bytes": 2**20,
    "eager_quiet_seconds": 3600,
}
"""Nothing is packed before a test wants it."""
LEASE = 12
"""A worker that begins anew may write once it was renewed: so soon it is."""
OPTIONS = crossdock.Options(
    frame_bytes=2**18, buffer_bytes=2**20, connect_seconds=1, deadline_seconds=60,
    loss_after_seconds=1,
)  # fmt: skip


def blocks_of(view: View) -> Blocks:
    return [(b.partition, b.map_id, bytes(b.data), b.rows) for b in view.read()]


def write(shuffle: Shuffle, map_id: int, *, attempt: int = 0) -> None:
    rng = random.Random(f"{map_id} {attempt}")
    with shuffle.writer(map_id=map_id, attempt=attempt) as writer:
        for p in range(shuffle.partitions):
            writer.write(p, rng.randbytes(rng.randrange(30_000)), rows=rng.randrange(5))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def worker(start_worker: StartWorker, store: Path) -> WorkerProcess:
    return start_worker(store=store.as_uri(), **SETTINGS)


@pytest.fixture
def job(worker: WorkerProcess, store: Path, job_uid: str) -> Iterator[crossdock.Job]:
    with (
        connected(worker, store) as cluster,
        cluster.job(job_uid, owner="runner", persistence="BeforeAck", lease_seconds=LEASE) as job,
    ):
        yield job


def connected(worker: WorkerProcess, store: Path, **changes: float) -> crossdock.Cluster:
    return connect_all([worker], options=replace(OPTIONS, store=store.as_uri(), **changes))


def logs(store: Path) -> list[Path]:
    return [path for path in files_below(store) if path.suffix == ".log"]


def segments(store: Path) -> list[Path]:
    return [path for path in files_below(store) if path.parts[-3] == "segments"]


def test_what_was_acked_outlives_the_disk(
    worker: WorkerProcess, store: Path, job: crossdock.Job
) -> None:
    shuffle = job.shuffle("words", partitions=9, maps=6)
    for m in range(6):
        write(shuffle, m)
    expected = blocks_of(shuffle.view(dict.fromkeys(range(6), 0)))
    worker.kill9()
    shutil.rmtree(worker.data_dir)
    worker.start()
    job.introduce(worker.url)
    assert blocks_of(shuffle.view(dict.fromkeys(range(6), 0))) == expected
    assert not segments(store)


def test_what_was_acked_is_read_while_no_worker_answers(
    worker: WorkerProcess, store: Path, job_uid: str
) -> None:
    """Nobody is lost yet: who has the store reads all the same, and misses what is not there."""
    winners = dict.fromkeys(range(6), 0)
    with (
        connected(worker, store, loss_after_seconds=60) as cluster,
        cluster.job(job_uid, owner="runner", persistence="BeforeAck") as job,
    ):
        shuffle = job.shuffle("words", partitions=9, maps=6)
        for m in range(6):
            write(shuffle, m)
        view = shuffle.view(winners)
        expected = blocks_of(view)
        worker.kill9()
        cluster.options = replace(cluster.options, deadline_seconds=3)
        assert blocks_of(view) == expected
        assert blocks_of(shuffle.view(winners)) == expected
        with pytest.raises(Unavailable):
            shuffle.view({**winners, 6: 0})


def test_the_absence_of_one_worker_of_several_is_no_matter(
    start_worker: StartWorker, store: Path, job_uid: str
) -> None:
    workers = [start_worker(store=store.as_uri(), **SETTINGS) for _ in range(2)]
    options = replace(OPTIONS, loss_after_seconds=60)
    with (
        connect_all(workers, options=options) as cluster,
        cluster.job(job_uid, owner="runner", persistence="BeforeAck") as job,
    ):
        shuffle = job.shuffle("words", partitions=9, maps=6)
        for m in range(6):
            write(shuffle, m)
        expected = blocks_of(shuffle.view())
        workers[0].kill9()
        assert blocks_of(shuffle.view(dict.fromkeys(range(6), 0))) == expected


def test_frames_share_writes(
    start_worker: StartWorker, store: Path, job_uid: str, tmp_path: Path
) -> None:
    worker = start_worker(store=store.as_uri(), **SETTINGS, ack_interval_seconds=0.5)
    with (
        connected(worker, store) as cluster,
        cluster.job(job_uid, owner="runner", persistence="BeforeAck") as job,
    ):
        shuffle = job.shuffle("words", partitions=30)
        with shuffle.writer(map_id=0, attempt=0) as writer:
            for p in range(30):
                writer.write(p, bytes(30_000))
        (counts,) = [s["frames"] for s in worker.get_json(f"/v1/jobs/{job_uid}")["shuffles"]]
        assert counts > len(logs(store)) >= 1
        assert worker.get_json(f"/v1/jobs/{job_uid}")["store"]["writes"] == len(logs(store))


def test_log_objects_are_packed_and_deleted(
    worker: WorkerProcess, store: Path, job: crossdock.Job
) -> None:
    shuffle = job.shuffle("words", partitions=9, maps=6)
    for m in range(6):
        write(shuffle, m)
    view = shuffle.view()
    expected = blocks_of(view)
    assert logs(store)
    worker.restart(eager_quiet_seconds=0.1)
    eventually(lambda: not logs(store), what="the end of the log objects")
    assert segments(store)
    worker.kill9()
    assert blocks_of(view) == expected


def test_a_reader_goes_on_when_log_objects_are_deleted_under_it(
    worker: WorkerProcess, store: Path, job: crossdock.Job
) -> None:
    shuffle = job.shuffle("words", partitions=30, maps=6)
    for m in range(6):
        write(shuffle, m)
    expected = blocks_of(shuffle.view())
    aside = worker.data_dir.with_name("aside")
    worker.kill9()
    worker.data_dir.rename(aside)
    worker.start()  # has nothing: readers find the log objects
    job.introduce(worker.url)
    view = shuffle.view(dict.fromkeys(range(6), 0))
    reading = view.read()
    found = [next(reading)]
    worker.kill9()
    shutil.rmtree(worker.data_dir)
    aside.rename(worker.data_dir)
    worker.restart(eager_quiet_seconds=0.1)
    eventually(lambda: not logs(store), what="the end of the log objects")
    found += reading
    assert [(b.partition, b.map_id, bytes(b.data), b.rows) for b in found] == expected


def test_a_log_object_that_is_packed_while_it_is_looked_for_is_found_packed(
    worker: WorkerProcess, store: Path, job: crossdock.Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffle = job.shuffle("words", partitions=9, maps=6)
    for m in range(6):
        write(shuffle, m)
    expected = blocks_of(shuffle.view())
    listed, packed = FileStore.list, []

    def late(self: FileStore, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        found = list(listed(self, prefix, after=after))
        if not packed:  # between the listing and the reading of what is listed
            packed.extend(found)
            worker.restart(eager_quiet_seconds=0.1)
            eventually(lambda: not logs(store), what="the end of the log objects")
            worker.kill9()
        yield from found

    monkeypatch.setattr(FileStore, "list", late)
    worker.kill9()
    assert blocks_of(shuffle.view(dict.fromkeys(range(6), 0))) == expected
    assert packed


def test_what_the_store_does_not_take_is_not_acked(
    worker: WorkerProcess, store: Path, job_uid: str
) -> None:
    with (
        connected(worker, store) as cluster,
        cluster.job(job_uid, owner="runner", persistence="BeforeAck") as job,
    ):
        shuffle = job.shuffle("words", partitions=3)
        write(shuffle, 0)
        aside = store.rename(store.with_name("aside"))
        store.write_text("in the way")
        patient = cluster.options
        cluster.options = replace(patient, deadline_seconds=1)
        with pytest.raises(CrossdockError):
            write(shuffle, 1)
        cluster.options = patient
        store.unlink()
        aside.rename(store)
        write(shuffle, 2)
        worker.kill9()
        shutil.rmtree(worker.data_dir)
        worker.start()
        job.introduce(worker.url)
        assert len(blocks_of(shuffle.view({0: 0, 2: 0}))) == 6


def test_a_copy_of_a_frame_is_acked_once_it_is_in_the_store(
    worker: WorkerProcess, store: Path, job: crossdock.Job
) -> None:
    """The first push may still be waiting for the store when the second comes."""
    target = Target(Peer(worker.url, ""), job.uid)
    frame = target.frame()
    assert target.push(frame).json()["duplicate"] is False
    assert len(logs(store)) == 1
    assert target.push(frame).json()["duplicate"] is True
    assert len(logs(store)) == 2


def test_a_worker_without_a_store_refuses_the_job(start_worker: StartWorker, job_uid: str) -> None:
    alone = start_worker()
    with (
        connect_all([alone]) as cluster,
        pytest.raises(ConfigError, match=r"BeforeAck.*no store.*--store"),
    ):
        cluster.job(job_uid, owner="runner", persistence="BeforeAck")
