"""What peers tell each other of jobs, and what a worker does that knows nothing yet."""

import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from speaking import acquainted, say

from crossdock.wire.tokens import ANY_JOB, Right
from harness import KEY, StartWorker, WorkerProcess, eventually
from raw import Peer, Target

QUICK = {"peers_interval_seconds": 0.05}
Pair = tuple[WorkerProcess, WorkerProcess]


@pytest.fixture
def pair(start_worker: StartWorker) -> Pair:
    """Two workers; only the second was told of the first."""
    first = start_worker(**QUICK)
    second = start_worker(peers=first.url, **QUICK)
    acquainted(first, second)
    return first, second


def described(worker: WorkerProcess, uid: str) -> Any:
    answer = worker.request("GET", f"/v1/jobs/{uid}")
    return answer.json() if answer.status == 200 else {"code": answer.code}


def becomes(worker: WorkerProcess, uid: str, **fields: object) -> None:
    """Wait until a worker describes a job so."""
    eventually(
        lambda: described(worker, uid).items() >= fields.items(),
        what=f"{fields} of {uid}: {described(worker, uid)}",
    )


def target_on(worker: WorkerProcess, uid: str) -> Target:
    return Target(Peer(worker.url, ""), uid)


@pytest.mark.parametrize("there", [0, 1])
def test_a_fence_and_a_release_reach_the_peer(pair: Pair, job_uid: str, there: int) -> None:
    told, other = pair[there], pair[1 - there]
    for worker in pair:
        target = target_on(worker, job_uid)
        assert target.register().status in {200, 201}
        assert target.push(target.frame()).status == 200
    told.request("DELETE", target_on(told, job_uid).path)
    becomes(other, job_uid, released={"words": 1}, disk_bytes=0)
    told.request("DELETE", f"/v1/jobs/{job_uid}")
    becomes(other, job_uid, code="job_fenced")
    eventually(lambda: not (other.data_dir / "jobs" / job_uid).exists())
    other.restart()
    assert described(other, job_uid)["code"] == "job_fenced", "it is on its disk"


def test_a_worker_that_was_down_hears_of_it_when_it_is_back(pair: Pair, job_uid: str) -> None:
    first, second = pair
    for worker in pair:
        say(worker, job_uid, epoch=1)
        target = target_on(worker, job_uid)
        assert target.push(target.frame(epoch=1)).status == 200
    second.kill9()
    assert first.request("DELETE", f"/v1/jobs/{job_uid}").status == 200
    second.start()
    becomes(second, job_uid, code="job_fenced")
    assert not (second.data_dir / "jobs" / job_uid).exists()


def test_an_owners_record_and_epoch_reach_the_peer(pair: Pair, job_uid: str) -> None:
    first, second = pair
    record = say(first, job_uid, epoch=3, homes=["here"], quota_bytes=77)["record"]
    becomes(second, job_uid, record=record, introduced=False)
    assert target_on(second, job_uid).push(target_on(second, job_uid).frame()).code == "stale_epoch"
    later = say(second, job_uid, epoch=4, homes=["there"])["record"]
    assert later["homes"] == ["here"]
    becomes(first, job_uid, record=later)


def test_a_damaged_job_is_not_ended_by_an_owner_that_was_replaced(pair: Pair, job_uid: str) -> None:
    """Its worker cannot read the epoch, and its fence would reach the peer."""
    first, second = pair
    for worker in pair:
        say(worker, job_uid, epoch=3)
        worker.kill9()
    (second.data_dir / "jobs" / job_uid / "job.json").write_text("{")
    second.start()
    path = f"/v1/jobs/{job_uid}"
    for method, each in (("DELETE", f"{path}?epoch=1"), ("POST", f"{path}/fence?epoch=1")):
        assert second.request(method, each).code == "unavailable", "no peer has told the epoch yet"
    first.start()
    eventually(lambda: second.request("DELETE", f"{path}?epoch=2").code == "stale_epoch")
    assert described(first, job_uid)["record"]["epoch"] == 3
    assert second.request("DELETE", f"{path}?epoch=3").status == 200
    becomes(first, job_uid, code="job_fenced")


def test_rights_are_passed_on_and_age_with_it(pair: Pair, job_uid: str) -> None:
    first, second = pair
    reading = say(first, job_uid)["reading"]
    becomes(second, job_uid, right_age_seconds=None)
    say(first, job_uid, as_of={**reading, "seconds": reading["seconds"] - 20})
    eventually(lambda: 20 <= (described(second, job_uid)["right_age_seconds"] or 0) < 40)
    assert described(second, job_uid)["silent_seconds"] < 20


def test_an_owner_that_only_one_worker_hears_keeps_its_job_at_the_other(
    pair: Pair, job_uid: str
) -> None:
    first, second = pair
    for speaking, silent_ in (pair, (second, first)):

        def kept(speaking: WorkerProcess = speaking, silent_: WorkerProcess = silent_) -> bool:
            """Whether one that has heard nothing for longer than the lease holds it for live."""
            say(speaking, job_uid, lease_seconds=0.6)
            seen = described(silent_, job_uid)
            return seen.get("lease") == "live" and seen["silent_seconds"] > 1.5

        eventually(kept, what="what the other one hears")
    for worker in pair:
        becomes(worker, job_uid, lease="ended")


