"""Freed frames as the protocol shows them, and under readers and crashes."""

import os
import random
import threading
from pathlib import Path

import pytest

import crossdock
from crossdock.store.records import Record
from crossdock.wire import tables
from harness import StartWorker, WorkerProcess, connect_all, eventually
from raw import Batch, Peer, Target

MIB = 2**20
SEED = int(os.environ.get("CROSSDOCK_SEED", "0"))
ROUNDS = 3


def target_of(worker: WorkerProcess, uid: str, name: str = "words") -> Target:
    found = Target(Peer(worker.url, ""), uid, name)
    assert found.register().status in {200, 201}
    return found


def filled(target: Target) -> None:
    """Bring the disk of 8 MiB to where whatever was not read for longest goes."""
    more = Target(target.peer, target.job, "more")
    for m in range(7):
        assert more.push(more.frame([(1, bytes(MIB), 1)], map_id=m)).status == 200
    eventually(lambda: not len(target.frames()), what="freed")


@pytest.fixture
def worker(start_worker: StartWorker, tmp_path: Path) -> WorkerProcess:
    store = (tmp_path / "store").as_uri()
    return start_worker(store=store, disk_capacity_bytes=8 * MIB, stall_seconds=20)


def test_who_takes_an_answer_late_gets_its_bytes(worker: WorkerProcess, job_uid: str) -> None:
    target = target_of(worker, job_uid)
    data = random.Random(1).randbytes(200_000)
    assert target.push(target.frame([(1, data, 1)])).status == 200
    path, _ = target.register_places(target.keys(target.frames()))
    done = 'crossdock_http_requests_total{route="GET /v1/jobs/{job}/shuffles/{shuffle}/'
    done += '{generation}/places/{digest}/blocks",status="200"} 1.0'
    with target.peer.line() as line:
        line.send(line.head("GET", f"{path}/blocks", length=None))
        eventually(lambda: done in worker.request("GET", "/metrics").body.decode())
        filled(target)  # the answer is in the socket, and is pages of the log
        assert Batch.parse(line.reply().body).pieces()[0][1] == data
        used = target.disk_bytes()
        assert line.ask("GET", "/healthz").status == 200
        eventually(lambda: target.disk_bytes() <= used - len(data))


def test_what_is_said_of_freed_frames(worker: WorkerProcess, job_uid: str) -> None:
    target = target_of(worker, job_uid)
    last = target.frame([(1, b"x" * 1000, 1)], seq=1, count=2)
    assert target.push(target.frame([(1, b"y" * 1000, 1)], seq=0, count=0)).status == 200
    assert target.push(last).status == 200
    keys = target.keys(target.frames())
    path, _ = target.register_places(keys)
    filled(target)

    assert target.peer.ask("GET", f"{path}/blocks").code == "places_unknown"
    assert target.register_places(keys)[1].code == "places_unknown"
    wanted = tables.encode(tables.attempts([(0, 0)]))
    refused = target.peer.ask("POST", f"{target.path}/blocks", wanted)
    assert refused.code == "attempts_elsewhere"
    (record,) = refused.json()["records"]
    found = target.peer.ask("GET", f"{target.path}/objects/{record}", headers={"Range": "bytes=0-"})
    assert found.status == 206
    assert Record.decode(found.body, where=record).frames["seq"].tolist() == [0, 1]
    nowhere = tables.encode(tables.attempts([(7, 7)]))
    assert target.peer.ask("POST", f"{target.path}/blocks", nowhere).json()["records"] == []
    abort = target.peer.ask("DELETE", f"{target.path}/attempts/0/0")
    assert (abort.status, abort.code) == (409, "attempt_conflict")
    other = target.frame([(1, b"y" * 1000, 1)], seq=0, count=0, writer=b"another writer!!")
    assert target.push(other).code == "attempt_conflict"
    reply = target.peer.ask("POST", f"{target.path}/persist", tables.encode(keys))
    assert (reply.status, len(reply.json()["runs"])) == (200, 1), "it knows that they are there"

    again = target.push(last)
    assert (again.status, again.json()["duplicate"]) == (200, False)
    assert target.frames()["seq"].tolist() == [1]
    assert target.push(last).json()["duplicate"]


def test_crashes_under_pressure_lose_nothing(
    start_worker: StartWorker, tmp_path: Path, job_uid: str
) -> None:
    store = (tmp_path / "store").as_uri()
    worker = start_worker(
        store=store, disk_capacity_bytes=6 * MIB, segment_bytes=3 * MIB // 2,
        max_frame_bytes=MIB // 4, store_settle_seconds=0.1,
    )  # fmt: skip
    options = crossdock.Options(
        frame_bytes=MIB // 8, buffer_bytes=MIB, deadline_seconds=60, loss_after_seconds=60,
        connect_seconds=1, store=store, read_batch_bytes=MIB,
    )  # fmt: skip
    print(f"replay with CROSSDOCK_SEED={SEED}")
    rng = random.Random(SEED)
    with (
        connect_all([worker], options=options) as cluster,
        # Renewed soon: before that, a worker that begins anew may not write.
        cluster.job(job_uid, owner="runner", lease_seconds=12) as job,
    ):
        shuffle = job.shuffle("crashes", partitions=6, maps=9 * ROUNDS)
        expected = []
        for number in range(ROUNDS):
            killer = threading.Timer(rng.uniform(0.05, 0.6), worker.restart)
            killer.start()
            for m in range(9 * number, 9 * number + 9):
                with shuffle.writer(map_id=m, attempt=0) as writer:
                    for p in range(6):
                        data = rng.randbytes(rng.randrange(MIB // 3))
                        writer.write(p, data, rows=1)
                        expected.append((p, m, data))
            killer.join()
        found = [(b.partition, b.map_id, bytes(b.data)) for b in shuffle.view().read()]
        assert found == sorted(expected)
        worker.restart()
        found = [(b.partition, b.map_id, bytes(b.data)) for b in shuffle.view().read()]
        assert found == sorted(expected)
        assert "is damaged" not in worker.log_text()
