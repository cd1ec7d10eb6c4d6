"""Jobs whose owners are gone: deleted after lease and grace, by nobody's command."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from speaking import acquainted, known_for, say

from harness import StartWorker, WorkerProcess, eventually, silent
from raw import Peer, Target

QUICK = {"peers_interval_seconds": 0.05}
OWNER = """
import sys, time
import crossdock
uid, lease, grace, *urls = sys.argv[1:]
cluster = crossdock.connect(urls)
job = cluster.job(uid, owner="driver", lease_seconds=float(lease), grace_seconds=float(grace))
with job.shuffle("words", partitions=2).writer(map_id=0, attempt=0) as writer:
    writer.write(0, b"abc")
print("written", flush=True)
time.sleep(600)
"""


@contextmanager
def owner(uid: str, workers: list[WorkerProcess], *, lease: float, grace: float) -> Iterator[int]:
    """Run a job's owner as a process that has written a block; yield its id."""
    command = [sys.executable, "-c", OWNER, uid, str(lease), str(grace), *(w.url for w in workers)]
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


def test_a_job_whose_owner_was_killed_is_refused_and_then_deleted(
    pair: list[WorkerProcess], uid: str
) -> None:
    with owner(uid, pair, lease=1.5, grace=1.5) as pid:
        known_for(pair[0], uid, 2)  # longer than a lease: its words keep it
        for worker in pair:
            assert worker.get_json(f"/v1/jobs/{uid}")["lease"] == "live"
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        target = Target(Peer(pair[0].url, ""), uid, partitions=2)
        eventually(lambda: target.push(target.frame(map_id=1)).status == 503)
        assert time.monotonic() - killed > 1
        assert target.push(target.frame(map_id=1)).code == "lease_ended"
        assert all(not code(worker, uid) for worker in pair), "its data are kept for the grace"
        for worker in pair:
            eventually(lambda w=worker: code(w, uid) == "job_fenced", what=worker.log_text())
            eventually(lambda w=worker: not (w.data_dir / "jobs" / uid).exists())
        assert time.monotonic() - killed > 2.5
        for worker in pair:  # there is no store, so nothing can be in one
            eventually(lambda w=worker: stages(w, uid) == ["clean"])


def test_a_word_in_the_grace_period_revives_it(pair: list[WorkerProcess], uid: str) -> None:
    with owner(uid, pair, lease=1, grace=3) as pid:
        os.kill(pid, signal.SIGSTOP)
        for worker in pair:
            eventually(lambda w=worker: w.get_json(f"/v1/jobs/{uid}")["lease"] == "ended")
        os.kill(pid, signal.SIGCONT)
        for worker in pair:
            eventually(lambda w=worker: w.get_json(f"/v1/jobs/{uid}")["lease"] == "live")
        known_for(pair[0], uid, 6)
        for worker in pair:
            assert worker.get_json(f"/v1/jobs/{uid}")["lease"] == "live"
        target = Target(Peer(pair[0].url, ""), uid, partitions=2)
        assert target.push(target.frame(map_id=1)).status == 200


def test_nobody_takes_a_job_for_abandoned_while_a_peer_is_silent(
    pair: list[WorkerProcess], uid: str
) -> None:
    first, second = pair
    for worker in pair:
        say(worker, uid, lease_seconds=0.5, grace_seconds=0.5)
    with silent(second):
        ended = time.monotonic() + 3
        eventually(lambda: first.get_json(f"/v1/jobs/{uid}")["lease"] == "ended")
        eventually(lambda: code(first, uid) or time.monotonic() > ended)
        assert not code(first, uid), "the other one may hear the owner"
    for worker in pair:
        eventually(lambda w=worker: code(w, uid) == "job_fenced", seconds=15)


def test_a_peer_that_was_declared_gone_is_not_waited_for(
    pair: list[WorkerProcess], uid: str
) -> None:
    first, second = pair
    for worker in pair:
        say(worker, uid, lease_seconds=0.5, grace_seconds=0.5)
    gone = second.get_json("/v1/workers")["self"]["id"]
    second.kill9()
    eventually(lambda: first.get_json(f"/v1/jobs/{uid}")["lease"] == "ended")
    assert first.request("POST", f"/v1/workers/{gone}/gone").status == 200
    eventually(lambda: code(first, uid) == "job_fenced", seconds=15)


def test_a_paused_worker_does_not_take_jobs_for_abandoned(worker: WorkerProcess, uid: str) -> None:
    """Words of their owners wait in its sockets."""
    say(worker, uid, lease_seconds=1, grace_seconds=1)
    until = time.monotonic() + 4
    with silent(worker):
        eventually(lambda: time.monotonic() > until)
    answer: Any = worker.get_json(f"/v1/jobs/{uid}")
    assert answer["lease"] == "live"
    say(worker, uid, lease_seconds=60)


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
