"""Persisting by itself: under pressure, by age, eagerly, never; and readers who do not notice."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import crossdock
from crossdock import ConfigError, CrossdockError, Job, Shuffle, View
from crossdock.records import Persistence
from harness import StartWorker, WorkerProcess, connect_all, eventually
from listing import files_below

MIB = 2**20
Blocks = list[tuple[int, int, bytes, int]]
SMALL = {"segment_bytes": 3 * MIB // 2, "max_frame_bytes": MIB // 4, "stall_seconds": 2}


def blocks_of(view: View, **ranges: range | None) -> Blocks:
    return [(b.partition, b.map_id, bytes(b.data), b.rows) for b in view.read(**ranges)]


def written(shuffle: Shuffle, map_id: int, *, nbytes: int = MIB) -> Blocks:
    """Write one map's blocks; return them."""
    rng = random.Random(f"{shuffle.key.name} {map_id}")
    found = []
    with shuffle.writer(map_id=map_id, attempt=0) as writer:
        for p in range(shuffle.partitions):
            data = rng.randbytes(nbytes // shuffle.partitions)
            writer.write(p, data, rows=p)
            found.append((p, map_id, data, p))
    return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@contextmanager
def job_of(
    worker: WorkerProcess, store: Path | None, uid: str, policy: str = "OnPressure"
) -> Iterator[Job]:
    options = crossdock.Options(
        frame_bytes=MIB // 8, buffer_bytes=MIB, deadline_seconds=60, loss_after_seconds=2,
        connect_seconds=1, read_batch_bytes=MIB, read_ahead_bytes=4 * MIB,
        store="" if store is None else store.as_uri(),
    )  # fmt: skip
    with (
        connect_all([worker], options=options) as cluster,
        cluster.job(uid, owner="runner", persistence=policy) as job,
    ):
        yield job


def described(worker: WorkerProcess, uid: str) -> dict[str, Any]:
    found: dict[str, Any] = worker.get_json(f"/v1/jobs/{uid}")
    return found


def objects(store: Path) -> list[Path]:
    return files_below(store)


def metric(worker: WorkerProcess, line: str) -> float:
    text = worker.request("GET", "/metrics").body.decode()
    return sum(float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(line))


def test_several_times_the_disk_are_written_and_read_back(
    start_worker: StartWorker, store: Path, job_uid: str
) -> None:
    worker = start_worker(store=store.as_uri(), disk_capacity_bytes=6 * MIB, **SMALL)
    with job_of(worker, store, job_uid) as job:
        shuffle = job.shuffle("large", partitions=8, maps=24)
        expected = [block for m in range(24) for block in written(shuffle, m)]
        assert worker.job_bytes(job_uid) < 6 * MIB
        stored = described(worker, job_uid)["store"]
        assert stored["freed_bytes"] >= 18 * MIB
        assert stored["persisted_bytes"] >= 18 * MIB
        assert blocks_of(shuffle.view()) == sorted(expected)
        for counter in ("freed_bytes_total", 'persisted_bytes_total{trigger="pressure"}'):
            eventually(lambda c=counter: metric(worker, f"crossdock_{c}") >= 18 * MIB, what=counter)
        used = sum(f.stat().st_blocks * 512 for f in worker.data_dir.rglob("*.log"))
        assert used < 8 * MIB, "the file system has the space back"
        worker.restart()
        assert blocks_of(shuffle.view()) == sorted(expected)
        assert described(worker, job_uid)["store"]["freed_bytes"] >= 18 * MIB


def test_one_map_larger_than_the_disk(start_worker: StartWorker, store: Path, job_uid: str) -> None:
    worker = start_worker(store=store.as_uri(), disk_capacity_bytes=4 * MIB, **SMALL)
    with job_of(worker, store, job_uid) as job:
        shuffle = job.shuffle("one", partitions=4, maps=1)
        rng = random.Random(1)
        pieces = [(p, rng.randbytes(MIB // 8)) for _ in range(32) for p in range(4)]
        with shuffle.writer(map_id=0, attempt=0) as writer:
            for p, data in pieces:
                writer.write(p, data, rows=1)
        found = {b.partition: bytes(b.data) for b in shuffle.view().read()}
        assert found == {p: b"".join(d for q, d in pieces if q == p) for p in range(4)}


def test_a_small_job_asks_nothing_of_the_store(
    start_worker: StartWorker, store: Path, job_uid: str
) -> None:
    worker = start_worker(store=store.as_uri(), **SMALL)
    with job_of(worker, store, job_uid) as job:
        shuffle = job.shuffle("small", partitions=4, maps=3)
        expected = [block for m in range(3) for block in written(shuffle, m)]
        assert blocks_of(shuffle.view()) == sorted(expected)
    assert described(worker, job_uid)["store"]["requests"] == 0
    assert not objects(store)


def test_eager_brings_attempts_whose_frames_are_on_several_workers(
    start_worker: StartWorker, store: Path, job_uid: str
) -> None:
    workers = [
        start_worker(store=store.as_uri(), eager_quiet_seconds=0.2, **SMALL) for _ in range(2)
    ]
    options = crossdock.Options(
        frame_bytes=MIB // 8, buffer_bytes=MIB, deadline_seconds=60, loss_after_seconds=2,
        connect_seconds=1, store=store.as_uri(),
    )  # fmt: skip
    with (
        connect_all(workers, options=options) as cluster,
        cluster.job(job_uid, owner="runner", persistence="Eager") as job,
    ):
        shuffle = job.shuffle("spread", partitions=64, maps=2)
        expected = [block for m in range(2) for block in written(shuffle, m)]
        held = [described(worker, job_uid)["shuffles"] for worker in workers]
        assert all(held), "both workers have some of each attempt"

        def persisted() -> int:
            return sum(described(w, job_uid)["store"]["persisted_bytes"] for w in workers)

        eventually(lambda: persisted() == 2 * MIB, what="all of it in the store")
        view = shuffle.view(dict.fromkeys(range(2), 0))
        for worker in workers:
            worker.kill9()
        assert blocks_of(view) == sorted(expected)


def test_eager_brings_all_that_came_before_a_pause_and_keeps_it_here(
    start_worker: StartWorker, store: Path, job_uid: str
) -> None:
    worker = start_worker(store=store.as_uri(), eager_quiet_seconds=0.2, **SMALL)
    with job_of(worker, store, job_uid, "Eager") as job:
        shuffle = job.shuffle("eager", partitions=4, maps=3)
        expected = [block for m in range(3) for block in written(shuffle, m)]
        with shuffle.writer(map_id=9, attempt=0) as writer:
            writer.write(0, bytes(MIB // 2), rows=1)
            writer.write(1, bytes(MIB // 2), rows=1)
            eventually(
                lambda: described(worker, job_uid)["store"]["persisted_bytes"] > 3 * MIB,
                what="what is complete is in the store, and of the rest what has come",
            )
            writer.write(2, b"late", rows=1)
        size = 4 * MIB + 4
        eventually(lambda: described(worker, job_uid)["store"]["persisted_bytes"] == size)
        assert described(worker, job_uid)["store"]["freed_bytes"] == 0
        counter = 'crossdock_persisted_bytes_total{trigger="eager"}'
        eventually(lambda: metric(worker, counter) == size, what="the count")
        worker.kill9()
        winners = dict.fromkeys(range(3), 0)
        assert blocks_of(shuffle.view(winners)) == sorted(expected)


def test_old_frames_are_persisted_and_stay(
    start_worker: StartWorker, store: Path, job_uid: str
) -> None:
    worker = start_worker(store=store.as_uri(), persist_after_seconds=0.3, **SMALL)
    with job_of(worker, store, job_uid) as job, job_of(worker, store, "never", "Never") as other:
        shuffle = job.shuffle("old", partitions=2, maps=1)
        written(shuffle, 0)
        expected = written(other.shuffle("old", partitions=2, maps=1), 0)
        eventually(lambda: described(worker, job_uid)["store"]["persisted_bytes"] == MIB)
        stored = described(worker, "never")["store"]
        assert (stored["persisted_bytes"], stored["requests"]) == (0, 0)
        assert described(worker, job_uid)["store"]["freed_bytes"] == 0
        runs = 'crossdock_persist_runs_total{outcome="done",trigger="age"}'
        done = eventually(lambda: metric(worker, runs), what="it is counted")
        frames = described(worker, job_uid)["shuffles"][0]["frames"]
        assert done <= frames, "some may have been old before others came; none goes twice"
        view = other.shuffle("old", partitions=2, maps=1).view()
        view.persist()  # when asked to, under every policy
        assert blocks_of(view) == sorted(expected)


def test_never_is_pushed_back_on_a_full_disk(
    start_worker: StartWorker, store: Path, job_uid: str
) -> None:
    worker = start_worker(store=store.as_uri(), disk_capacity_bytes=2 * MIB, **SMALL)
    with job_of(worker, store, job_uid, "Never") as job:
        shuffle = job.shuffle("never", partitions=2, maps=4)
        expected = written(shuffle, 0)
        with impatient(job), pytest.raises(CrossdockError):
            written(shuffle, 1, nbytes=2 * MIB)
        assert blocks_of(shuffle.view({0: 0})) == expected
    assert not objects(store)


@contextmanager
def impatient(job: Job) -> Iterator[None]:
    """Let the calls of a job give up soon."""
    before = job.cluster.options
    job.cluster.options = replace(before, deadline_seconds=1.5)
    try:
        yield
    finally:
        job.cluster.options = before


def test_a_reader_does_not_notice_that_frames_are_freed(
    start_worker: StartWorker, store: Path, job_uid: str
) -> None:
    worker = start_worker(store=store.as_uri(), disk_capacity_bytes=24 * MIB, **SMALL)
    with (
        job_of(worker, store, job_uid) as job,
        job_of(worker, store, f"{job_uid}-other", "Never") as other,
    ):
        shuffle = job.shuffle("read", partitions=64, maps=12)
        expected = sorted(block for m in range(12) for block in written(shuffle, m))
        view = shuffle.view()
        reading = view.read()
        found = [next(reading) for _ in range(40)]
        more = other.shuffle("more", partitions=4, maps=10)
        for m in range(10):  # nothing of it may go, so all of ours does
            written(more, m)
        eventually(lambda: freed_of(worker, job_uid, "read") >= 12 * MIB)
        found += reading
        assert [(b.partition, b.map_id, bytes(b.data), b.rows) for b in found] == expected
        assert blocks_of(view, partitions=range(3, 5), maps=range(2, 7)) == [
            b for b in expected if b[0] in {3, 4} and b[1] in range(2, 7)
        ]
        assert view.block_sizes(range(64))["bytes"].sum() == view.bytes.sum()
        assert "damaged" not in worker.log_text()


def freed_of(worker: WorkerProcess, uid: str, name: str) -> int:
    return sum(s["freed_bytes"] for s in described(worker, uid)["shuffles"] if s["name"] == name)


def test_freed_frames_are_part_of_views_and_persisting_them_again_costs_nothing(
    start_worker: StartWorker, store: Path, job_uid: str
) -> None:
    worker = start_worker(store=store.as_uri(), disk_capacity_bytes=4 * MIB, **SMALL)
    with job_of(worker, store, job_uid) as job:
        shuffle = job.shuffle("freed", partitions=4, maps=6)
        expected = [block for m in range(6) for block in written(shuffle, m)]
        eventually(lambda: freed_of(worker, job_uid, "freed") > 0)
        assert shuffle.complete_attempts() == dict.fromkeys(range(6), 0)
        published = shuffle.view().persist()
        worker.kill9()
        with crossdock.open_view(published.store, job_uid, "freed", published.view) as stored:
            assert [
                (b.partition, b.map_id, bytes(b.data), b.rows) for b in stored.read()
            ] == sorted(expected)


def test_a_store_that_fails_is_left_alone_for_a_while_and_nothing_is_lost(
    start_worker: StartWorker, store: Path, job_uid: str
) -> None:
    store.mkdir()
    worker = start_worker(store=store.as_uri(), disk_capacity_bytes=4 * MIB, **SMALL)
    (store / "default").write_text("in the way of all keys")
    with job_of(worker, store, job_uid) as job:
        shuffle = job.shuffle("failing", partitions=4, maps=8)
        expected = [block for m in range(3) for block in written(shuffle, m)]
        failed = 'crossdock_persist_runs_total{outcome="failed",trigger="pressure"}'
        eventually(lambda: metric(worker, failed) >= 2)
        assert metric(worker, failed) <= 3
        told = [e for e in worker.log_lines() if "is tried again" in e["event"]]
        assert len(told) == 1
        assert blocks_of(shuffle.view(dict.fromkeys(range(3), 0))) == sorted(expected)
        (store / "default").unlink()
        expected += [block for m in range(3, 8) for block in written(shuffle, m)]
        assert blocks_of(shuffle.view()) == sorted(expected)


def test_policies_have_names(start_worker: StartWorker, job_uid: str) -> None:
    worker = start_worker()
    with worker.connect() as cluster:
        with pytest.raises(ConfigError, match=r"BeforeAck, and worker .* has no store"):
            cluster.job(job_uid, owner="runner", persistence="BeforeAck")
        with pytest.raises(CrossdockError, match="persistence 'Often' is not one"):
            cluster.job(job_uid, owner="runner", persistence="Often")
        with cluster.job(job_uid, owner="runner", persistence="Eager"):
            assert described(worker, job_uid)["record"]["persistence"] == "Eager"
            assert cluster.job(job_uid).record.persistence is Persistence.EAGER
    answer = worker.request(
        "PUT", f"/v1/jobs/{job_uid}", body=b'{"owner": "runner", "persistence": "BeforeAck"}'
    )
    assert (answer.status, answer.code) == (400, "config")
    worker.restart()
    assert described(worker, job_uid)["record"]["persistence"] == "Eager"
