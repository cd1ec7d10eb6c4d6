"""A drained worker can be deleted: readers, writers and whoever seals go on without it."""

import random
import shutil
from pathlib import Path

import pytest
from draining import (
    WITH_STORE,
    blocks_of,
    connected,
    drain,
    drained,
    several,
    several_with_job,
    states,
    stuck,
    write,
)

from harness import StartWorker, eventually
from raw import Peer, Target


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


def test_readers_go_on_without_a_drained_worker(store: str, job_uid: str) -> None:
    with several_with_job(job_uid, 2, store) as ((first, second), job):
        shuffle = job.shuffle("words", partitions=9, maps=6)
        for m in range(6):
            write(shuffle, m)
        view = shuffle.view()
        expected = blocks_of(view)
        reading = view.read()
        found = [next(reading)]
        drained(first)
        found += reading
        assert [(b.partition, b.map_id, bytes(b.data), b.rows) for b in found] == expected
        eventually(lambda: "gone" in states(second), what="the peer's word")
        assert blocks_of(shuffle.view()) == expected
        assert shuffle.view().id == view.id


def test_an_attempt_that_is_begun_before_and_ended_after_a_drain_is_whole(
    store: str, job_uid: str
) -> None:
    with several_with_job(job_uid, 2, store) as ((first, _), job):
        shuffle = job.shuffle("words", partitions=4, maps=1)
        parts = [random.Random(i).randbytes(700_000) for i in range(4)]
        with shuffle.writer(map_id=0, attempt=0) as writer:
            for p in (0, 1):
                writer.write(p, parts[p])
            eventually(lambda: first.job_bytes(job_uid), what="a frame")
            drained(first)
            for p in (2, 3):
                writer.write(p, parts[p])
        view = shuffle.view()
        assert [bytes(b.data) for b in view.read()] == parts


def test_a_draining_worker_takes_no_frames_and_clients_go_elsewhere(
    store: str, job_uid: str
) -> None:
    with several_with_job(job_uid, 2, store) as ((first, second), job):
        drain(first)
        shuffle = job.shuffle("words", partitions=9, maps=3)
        for m in range(3):
            write(shuffle, m)
        assert first.job_bytes(job_uid) == 0
        assert second.job_bytes(job_uid) > 0
        assert len(blocks_of(shuffle.view())) == 27


def test_what_a_serving_peer_has_is_not_persisted(tmp_path: Path, store: str, job_uid: str) -> None:
    with several_with_job(job_uid, 2, store) as ((first, _), job):
        shuffle = job.shuffle("words", partitions=9, maps=3)
        for m in range(3):
            write(shuffle, m, replicas=2)
        expected = blocks_of(shuffle.view())
        drained(first)
        assert not list(tmp_path.rglob("segments"))
        assert blocks_of(shuffle.view()) == expected


def test_of_two_that_drain_at_once_one_persists_what_both_have(store: str, job_uid: str) -> None:
    with several_with_job(job_uid, 3, store, worker={}) as ((first, second, third), job):
        shuffle = job.shuffle("words", partitions=9, maps=3)
        for m in range(3):
            write(shuffle, m, replicas=3)
        view = shuffle.view()
        expected = blocks_of(view)
        drain(first)
        drain(second)
        drain(third)
        for worker in (first, second):
            drained(worker)
        eventually(lambda: drain(third)["drained"], what="the drain")
        shutil.rmtree(third.data_dir / "jobs")
        third.restart()
        job.introduce(third.url)
        assert blocks_of(shuffle.view(view.winners)) == expected


def test_without_a_store_only_copies_let_a_worker_go(job_uid: str) -> None:
    with several_with_job(job_uid, 2) as ((first, _), job):
        shuffle = job.shuffle("alone", partitions=40)
        write(shuffle, 0)
        view = shuffle.view({0: 0})
        expected = blocks_of(view)
        found = stuck(first)
        assert found["remaining_bytes"] > 0
        assert f"{job_uid}/alone/0" in found["problems"][0]
        assert "no --store" in found["problems"][0]
        assert blocks_of(view) == expected
        shuffle.release()  # nothing that anybody needs is left
        drained(first)


def test_sigterm_drains(start_worker: StartWorker, store: str, job_uid: str) -> None:
    options = {"store": store, **WITH_STORE}
    worker, other = start_worker(**options), start_worker(**options)
    with connected([worker]) as cluster, cluster.job(job_uid, owner="runner") as job:
        shuffle = job.shuffle("words", partitions=9, maps=6)
        for m in range(6):
            write(shuffle, m)
        view = shuffle.view()
        expected = blocks_of(view)
        assert worker.terminate() == 0
        assert "worker is drained" in worker.log_text()
        with connected([other]) as cluster2, cluster2.job(job_uid, owner="runner") as again:
            found = again.shuffle("words", partitions=9).view(view.winners)
            assert blocks_of(found) == expected


def test_sigterm_does_not_wait_for_ever(tmp_path: Path, job_uid: str) -> None:
    """Nothing can be written to the store any more: the data stay on the disk."""
    store = tmp_path / "store"
    with (
        several(1, store.as_uri(), drain_grace_seconds=0.5) as (worker,),
        connected([worker]) as cluster,
        cluster.job(job_uid, owner="runner") as job,
    ):
        shuffle = job.shuffle("words", partitions=9, maps=1)
        write(shuffle, 0)
        expected = blocks_of(shuffle.view())
        shutil.rmtree(store, ignore_errors=True)
        store.write_text("in the way")
        assert worker.terminate() == 0
        assert "the drain is not done" in worker.log_text()
        store.unlink()
        worker.start()
        assert blocks_of(shuffle.view()) == expected


def test_a_worker_that_is_back_takes_no_frames_before_its_peers_have_heard(job_uid: str) -> None:
    """Else a client that asks such a peer would take what was just acked for lost."""
    with several(2) as (first, second):
        target = Target(Peer(first.url, ""), job_uid)
        assert target.register().status == 201
        second.restart(peers_interval_seconds=1)
        for worker in (first, second):
            eventually(lambda w=worker: states(w) == ["serving"] * 2, what="the peers")
        eventually(lambda: drain(first)["drained"], what="the drain")
        first.kill9()
        eventually(lambda: "gone" in states(second), what="the peer's word")
        first.start()
        refused = 0

        def taken() -> bool:
            nonlocal refused
            known = "gone" not in states(second)
            status = target.push(target.frame()).status
            assert status == 503 or known
            refused += status == 503
            return status == 200

        eventually(taken, what="a frame")
        assert refused
        first.restart()
        assert target.push(target.frame(map_id=1)).status == 200, "that is over"
