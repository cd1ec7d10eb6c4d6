"""Jobs whose owners are gone: deleted after lease and grace, by nobody's command."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from speaking import acquainted, known_for, say

from harness import PatchedWorker, StartWorker, WorkerProcess, connect_all, eventually, silent
from listing import files_below
from raw import Line, Peer, Target

QUICK = {"peers_interval_seconds": 0.05}
OWNER = """
import sys, time
import crossdock
uid, lease, grace, persistence, *urls = sys.argv[1:]
cluster = crossdock.connect(urls)
job = cluster.job(
    uid, owner="driver", lease_seconds=float(lease), grace_seconds=float(grace),
    persistence=persistence,
)
with job.shuffle("words", partitions=2).writer(map_id=0, attempt=0) as writer:
    writer.write(0, b"abc")
print("written", flush=True)
time.sleep(600)
"""


@contextmanager
def owner(
    uid: str,
    workers: list[WorkerProcess],
    *,
    lease: float,
    grace: float,
    persistence: str = "OnPressure",
) -> Iterator[int]:
    """Run a job's owner as a process that has written a block; yield its id."""
    said = [uid, str(lease), str(grace), persistence, *(w.url for w in workers)]
    command = [sys.executable, "-c", OWNER, *said]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        try:
            yield process.pid
        finally:
            process.kill()


def code(worker: WorkerProcess, uid: str) -> str:
    answer = worker.request("GET", f"/v1/jobs/{uid}")
    return "" if answer.status == 200 else answer.code


def stages(worker: WorkerProcess, uid: str) -> list[str]:
    return [j["stage"] for j in worker.get_json("/v1/facts")["jobs"] if j["uid"] == uid]


@pytest.fixture
def uid() -> str:
    return f"job-{secrets.token_hex(6)}"


@pytest.fixture
def pair(start_worker: StartWorker) -> list[WorkerProcess]:
    first = start_worker(**QUICK)
    second = start_worker(peers=first.url, **QUICK)
    acquainted(first, second)
    return [first, second]


def just_heard(workers: list[WorkerProcess], uid: str) -> float:
    """Return when it was asked whether workers have just heard an owner; 0 if they have not."""
    asked = time.monotonic()
    return asked if max(silence(worker, uid) for worker in workers) < 0.4 else 0.0


def test_a_job_whose_owner_was_killed_is_refused_and_then_deleted(
    pair: list[WorkerProcess], uid: str
) -> None:
    with owner(uid, pair, lease=1.5, grace=4) as pid:
        known_for(pair[0], uid, 2)  # longer than a lease: its words keep it
        for worker in pair:
            eventually(lambda w=worker: w.get_json(f"/v1/jobs/{uid}")["lease"] == "live")
        spoke = eventually(lambda: just_heard(pair, uid), what="a word")
        os.kill(pid, signal.SIGKILL)
        target = Target(Peer(pair[0].url, ""), uid, partitions=2)
        eventually(lambda: target.push(target.frame(map_id=1)).status == 503)
        assert time.monotonic() - spoke > 1
        assert target.push(target.frame(map_id=1)).code == "lease_ended"
        kept = all(not code(worker, uid) for worker in pair)
        assert kept or time.monotonic() - spoke > 5, "its data are kept for the grace"
        for worker in pair:
            eventually(lambda w=worker: code(w, uid) == "job_fenced", what=worker.log_text())
            eventually(lambda w=worker: not (w.data_dir / "jobs" / uid).exists())
        assert time.monotonic() - spoke > 5
        for worker in pair:  # there is no store, so nothing can be in one
            eventually(lambda w=worker: stages(w, uid) == ["clean"])


def test_a_word_in_the_grace_period_revives_it(pair: list[WorkerProcess], uid: str) -> None:
    with owner(uid, pair, lease=1, grace=5) as pid:
        os.kill(pid, signal.SIGSTOP)
        for worker in pair:
            eventually(lambda w=worker: w.get_json(f"/v1/jobs/{uid}")["lease"] == "ended")
        os.kill(pid, signal.SIGCONT)
        for worker in pair:
            eventually(lambda w=worker: w.get_json(f"/v1/jobs/{uid}")["lease"] == "live")
        known_for(pair[0], uid, 8)
        for worker in pair:
            eventually(lambda w=worker: w.get_json(f"/v1/jobs/{uid}")["lease"] == "live")
        target = Target(Peer(pair[0].url, ""), uid, partitions=2)
        eventually(lambda: target.push(target.frame(map_id=1)).status == 200)


