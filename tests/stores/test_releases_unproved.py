"""Released shuffles while some worker cannot agree: it is away, of an older version, or damaged."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from deletions import files, peers_with_a_store, proofs, stored_bytes, write

import crossdock
from harness import PatchedWorker, StartWorker, WorkerProcess, connect_all, eventually

SETTLE = 0.5
LEASE = 4
TAKES_NO_RELEASES = """
from crossdock.wire import names
from crossdock_worker import routes, server
server.ROUTES = tuple(each for each in routes.ROUTES if each.path != names.RELEASED)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


def own_id(worker: WorkerProcess) -> str:
    return str(json.loads((worker.data_dir / "identity").read_text())["id"])


def met(workers: list[WorkerProcess]) -> bool:
    states = [[w["state"] for w in w.get_json("/v1/workers")["workers"]] for w in workers]
    return states == [["serving"] * len(workers)] * len(workers)


@pytest.fixture
def pair(start_worker: StartWorker, directory: Path) -> list[WorkerProcess]:
    """Two workers, by rising id: the first is to clean up."""
    workers = peers_with_a_store(start_worker, directory, 2, store_settle_seconds=SETTLE)
    return sorted(workers, key=own_id)


def both_persisted(job: crossdock.Job, workers: list[WorkerProcess]) -> crossdock.View:
    """Write a shuffle of which each worker has brought something to the store."""
    for n in range(20):
        view = write(job, f"words-{n}", maps=6)
        view.persist()
        if all(stored_bytes([w], job.uid) for w in workers):
            return view
    raise AssertionError("one worker takes all")


def test_what_was_released_counts_until_it_is_deleted(
    pair: list[WorkerProcess], directory: Path, job_uid: str
) -> None:
    """Over restarts too: here the worker that is to delete it is away."""
    first, second = pair
    with connect_all(pair) as cluster:
        job = cluster.job(job_uid, owner="runner", lease_seconds=LEASE)
        view = both_persisted(job, pair)
        first.kill9()
        released(second, job, view)
        had = stored_bytes([second], job_uid)
        second.restart()
        assert stored_bytes([second], job_uid) == had > 0
        assert files(directory)
        second.request("POST", f"/v1/workers/{own_id(first)}/gone")
        eventually(lambda: stored_bytes([second], job_uid) == 0)
        eventually(lambda: proofs([second]), what="the proof")
    assert not files(directory)


def released(worker: WorkerProcess, job: crossdock.Job, view: crossdock.View) -> None:
    """Release all shuffles of a job up to a view's, at one worker."""
    last = int(view.shuffle.key.name.removeprefix("words-"))
    for n in range(last + 1):
        path = f"/v1/jobs/{job.uid}/shuffles/words-{n}/0?epoch=0"
        answer = worker.request("DELETE", path)
        assert answer.status == 200, answer


@pytest.mark.parametrize("why", ["away", "older"])
def test_what_cannot_be_proved_yet_is_deleted_and_counts_no_more(
    directory: Path, job_uid: str, why: str
) -> None:
    """The proof waits until the worker is there that could still be writing."""
    options: dict[str, object] = {
        "store": directory.as_uri(), "peers_interval_seconds": 0.1,
        "store_settle_seconds": SETTLE, "drain_grace_seconds": 0,
    }  # fmt: skip
    with PatchedWorker(options=options) as one, PatchedWorker(options=options) as other:
        one.start()
        other.options["peers"] = one.url
        other.start()
        eventually(lambda: met([one, other]))
        first, second = sorted((one, other), key=own_id)
        with connect_all([first, second]) as cluster:
            job = cluster.job(job_uid, owner="runner", lease_seconds=600)
            view = both_persisted(job, [first, second])
            second.patch = TAKES_NO_RELEASES
            second.restart()
            eventually(lambda: met([first, second]))
            if why == "away":
                second.kill9()
            released(first, job, view)
            eventually(lambda: stored_bytes([first], job_uid) == 0)
            assert not proofs([first])
            second.patch = ""
            if second.running:
                second.kill9()
            second.start()
            eventually(lambda: proofs([first]), what="the proof")
            assert stored_bytes([first, second], job_uid) == 0
    assert not files(directory)


@pytest.fixture
def damaged(pair: list[WorkerProcess], job_uid: str) -> Iterator[tuple[crossdock.Job, bytes]]:
    """A job whose files do not read at the second worker, and what they were."""
    second = pair[1]
    with connect_all(pair) as cluster:
        job = cluster.job(job_uid, owner="runner", lease_seconds=LEASE)
        both_persisted(job, pair)
        second.kill9()
        record = second.data_dir / "jobs" / job_uid / "job.json"
        sound = record.read_bytes()
        record.write_bytes(b"{" + secrets.token_bytes(4))
        second.start()
        eventually(lambda: met(pair))
        assert second.request("GET", f"/v1/jobs/{job_uid}").code == "data_corrupt"
        yield job, sound


def test_a_damaged_job_agrees_to_releases(
    pair: list[WorkerProcess], directory: Path, damaged: tuple[crossdock.Job, bytes]
) -> None:
    """And if somebody mends its files, it knows them."""
    first, second = pair
    job, sound = damaged
    names = {each["name"] for each in first.get_json(f"/v1/jobs/{job.uid}")["shuffles"]}
    assert names
    for name in names:
        job.shuffle(name, partitions=3).release()
    eventually(lambda: proofs(pair), what="the proof")
    eventually(lambda: not files(directory))
    first.kill9()
    second.kill9()
    (second.data_dir / "jobs" / job.uid / "job.json").write_bytes(sound)
    second.start()
    known = second.get_json(f"/v1/jobs/{job.uid}")
    assert known["released"] == dict.fromkeys(names, 1)
    assert not known["shuffles"]


def test_a_damaged_job_keeps_its_rights_at_the_others(
    pair: list[WorkerProcess], damaged: tuple[crossdock.Job, bytes]
) -> None:
    """Its owner goes on speaking to these, also after the lease that it had then."""
    job, _ = damaged
    known = f"/v1/jobs/{job.uid}"
    began = eventually(lambda: pair[0].get_json("/v1/facts")["ages"][job.uid][2])
    eventually(lambda: pair[0].get_json("/v1/facts")["ages"][job.uid][2] > began + 1.5 * LEASE)
    eventually(lambda: pair[0].get_json(known)["right_age_seconds"] < LEASE, what="a fresh right")
    with job.shuffle("later", partitions=1).writer(map_id=0, attempt=0) as writer:
        writer.write(0, b"later", rows=1)
    job.shuffle("later", partitions=1).view({0: 0}).persist()
