"""A drained worker can be deleted: readers, writers and whoever seals go on without it."""

import json
import random
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import crossdock
from crossdock import SealLost, Shuffle, View
from harness import StartWorker, WorkerProcess, connect_all, eventually, mutual_workers

Blocks = list[tuple[int, int, bytes, int]]
WITH_STORE = {"segment_bytes": 2 * 2**20, "max_frame_bytes": 2**20}


def blocks_of(view: View) -> Blocks:
    return [(b.partition, b.map_id, bytes(b.data), b.rows) for b in view.read()]


def write(shuffle: Shuffle, map_id: int, *, attempt: int = 0, replicas: int = 1) -> None:
    rng = random.Random(f"{map_id} {attempt}")
    with shuffle.writer(map_id=map_id, attempt=attempt, replicas=replicas) as writer:
        for p in range(shuffle.partitions):
            writer.write(p, rng.randbytes(rng.randrange(30_000)), rows=rng.randrange(5))


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@contextmanager
def several(count: int, store: str = "", **options: object) -> Iterator[list[WorkerProcess]]:
    """Run workers that know each other, with a store if one is named."""
    with_store = {"store": store, **WITH_STORE} if store else {}
    with mutual_workers(count, peers_interval_seconds=0.1, **with_store, **options) as found:
        for worker in found:
            eventually(lambda w=worker: states(w) == ["serving"] * count, what="the peers")
        yield found


@contextmanager
def several_with_job(
    uid: str, count: int, store: str = "", *, worker: dict[str, object] | None = None, **client: Any
) -> Iterator[tuple[list[WorkerProcess], crossdock.Job]]:
    """Run workers, and a client with a job."""
    with (
        several(count, store, **(worker or {})) as workers,
        connected(workers, **client) as cluster,
        cluster.job(uid, owner="runner") as job,
    ):
        yield workers, job


def connected(workers: list[WorkerProcess], **changes: Any) -> crossdock.Cluster:
    """Return a client that knows no store: workers read it for us."""
    options = crossdock.Options(
        frame_bytes=2**18, buffer_bytes=2**20, connect_seconds=1,
        **{"deadline_seconds": 20, "loss_after_seconds": 20, **changes},
    )  # fmt: skip
    return connect_all(workers, options=options)


def drain(worker: WorkerProcess) -> dict[str, Any]:
    """Begin, or ask how far it is."""
    answer = worker.request("POST", "/v1/drain")
    assert answer.status == (200 if answer.json()["drained"] else 202)
    found: dict[str, Any] = answer.json()
    return found


def drained(worker: WorkerProcess) -> None:
    """Drain a worker to the end, and delete it."""
    eventually(lambda: drain(worker)["drained"], what="the drain", seconds=20)
    assert worker.get_json("/v1/workers")["self"]["state"] == "drained"
    worker.kill9()


def states(worker: WorkerProcess) -> list[str]:
    return [str(w["state"]) for w in worker.get_json("/v1/workers")["workers"]]


def stuck(worker: WorkerProcess) -> dict[str, Any]:
    """Drain a worker until it says what stands in the way."""

    def told() -> dict[str, Any] | None:
        report = drain(worker)
        return report if report["problems"] else None

    found = eventually(told, what="the reason")
    assert not found["drained"]
    return found


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
        eventually(lambda: drain(third)["drained"], what="the drain", seconds=20)
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
        assert worker.terminate(seconds=15) == 0
        assert "the drain is not done" in worker.log_text()
        store.unlink()
        worker.start()
        assert blocks_of(shuffle.view()) == expected


# -- seals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 1)])
def test_seals_are_handed_to_the_home_that_decides_next(
    order: tuple[int, int], store: str, job_uid: str
) -> None:
    with several_with_job(job_uid, 3, store) as (workers, job):
        shuffle = job.shuffle("words", partitions=3, maps=2)
        for m in range(2):
            write(shuffle, m, attempt=9)
        sealed = shuffle.view()
        for m in range(2):
            write(shuffle, m, attempt=1)  # would be chosen by whoever chooses now
        for index in order:
            drained(workers[index])
            assert shuffle.view().id == sealed.id