def test_nobody_takes_a_job_for_abandoned_while_a_peer_is_away(
    pair: list[WorkerProcess], uid: str
) -> None:
    first, second = pair
    for worker in pair:
        say(worker, uid, lease_seconds=60, grace_seconds=60)
    second.kill9()
    say(first, uid, lease_seconds=0.5, grace_seconds=0.5)
    eventually(lambda: first.get_json(f"/v1/jobs/{uid}")["lease"] == "ended")
    eventually(lambda: silence(first, uid) > 3)
    assert not code(first, uid), "the other one may hear the owner"
    second.start()
    for worker in pair:
        eventually(lambda w=worker: code(w, uid) == "job_fenced")


@pytest.mark.parametrize("told", [False, True], ids=["in --peers", "met"])
def test_a_peer_that_was_declared_gone_is_not_waited_for(
    pair: list[WorkerProcess], uid: str, *, told: bool
) -> None:
    first, second = pair if told else pair[::-1]
    for worker in pair:
        say(worker, uid, lease_seconds=60, grace_seconds=60)
    gone = second.get_json("/v1/workers")["self"]["id"]
    second.kill9()
    say(first, uid, lease_seconds=0.5, grace_seconds=0.5)
    eventually(lambda: first.get_json(f"/v1/jobs/{uid}")["lease"] == "ended")
    assert first.request("POST", f"/v1/workers/{gone}/gone").status == 200
    eventually(lambda: code(first, uid) == "job_fenced")


def test_an_earlier_leader_declares_nobody_gone(start_worker: StartWorker) -> None:
    """Also one that was held up while the worker was started anew."""
    worker = start_worker()

    def declare(name: str, query: str) -> int:
        answer = worker.request("POST", f"/v1/workers/{name * 32}/gone{query}")
        assert answer.status == 200 or answer.code == "stale_epoch"
        return answer.status

    assert declare("a", "?epoch=7") == 200
    assert declare("b", "?epoch=6") == 409
    worker.kill9()
    worker.start()
    assert declare("b", "?epoch=6") == 409
    listed = worker.get_json("/v1/workers")["workers"]
    assert [each["id"] for each in listed if each["state"] == "gone"] == ["a" * 32]
    assert declare("c", "?epoch=8") == 200
    assert declare("d", "") == 200, "a person needs no number"


def test_a_paused_worker_does_not_take_jobs_for_abandoned(worker: WorkerProcess, uid: str) -> None:
    """Words of their owners wait in its sockets."""
    say(worker, uid, lease_seconds=3, grace_seconds=1)
    with Line(worker.url, "") as line:
        assert line.ask("GET", "/healthz").status == 200
        with silent(worker):
            line.send(line.head("GET", f"/v1/jobs/{uid}", length=None))
            until = time.monotonic() + 6
            eventually(lambda: time.monotonic() > until)
        reply = line.reply()
    assert (reply.status, reply.json()["lease"]) == (200, "live")
    say(worker, uid, lease_seconds=60)


def silence(worker: WorkerProcess, uid: str) -> float:
    return float(worker.get_json(f"/v1/jobs/{uid}")["silent_seconds"])


def test_silence_goes_on_over_restarts(start_worker: StartWorker, uid: str) -> None:
    """So a worker that crashes again and again keeps no job of a dead owner."""
    worker = start_worker()
    say(worker, uid, lease_seconds=2, grace_seconds=6)
    for least in (1.0, 4.0):
        eventually(lambda s=least: silence(worker, uid) > s + 0.3)
        eventually(lambda s=least: kept(worker, uid).get("seconds", 0) >= s)
        worker.kill9()
        worker.start()
        assert silence(worker, uid) >= least
    began = time.monotonic()
    assert not code(worker, uid), "it has to listen a while itself"
    eventually(lambda: code(worker, uid) == "job_fenced")
    assert time.monotonic() - began < 7.5, "lease and grace are 8 s"


