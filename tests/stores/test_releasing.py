"""Released shuffles, deleted from the store by the workers, whoever released them."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deletions import (
    client,
    files,
    peers_with_a_store,
    proofs,
    stored_bytes,
    worker_options,
    write,
)

import crossdock
from crossdock.store.api import StoreOptions
from crossdock.wire.names import U32_MAX
from harness import StartWorker, WorkerProcess, connect_all, eventually

SETTLE = 1.5


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def start(start_worker: StartWorker, directory: Path) -> Callable[..., list[WorkerProcess]]:
    """Start workers with a store that know of each other."""

    def begin(count: int = 1, **more: object) -> list[WorkerProcess]:
        return peers_with_a_store(
            start_worker, directory, count, **{"store_settle_seconds": SETTLE, **more}
        )

    return begin


def test_a_released_shuffle_leaves_the_store_while_the_job_lives(
    start: Callable[..., list[WorkerProcess]], directory: Path, job_uid: str
) -> None:
    """Its client has no way to the store, and only one of the workers cleans up."""
    workers = start(3)
    with connect_all(workers) as cluster:
        job = cluster.job(job_uid, owner="runner")
        for name in ("first", "second"):
            write(job, name).persist()
        again = job.shuffle("first", partitions=3, maps=1, generation=1)
        with again.writer(map_id=0, attempt=0) as writer:
            writer.write(0, b"again", rows=1)
        again.view().persist()
        again.release()
        eventually(lambda: all("/second/0/" in str(f) for f in files(directory)))
        eventually(lambda: proofs(workers), what="the proof")
        second = sum(len(f"{m} {p}") for m in range(2) for p in range(3))
        eventually(lambda: stored_bytes(workers, job_uid) == second)
        assert proofs(workers) == [1]
        write(job, "third").persist()


def test_what_is_deleted_counts_no_more_though_the_proof_is_far(
    start: Callable[..., list[WorkerProcess]], directory: Path, job_uid: str
) -> None:
    [worker] = start(store_settle_seconds=3600)
    with connect_all([worker]) as cluster:
        job = cluster.job(job_uid, owner="runner", store_quota_bytes=30, lease_seconds=20_000)
        view = write(job)
        view.persist()
        assert stored_bytes([worker], job_uid) == 18
        later = write(job, "later")
        with pytest.raises(crossdock.QuotaExceeded, match="in the store"):
            later.persist()
        view.shuffle.release()
        eventually(lambda: stored_bytes([worker], job_uid) == 0)
        assert not files(directory)
        later.persist()
        assert not proofs([worker])
        worker.restart()
        assert stored_bytes([worker], job_uid) == 18


def test_releases_do_not_queue_up(
    start: Callable[..., list[WorkerProcess]], directory: Path, job_uid: str
) -> None:
    """A thread for each, four at once, would take half a minute for these."""
    workers = start(2)
    count = 40
    with connect_all(workers) as cluster:
        job = cluster.job(job_uid, owner="runner")
        views = [write(job, f"shuffle-{n}", maps=1) for n in range(count)]
        for view in views:
            view.persist()
        began = time.monotonic()
        for view in views:
            view.shuffle.release()
        released = time.monotonic()
        eventually(lambda: sum(proofs(workers)) == count)
        took = time.monotonic() - released
    assert not files(directory)
    assert stored_bytes(workers, job_uid) == 0
    assert max(proofs(workers)) > 1
    assert took < 20 + (released - began)


def test_the_next_worker_follows_if_the_first_one_dies(
    start: Callable[..., list[WorkerProcess]], directory: Path, job_uid: str
) -> None:
    workers = sorted(start(2), key=lambda w: w.get_json("/v1/workers")["self"]["id"])
    with connect_all(workers) as cluster:
        job = cluster.job(job_uid, owner="runner", lease_seconds=3)
        view = write(job)
        view.persist()
        view.shuffle.release()
        workers[0].kill9()
        gone = json.loads((workers[0].data_dir / "identity").read_text())["id"]
        workers[1].request("POST", f"/v1/workers/{gone}/gone", token=workers[1].admin_token())
        eventually(lambda: proofs(workers[1:]), what="the proof")
    assert not files(directory)


def test_the_next_generation_is_not_touched_whoever_owns_it(
    start: Callable[..., list[WorkerProcess]], job_uid: str
) -> None:
    """What another owner computes again while the old generation is being deleted stays whole."""
    [worker] = start()
    with connect_all([worker]) as cluster:
        job = cluster.job(job_uid, owner="runner")
        old = write(job)
        old.persist()
        old.shuffle.release()
        job.close()
        successor = cluster.job(job_uid, owner="runner", epoch=1)
        again = successor.shuffle("words", partitions=1, maps=1, generation=1)
        with again.writer(map_id=0, attempt=0) as writer:
            writer.write(0, b"again", rows=1)
        view = again.view()
        eventually(lambda: worker.get_json(f"/v1/jobs/{job_uid}")["right_age_seconds"] is not None)
        eventually(lambda: _persisted(view), what="a right to write")
        with pytest.raises(crossdock.ShuffleReleased):
            write(successor, "words")
        eventually(lambda: proofs([worker]), what="the proof")
        assert stored_bytes([worker], job_uid) == len(b"again")
        stored = cluster.job(job_uid).shuffle("words", partitions=1, maps=1, generation=1)
        assert [bytes(b.data) for b in stored.view().read()] == [b"again"]
        successor.close()


def _persisted(view: crossdock.View) -> bool:
    try:
        view.persist()
    except crossdock.Unavailable:
        return False
    return True


def test_generations_far_apart_are_listed_once(
    start: Callable[..., list[WorkerProcess]], directory: Path, job_uid: str
) -> None:
    """An engine may number them as it likes: nothing counts up to that."""
    [worker] = start()
    with connect_all([worker]) as cluster:
        job = cluster.job(job_uid, owner="runner")
        write(job, "keep").persist()
        kept = files(directory)
        for generation in (0, 1_000_000):
            shuffle = job.shuffle("words", partitions=1, maps=1, generation=generation)
            with shuffle.writer(map_id=0, attempt=0) as writer:
                writer.write(0, b"x", rows=1)
            shuffle.view().persist()
        assert len(files(directory)) == len(kept) + 6
        job.shuffle("words", partitions=1, generation=U32_MAX).release()
        eventually(lambda: proofs([worker]), what="the proof")
        assert sorted(files(directory)) == sorted(kept)


def test_the_jobs_end_does_not_wait_for_released_shuffles(
    start: Callable[..., list[WorkerProcess]], directory: Path, job_uid: str
) -> None:
    [worker] = start(store_settle_seconds=3600)
    with connect_all([worker]) as cluster:
        job = cluster.job(job_uid, owner="runner", lease_seconds=20_000)
        view = write(job)
        view.persist()
        view.shuffle.release()
        eventually(lambda: not files(directory), what="the shuffle's objects gone")
        job.end()


def test_releasing_what_was_never_persisted_costs_the_store_no_request(
    start_worker: StartWorker, job_uid: str
) -> None:
    """The server is not there: each request would fail, and be told of."""
    options = StoreOptions(endpoint_url="http://127.0.0.1:9", region="x", path_style=True)
    worker = start_worker(**worker_options("s3://bucket/p", options))
    with client([worker], "s3://bucket/p", options) as cluster:
        job = cluster.job(job_uid, owner="runner")
        write(job).shuffle.release()
        released = time.monotonic()
        eventually(lambda: time.monotonic() > released + 1.5, what="some looks of the worker")
        assert worker.get_json(f"/v1/jobs/{job_uid}")["store"]["requests"] == 0
        assert not job.end().in_store
    assert "released shuffles" not in worker.log_text()