@pytest.fixture
def introduced(start_worker: StartWorker) -> Callable[[], Pair]:
    def start() -> Pair:
        first = start_worker(key=KEY, **QUICK)
        return first, start_worker(key=KEY, peers=first.url, **QUICK)

    return start


def test_hearsay_stays_hearsay(introduced: Callable[[], Pair], job_uid: str) -> None:
    first, second = introduced()
    say(first, job_uid, right="write", epoch=2**40)
    told = f"/v1/jobs/{job_uid}"
    seen = eventually(lambda: second.request("GET", told, token=second.admin_token()).status == 200)
    assert seen
    assert second.get_json(told)["introduced"] is True
    say(first, job_uid, epoch=1)
    eventually(lambda: second.get_json(told)["introduced"] is False)
    assert second.get_json(told)["record"]["epoch"] == 1


def test_who_has_one_jobs_token_is_told_nothing(
    introduced: Callable[[], Pair], job_uid: str
) -> None:
    first, _ = introduced()
    for rights in ([Right.READ], [Right.READ, Right.WRITE, Right.OWN]):
        answer = first.request("GET", "/v1/facts", token=first.token(job_uid, rights))
        assert (answer.status, answer.code) == (403, "forbidden")
    answer = first.request("GET", "/v1/facts", token=first.token(ANY_JOB, [Right.METRICS]))
    assert answer.status == 403
    assert first.request("GET", "/v1/facts").status == 401
    facts = first.get_json("/v1/facts")
    assert facts["settled"] is True


def test_only_what_is_new_is_told(worker: WorkerProcess, job_uid: str) -> None:
    say(worker, job_uid)
    page = worker.get_json("/v1/facts")
    assert job_uid in [job["uid"] for job in page["jobs"]]
    since = f"/v1/facts?incarnation={page['incarnation']}&since={page['version']}"
    page = worker.get_json(since)
    assert job_uid not in [job["uid"] for job in page["jobs"]]
    assert page["ages"][job_uid][0] is None
    worker.request("DELETE", f"/v1/jobs/{job_uid}")
    page = worker.get_json(since)
    assert [j["stage"] for j in page["jobs"] if j["uid"] == job_uid] == ["fenced"]
    assert job_uid not in page["ages"]
    other = worker.get_json(since.replace("incarnation=", "incarnation=9"))
    assert len(other["jobs"]) >= len(page["jobs"]), "another process's versions say nothing"


def test_many_jobs_are_told_in_pages(start_worker: StartWorker) -> None:
    first = start_worker(**QUICK)
    uids = {f"job-{n}" for n in range(1500)}
    tombstones = first.data_dir / "tombstones"
    first.kill9()
    for uid in uids:
        (tombstones / f"{uid}.json").write_text(json.dumps({"epoch": 0}))
    first.start()
    assert first.get_json("/v1/facts")["more"] is True
    second = start_worker(peers=first.url, **QUICK)
    eventually(
        lambda: {p.stem for p in (second.data_dir / "tombstones").glob("*.json")} == uids,
    )


def test_a_tombstone_is_as_old_for_who_learns_of_it(start_worker: StartWorker) -> None:
    days = 5 * 86_400
    first = start_worker(**QUICK)
    first.kill9()
    stone = {"epoch": 0, "stage": "clean", "fenced_at_ran": -days}
    (first.data_dir / "tombstones" / "old.json").write_text(json.dumps(stone))
    first.start()
    second = start_worker(peers=first.url, **QUICK)
    eventually(lambda: fenced_seconds(second, "old") is not None)
    for worker in (first, second):
        assert days <= fenced_seconds(worker, "old") < days + 60


def fenced_seconds(worker: WorkerProcess, uid: str) -> Any:
    jobs = worker.get_json("/v1/facts")["jobs"]
    return next((job["fenced_seconds"] for job in jobs if job["uid"] == uid), None)


def test_an_empty_disk_is_not_settled_until_it_was_told(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    uid = f"job-{secrets.token_hex(6)}"
    first = start_worker(**QUICK)
    store = (tmp_path / "store").as_uri()
    second = start_worker(peers=first.url, store=store, store_settle_seconds=0.1, **QUICK)
    target = target_on(second, uid)
    eventually(lambda: target.register().json()["settled"])
    second.kill9()
    shutil.rmtree(second.data_dir)
    first.kill9()
    second.start()
    assert target.register().json()["settled"] is False
    assert target.push(target.frame()).status == 200, "frames are taken"
    keys = target.keys(target.frames())
    for method, path, body in (
        ("POST", f"{target.path}/persist", keys.tobytes()),
        ("DELETE", target.path, None),
        ("DELETE", target.job_path, None),
        ("POST", f"{target.job_path}/fence", None),
    ):
        reply = target.peer.ask(method, path, body)
        assert (reply.status, reply.code) == (503, "unavailable"), path
        assert "empty disk" in reply.json()["message"]
    second.restart()
    assert target.register().json()["settled"] is False, "nor by a restart"
    first.start()
    eventually(lambda: target.register().json()["settled"])
    eventually(
        lambda: target.peer.ask("POST", f"{target.path}/persist", keys.tobytes()).status == 200
    )
    first.kill9()
    second.restart()
    assert target.register().json()["settled"] is True, "once it was told, its disk knows"