@pytest.mark.parametrize("why", ["a word", "another start of the machine", "damage"])
def test_silence_that_was_kept_does_not_count_after(
    start_worker: StartWorker, uid: str, why: str
) -> None:
    worker = start_worker()
    say(worker, uid, lease_seconds=2, grace_seconds=60)
    eventually(lambda: kept(worker, uid).get("seconds", 0) >= 2)
    path = worker.data_dir / "jobs" / uid / "silence"
    began = time.monotonic()
    if why == "a word":
        say(worker, uid, lease_seconds=2, grace_seconds=60)
        assert not path.exists()
    worker.kill9()
    if why == "damage":
        path.write_text("{")
    elif why != "a word":
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
    worker.start()
    assert silence(worker, uid) <= time.monotonic() - began


def test_silence_begins_anew_when_a_peer_is_lost_that_may_have_heard_the_owner(
    pair: list[WorkerProcess], uid: str
) -> None:
    first, second = pair
    for worker in pair:
        say(worker, uid, lease_seconds=4, grace_seconds=60)
    eventually(lambda: kept(first, uid).get("seconds", 0) >= 2)
    gone = second.get_json("/v1/workers")["self"]["id"]
    began = time.monotonic()
    second.kill9()
    assert first.request("POST", f"/v1/workers/{gone}/gone").status == 200
    assert silence(first, uid) <= time.monotonic() - began
    assert kept(first, uid).get("seconds", 0) <= time.monotonic() - began
    first.restart()
    assert silence(first, uid) <= time.monotonic() - began


def test_nobody_waits_for_a_drained_worker_to_clean_up(start_worker: StartWorker, uid: str) -> None:
    """It does not: a worker that listens to owners no more holds none for dead."""
    first = start_worker(drain_grace_seconds=0, **QUICK)
    second = start_worker(peers=first.url, drain_grace_seconds=0, **QUICK)
    acquainted(first, second)
    first, second = sorted((first, second), key=lambda w: w.get_json("/v1/workers")["self"]["id"])
    drained(first)
    say(second, uid, lease_seconds=1, grace_seconds=0.2)
    began = time.monotonic()
    eventually(lambda: code(second, uid) == "job_fenced")
    assert time.monotonic() - began < 20, "its turn would have come after the store's settle time"


def drained(worker: WorkerProcess) -> None:
    worker.request("POST", "/v1/drain")
    eventually(lambda: worker.request("GET", "/v1/drain").status == 200, what="drained")


SAYS_NOT_WHETHER_IT_HEARS = """
from crossdock import gossip
told = gossip.Page.to_json
gossip.Page.to_json = lambda page: {k: v for k, v in told(page).items() if k != "hears"}
"""


def test_an_older_worker_drains_beside_a_newer_one(start_worker: StartWorker) -> None:
    """It never says that it hears no more."""
    newer = start_worker(**QUICK)
    options = {"peers": newer.url, "drain_grace_seconds": 0, **QUICK}
    with PatchedWorker(options=options) as older:
        older.patch = SAYS_NOT_WHETHER_IT_HEARS
        older.start()
        acquainted(newer, older)
        assert "hears" not in older.get_json("/v1/facts")
        drained(older)
    listed = newer.get_json("/v1/workers")["workers"]
    assert {w["state"] for w in listed} & {"drained", "gone"}


def test_silence_goes_on_when_a_peer_is_drained_away(start_worker: StartWorker, uid: str) -> None:
    """So who scales down again and again keeps no job of a dead owner."""
    stays = start_worker(**QUICK)
    first = start_worker(peers=stays.url, drain_grace_seconds=0, **QUICK)
    second = start_worker(peers=f"{stays.url},{first.url}", drain_grace_seconds=0, **QUICK)
    others = [first, second]
    acquainted(stays, *others)
    for worker in (stays, *others):
        say(worker, uid, lease_seconds=2, grace_seconds=60)
    eventually(lambda: kept(stays, uid).get("seconds", 0) >= 2)
    eventually(lambda: remembers(stays) > 6)
    for worker in others:
        gone = worker.get_json("/v1/workers")["self"]["id"]
        eventually(lambda w=worker: w.request("POST", "/v1/drain").status == 200)
        before = silence(worker, uid)
        say(worker, uid, lease_seconds=2, grace_seconds=60)
        assert silence(worker, uid) >= before, "it listens no more"
        counted = remembers(stays)
        worker.kill9()
        if worker is others[1]:  # by an operator that wants to be sure
            assert stays.request("POST", f"/v1/workers/{gone}/gone").status == 200
        eventually(lambda g=gone: states(stays).get(g) == "gone")
        eventually(lambda c=counted: remembers(stays) > c + 1, seconds=4, what="no new beginning")
    assert kept(stays, uid)["seconds"] >= 2
    others[0].start()
    eventually(lambda: "worker is back after a drain" in others[0].log_text())
    before = eventually(lambda: (found := silence(others[0], uid)) > 0.5 and found)
    say(others[0], uid, lease_seconds=2, grace_seconds=60)
    assert silence(others[0], uid) < before, "one that is back listens again"


