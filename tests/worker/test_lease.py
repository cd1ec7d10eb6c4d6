"""Leases: what a worker refuses and leaves alone when a job's owner is silent, and what revives."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from speaking import say

from harness import StartWorker, WorkerProcess, eventually, silent
from listing import files_below
from raw import Peer, Target

SETTLE_SECONDS = 0.1


def pushed(worker: WorkerProcess, uid: str, map_id: int = 0) -> int:
    target = Target(Peer(worker.url, ""), uid)
    return target.push(target.frame(map_id=map_id)).status


def speaking(worker: WorkerProcess, uid: str, **word: Any) -> Callable[[], None]:
    """Return what says a word that brings the newest reading back."""
    reading: dict[str, Any] = {}

    def speak() -> None:
        answer = say(worker, uid, as_of=reading or None, **word)
        reading.update(answer["reading"])

    return speak


def objects(store: Path, uid: str) -> list[str]:
    return [p.name for p in files_below(store) if f"/{uid}/" in str(p)]


def test_frames_are_refused_when_the_lease_is_over_and_a_word_revives(
    worker: WorkerProcess, job_uid: str
) -> None:
    say(worker, job_uid, lease_seconds=60)
    assert pushed(worker, job_uid) == 200
    say(worker, job_uid, lease_seconds=0.3)
    eventually(lambda: worker.get_json(f"/v1/jobs/{job_uid}")["lease"] == "ended")
    target = Target(Peer(worker.url, ""), job_uid)
    for expect in (True, False):
        reply = target.push(target.frame(map_id=1), expect=expect)
        assert (reply.status, reply.code) == (503, "lease_ended")
        assert int(reply.headers["retry-after"]) >= 1
    assert len(target.frames()) == 1, "reads go on"
    say(worker, job_uid, lease_seconds=60)
    assert pushed(worker, job_uid, 1) == 200


def test_the_operators_silence_ends_nothing(worker: WorkerProcess, job_uid: str) -> None:
    say(worker, job_uid, owner="cluster", lease_seconds=0)
    assert pushed(worker, job_uid) == 200
    assert worker.get_json(f"/v1/jobs/{job_uid}")["lease"] == "live"


@pytest.fixture
def eager(start_worker: StartWorker, tmp_path: Path) -> WorkerProcess:
    """A worker that persists complete attempts half a second after the last frame."""
    return start_worker(
        store=(tmp_path / "store").as_uri(),
        store_settle_seconds=SETTLE_SECONDS,
        eager_quiet_seconds=0.5,
    )


def test_a_paused_worker_writes_nothing_once_the_lease_is_over(
    eager: WorkerProcess, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    paused = speaking(eager, "paused", lease_seconds=1, persistence="Eager")
    other = speaking(eager, "other", owner="cluster", persistence="Eager")
    for speak in (paused, paused, other, other):
        speak()
    with silent(eager):
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 1)

    def revived() -> bool:  # by a word that gives no right to write
        say(eager, "paused", lease_seconds=1, persistence="Eager")
        return pushed(eager, "paused") == 200

    eventually(revived, what="a frame")
    assert pushed(eager, "other") == 200
    eventually(lambda: objects(store, "other"))
    assert not objects(store, "paused")
    eventually(lambda: paused() or objects(store, "paused"))


def test_who_asks_to_persist_hears_that_there_is_no_right(
    eager: WorkerProcess, job_uid: str
) -> None:
    say(eager, job_uid, lease_seconds=60)
    assert pushed(eager, job_uid) == 200
    target = Target(Peer(eager.url, ""), job_uid)
    keys = target.keys(target.frames())
    ask = lambda: target.peer.ask("POST", f"{target.path}/persist", keys.tobytes())  # noqa: E731
    reply = ask()
    assert (reply.status, reply.code) == (503, "lease_ended")
    reading = eager.get_json(f"/v1/jobs/{job_uid}")["reading"]
    say(eager, job_uid, lease_seconds=60, as_of=reading)
    eventually(lambda: ask().status == 200)


def test_a_lease_that_is_shorter_than_the_settle_time_never_publishes(
    start_worker: StartWorker, tmp_path: Path, job_uid: str
) -> None:
    worker = start_worker(store=(tmp_path / "store").as_uri(), store_settle_seconds=5)
    speak = speaking(worker, job_uid, lease_seconds=4)
    speak()
    speak()
    assert pushed(worker, job_uid) == 200
    target = Target(Peer(worker.url, ""), job_uid)
    keys = target.keys(target.frames())

    def refused() -> str:
        reply = target.peer.ask("POST", f"{target.path}/persist", keys.tobytes())
        return reply.code if reply.status >= 400 else ""

    assert eventually(refused) == "config"
    assert not [n for n in objects(tmp_path / "store", job_uid) if "record" in n]


def test_a_fence_that_comes_twice(worker: WorkerProcess, job_uid: str) -> None:
    say(worker, job_uid)
    for _ in range(2):
        answer = worker.request("POST", f"/v1/jobs/{job_uid}/fence")
        assert json.loads(answer.body)["fenced"] is True
