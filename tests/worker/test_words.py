"""Words of owners: what rights come of them, and since when."""

import secrets

import pytest
from speaking import say

from crossdock import Options
from harness import StartWorker, WorkerProcess, connect_all, eventually, silent
from raw import Peer


@pytest.fixture
def uid() -> str:
    return f"job-{secrets.token_hex(6)}"


def test_a_right_counts_from_the_reading_that_a_word_brings_back(
    worker: WorkerProcess, uid: str
) -> None:
    first = say(worker, uid)
    assert first["right_age_seconds"] is None
    assert first["lease"] == "live"
    reading = first["reading"]
    older = {**reading, "seconds": reading["seconds"] - 5}
    assert 5 <= say(worker, uid, as_of=older)["right_age_seconds"] < 30
    assert say(worker, uid)["right_age_seconds"] >= 5, "a word without a reading takes none away"
    assert say(worker, uid, as_of=reading)["right_age_seconds"] < 5
    assert say(worker, uid, as_of=older)["right_age_seconds"] < 5, "nor does a late one"


@pytest.mark.parametrize("wrong", [{"worker": "another"}, {"incarnation": 77}])
def test_a_reading_of_another_clock_gives_no_right(
    worker: WorkerProcess, uid: str, wrong: dict[str, object]
) -> None:
    reading = say(worker, uid)["reading"]
    assert say(worker, uid, as_of={**reading, **wrong})["right_age_seconds"] is None


def test_a_reading_from_the_future_counts_from_now(worker: WorkerProcess, uid: str) -> None:
    reading = say(worker, uid)["reading"]
    answer = say(worker, uid, as_of={**reading, "seconds": 1e12})
    assert answer["right_age_seconds"] == pytest.approx(0, abs=5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"as_of": []}, {"as_of": {"worker": 3}}, {"as_of": {"worker": "x", "seconds": "now"}},
        {"released": []}, {"released": {"words": -1}}, {"released": {"../x": 1}},
        {"released": {"words": 2**32 + 1}}, {"released": {"words": 1.5}},
    ],
)  # fmt: skip
def test_words_that_are_none(peer: Peer, uid: str, wrong: dict[str, object]) -> None:
    reply = peer.ask_json("PUT", f"/v1/jobs/{uid}", {"owner": "cluster", **wrong})
    assert (reply.status, reply.code) == (400, "protocol")


def test_what_a_task_introduces_has_no_right(secure_worker: WorkerProcess, uid: str) -> None:
    first = say(secure_worker, uid, right="write")
    again = say(secure_worker, uid, right="write", as_of=first["reading"], released={"words": 3})
    assert again["right_age_seconds"] is None
    assert again["introduced"]
    assert again["released"] == {}


def test_a_word_carries_releases(start_worker: StartWorker, uid: str) -> None:
    """A worker that was away when a shuffle was released hears of it by the next word."""
    worker, other = start_worker(), start_worker()
    quick = Options(deadline_seconds=60, loss_after_seconds=0.5, stall_seconds=0.5)
    with connect_all([worker, other], options=quick) as cluster:
        job = cluster.job(uid, owner="runner", lease_seconds=3)
        shuffle = job.shuffle("words", partitions=2)
        with shuffle.writer(map_id=0, attempt=0) as writer:
            writer.write(0, b"abc")
        other.kill9()
        shuffle.release()
        other.start()
        eventually(
            lambda: other.get_json(f"/v1/jobs/{uid}")["released"] == {"words": 1},
            what="the release at the worker that was away",
        )


def test_the_client_has_rights_once_it_has_registered(
    two_workers: list[WorkerProcess], uid: str
) -> None:
    with connect_all(two_workers) as cluster:
        cluster.job(uid, owner="runner")
        for worker in two_workers:
            assert worker.get_json(f"/v1/jobs/{uid}")["right_age_seconds"] < 10


def test_who_takes_over_has_rights_once_all_have_agreed(
    two_workers: list[WorkerProcess], uid: str
) -> None:
    first, second = two_workers
    with connect_all(two_workers, options=Options(stall_seconds=1)) as cluster:
        cluster.job(uid, owner="runner").close()
        second.restart()
        first.restart()
        with silent(second):
            cluster.job(uid, owner="runner", epoch=1, lease_seconds=1)
            seen = first.get_json(f"/v1/jobs/{uid}")
            assert (seen["record"]["epoch"], seen["right_age_seconds"]) == (1, None)
        for worker in two_workers:
            eventually(
                lambda w=worker: w.get_json(f"/v1/jobs/{uid}")["right_age_seconds"] is not None,
                what="rights when all have agreed",
            )