def remembers(worker: WorkerProcess) -> float:
    """Return for how long a worker has counted silence."""
    return float(worker.get_json("/v1/facts")["remembers_seconds"])


def states(worker: WorkerProcess) -> dict[str, str]:
    return {w["id"]: w["state"] for w in worker.get_json("/v1/workers")["workers"]}


def kept(worker: WorkerProcess, uid: str) -> dict[str, Any]:
    path = worker.data_dir / "jobs" / uid / "silence"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def test_the_operators_job_is_never_abandoned(worker: WorkerProcess, uid: str) -> None:
    say(worker, uid, owner="cluster", lease_seconds=0, grace_seconds=0)
    say(worker, f"{uid}-2", lease_seconds=0, grace_seconds=0)
    eventually(lambda: code(worker, f"{uid}-2") == "job_fenced")
    assert not code(worker, uid)


def test_who_ends_a_job_tells_that_it_is_clean(pair: list[WorkerProcess], uid: str) -> None:
    first, second = pair
    say(first, uid)
    assert first.request("DELETE", f"/v1/jobs/{uid}").status == 200
    eventually(lambda: stages(second, uid) == ["fenced"])
    assert first.request("DELETE", f"/v1/jobs/{uid}?proved=true").status == 200
    eventually(lambda: stages(second, uid) == ["clean"])
    second.restart()
    assert stages(second, uid) == ["clean"]


STORED = {"store_settle_seconds": 0.2, "eager_quiet_seconds": 3600, **QUICK}


def objects(store: Path) -> list[str]:
    return [str(path.relative_to(store)) for path in files_below(store)]


@pytest.fixture
def stored(start_worker: StartWorker, tmp_path: Path) -> list[WorkerProcess]:
    """Two workers with one store, the one of smaller id first."""
    store = (tmp_path / "store").as_uri()
    first = start_worker(store=store, drain_grace_seconds=0, **STORED)
    second = start_worker(store=store, drain_grace_seconds=0, peers=first.url, **STORED)
    acquainted(first, second)
    return sorted([first, second], key=lambda w: str(w.get_json("/v1/workers")["self"]["id"]))


@pytest.mark.parametrize("dies", [False, True], ids=["all live", "whose turn it was dies"])
def test_what_is_in_the_store_goes_too(
    stored: list[WorkerProcess], tmp_path: Path, uid: str, *, dies: bool
) -> None:
    store = tmp_path / "store"
    first, second = stored
    with owner(uid, stored, lease=1.5, grace=1, persistence="BeforeAck") as pid:
        eventually(lambda: objects(store))
        other = f"{uid}-other"
        say(second, other, owner="cluster", persistence="BeforeAck")
        target = Target(Peer(second.url, ""), other)
        assert target.push(target.frame()).status == 200
        mine = [key for key in objects(store) if f"/{uid}/" in key]
        others = [key for key in objects(store) if key not in mine]
        assert mine
        assert others
        os.kill(pid, signal.SIGKILL)
        left = stored
        if dies:
            gone = first.get_json("/v1/workers")["self"]["id"]
            first.kill9()
            assert second.request("POST", f"/v1/workers/{gone}/gone").status == 200
            left = [second]
        for worker in left:
            eventually(lambda w=worker: stages(w, uid) == ["clean"], what=worker.log_text())
    assert objects(store) == others


def test_a_job_that_was_ended_without_a_way_to_the_store_is_cleaned_up_by_workers(
    stored: list[WorkerProcess], tmp_path: Path, uid: str
) -> None:
    store = tmp_path / "store"
    with connect_all(stored) as cluster:
        job = cluster.job(
            uid, owner="runner", lease_seconds=1.5, grace_seconds=0, persistence="BeforeAck"
        )
        with job.shuffle("words", partitions=2).writer(map_id=0, attempt=0) as writer:
            writer.write(0, b"abc")
        assert objects(store)
        job.end()
    for worker in stored:
        eventually(lambda w=worker: stages(w, uid) == ["clean"], what=worker.log_text())
    assert not objects(store)
