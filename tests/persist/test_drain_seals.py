"""Seals of homes that drain: handed over, decided by the store, or by homes that came back."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from draining import WITH_STORE, connected, drain, drained, several_with_job, states, stuck, write

from crossdock import SealLost, Unavailable
from harness import StartWorker, WorkerProcess, eventually


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


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
            eventually(lambda w=worker: drain(w)["drained"], what="the drain")
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
            eventually(lambda w=worker: drain(w)["drained"], what="the drain")
        (tmp_path / "store" / "default" / job_uid / "homes" / dead).unlink()
        record = json.dumps(job.record.to_json()).encode()
        for worker in homes:
            worker.kill9()
    late = start_worker(store=store, **WITH_STORE)
    assert late.request("PUT", f"/v1/jobs/{job_uid}", body=record).status == 201
    with (
        connected([late], loss_after_seconds=2) as cluster,
        cluster.job(job_uid, owner="runner") as again,  # takes the homes of the record
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
                eventually(lambda w=worker: drain(w)["drained"], what="the drain")
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


# -- drained, and started again --------------------------------------------------------------------


def drained_and_restarted(worker: WorkerProcess) -> None:
    eventually(lambda: drain(worker)["drained"], what="the drain")
    worker.restart()


@pytest.mark.parametrize("with_store", [False, True])
def test_homes_that_drained_one_by_one_and_came_back_make_one_choice(
    with_store: bool, store: str, job_uid: str
) -> None:
    """As when all workers are replaced by turns: each home is closed then, and none is gone."""
    with several_with_job(job_uid, 2, store if with_store else "") as (workers, job):
        sealed, open_ = (job.shuffle(name, partitions=3, maps=2) for name in ("sealed", "open"))
        for shuffle in (sealed, open_):
            for m in range(2):
                write(shuffle, m, attempt=9, replicas=2)
        view = sealed.view()
        for worker in workers:
            drained_and_restarted(worker)
            eventually(lambda w=worker: states(w) == ["serving"] * 2, what="the peers")
        with connected(workers) as other, other.job(job_uid) as again:
            first = open_.view()
            for shuffle in (sealed, open_):
                for m in range(2):
                    write(shuffle, m, attempt=1, replicas=2)
            assert sealed.view().id == view.id
            assert open_.view().winners == first.winners == {0: 9, 1: 9}
            assert again.shuffle("open", partitions=3, maps=2).view().id == first.id
        drained(workers[0])  # once more, and for good
        assert sealed.view().id == view.id
        assert open_.view().id == first.id


def both_drained(workers: list[WorkerProcess], directory: Path, uid: str) -> None:
    """Drain all, and end them, but for the last step: the store does not know of it."""
    for worker in workers:
        eventually(lambda w=worker: drain(w)["drained"], what="the drain")
    for worker in workers:
        worker.kill9()
    shutil.rmtree(directory / "store" / "default" / uid / "homes")


def test_homes_that_came_back_do_not_choose_before_all_are_back(
    tmp_path: Path, store: str, job_uid: str
) -> None:
    quick: dict[str, Any] = {"deadline_seconds": 1.5, "loss_after_seconds": 60}
    with (
        several_with_job(job_uid, 2, store) as (workers, job),
        connected(workers, **quick) as other,
        other.job(job_uid) as hasty,
    ):
        write(job.shuffle("open", partitions=3, maps=1), 0)
        both_drained(workers, tmp_path, job_uid)
        workers[0].start()
        with pytest.raises(Unavailable, match="home"):
            hasty.shuffle("open", partitions=3, maps=1).view()
        workers[1].start()
        assert job.shuffle("open", partitions=3, maps=1).view().winners == {0: 0}


def test_a_home_that_drained_and_does_not_come_back_is_lost_after_a_while(
    tmp_path: Path, store: str, job_uid: str
) -> None:
    with several_with_job(job_uid, 2, store, loss_after_seconds=1) as (workers, job):
        write(job.shuffle("open", partitions=3, maps=1), 0)
        both_drained(workers, tmp_path, job_uid)
        workers[0].start()
        with pytest.raises(SealLost, match="went without leaving"):
            job.shuffle("open", partitions=3, maps=1).view()