def test_the_store_decides_when_all_homes_have_drained(
    start_worker: StartWorker, store: str, job_uid: str
) -> None:
    with several_with_job(job_uid, 2, store) as (homes, job):
        sealed = job.shuffle("sealed", partitions=3, maps=2)
        for shuffle in (sealed, job.shuffle("open", partitions=3, maps=2)):
            for m in range(2):
                write(shuffle, m, attempt=9)
        view = sealed.view()
        late = start_worker(
            store=store, peers=",".join(w.url for w in homes), peers_interval_seconds=0.1,
            **WITH_STORE,
        )  # fmt: skip
        eventually(lambda: states(late) == ["serving"] * 3, what="the peers")
        for worker in homes:
            eventually(lambda w=worker: drain(w)["drained"], what="the drain", seconds=20)
        eventually(lambda: states(late).count("drained") == 2, what="the peers' word")
        with connected([late]) as cluster, cluster.job(job_uid) as again:
            assert again.record.homes == job.record.homes
            for worker in homes:
                worker.kill9()
            eventually(lambda: states(late).count("gone") == 2, what="the peers' end")
            sealed, open_ = (again.shuffle(n, partitions=3, maps=2) for n in ("sealed", "open"))
            for m in range(2):
                write(sealed, m, attempt=1)
            assert sealed.view().id == view.id
            first = open_.view()
            for m in range(2):
                write(open_, m, attempt=1)
            assert open_.view().winners == first.winners == {0: 9, 1: 9}


def test_a_home_that_died_before_the_end_of_its_drain_is_not_replaced_by_the_store(
    start_worker: StartWorker, tmp_path: Path, store: str, job_uid: str
) -> None:
    with several_with_job(job_uid, 2, store) as (homes, job):
        shuffle = job.shuffle("open", partitions=3, maps=1)
        write(shuffle, 0)
        dead = str(homes[1].get_json("/v1/workers")["self"]["id"])
        for worker in homes:
            eventually(lambda w=worker: drain(w)["drained"], what="the drain", seconds=20)
        (tmp_path / "store" / "default" / job_uid / "homes" / dead).unlink()
        record = json.dumps(job.record.to_json()).encode()
        for worker in homes:
            worker.kill9()
    late = start_worker(store=store, **WITH_STORE)
    assert late.request("PUT", f"/v1/jobs/{job_uid}", body=record).status == 201
    with (
        connected([late], loss_after_seconds=2) as cluster,
        cluster.job(job_uid) as again,
        pytest.raises(SealLost, match=f"went without leaving them: {dead}"),
    ):
        again.shuffle("open", partitions=3, maps=1).view()


def test_everybody_sees_one_choice_while_homes_drain(store: str, job_uid: str) -> None:
    """Several callers seal while the deciding home drains, and new attempts come."""
    with several_with_job(job_uid, 3, store) as (workers, job):
        shuffles = [job.shuffle(f"s{n}", partitions=3, maps=2) for n in range(4)]
        for shuffle in shuffles:
            for m in range(2):
                write(shuffle, m, attempt=9)

        def ask(number: int) -> set[str]:
            shuffle, found = shuffles[number // 2], set()
            for attempt in (8, 7):
                found.add(shuffle.view().id)
                write(shuffle, number % 2, attempt=attempt)
                found.add(shuffle.view().id)
            return found

        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, n) for n in range(8)]
            for worker in workers[:2]:
                eventually(lambda w=worker: drain(w)["drained"], what="the drain", seconds=30)
            found = [future.result() for future in asked]
        for worker in workers[:2]:
            worker.kill9()
        for number, shuffle in enumerate(shuffles):
            assert found[2 * number] == found[2 * number + 1] == {shuffle.view().id}


def test_a_seal_stays_while_the_home_that_decides_next_is_away(job_uid: str) -> None:
    with several_with_job(job_uid, 2) as ((first, second), job):
        shuffle = job.shuffle("words", partitions=3, maps=1)
        write(shuffle, 0, replicas=2)
        sealed = shuffle.view()
        second.kill9()
        assert stuck(first)["seals_left"] == 1
        second.start()
        drained(first)
        assert shuffle.view().id == sealed.id
