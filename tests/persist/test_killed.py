"""A worker that is killed while it persists: nothing acked is lost, nothing half-done stays."""

import os
import random
import threading
from pathlib import Path

import pytest

import crossdock
from harness import StartWorker, connect_all, eventually
from listing import files_below

ROUNDS = 8
LONG_ROUNDS = 150
SEED = int(os.environ.get("CROSSDOCK_SEED", "0"))


def objects(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in files_below(store)}


def kill_rounds(start_worker: StartWorker, tmp_path: Path, rounds: int) -> None:
    store = tmp_path / "store"
    worker = start_worker(
        store=store.as_uri(), segment_bytes=2**20 + 2**18, max_frame_bytes=2**18,
        store_settle_seconds=0.1,
    )  # fmt: skip
    options = crossdock.Options(
        frame_bytes=2**17, buffer_bytes=2**20, deadline_seconds=60, loss_after_seconds=60
    )
    for number in range(rounds):
        seed = SEED + number
        rng = random.Random(seed)
        print(f"round {number}: replay with CROSSDOCK_SEED={seed} and one round")
        with (
            connect_all([worker], options=options) as cluster,
            cluster.job(f"job-{seed}", owner="runner") as job,
        ):
            shuffle = job.shuffle("killed", partitions=7, maps=4)
            for m in range(4):
                with shuffle.writer(map_id=m, attempt=0) as writer:
                    for p in range(7):
                        writer.write(p, rng.randbytes(rng.randrange(300_000)), rows=p)
            view = shuffle.view()
            expected = [(b.partition, b.map_id, bytes(b.data)) for b in view.read()]

            killer = threading.Timer(rng.uniform(0, 0.12), worker.restart)
            killer.start()
            published = view.persist()  # rides the restart out
            killer.join()

            with crossdock.open_view(published.store, job.uid, "killed", published.view) as stored:
                found = [(b.partition, b.map_id, bytes(b.data)) for b in stored.read()]
                named = {s.key for s in stored.manifest.segments}
            assert found == expected
            eventually(
                lambda named=named, uid=job.uid: leftovers(store, uid, named) == set(),
                what=f"leftovers: {leftovers(store, job.uid, named)}",
            )
            job.end()


def leftovers(store: Path, uid: str, named: set[str]) -> set[str]:
    """Return what lies there of a job that no manifest names, and that is no record of a run."""
    mine = {key for key in objects(store) if key.startswith(f"default/{uid}/")}
    known = {key for key in mine if "/records/" in key or "/views/" in key}
    return mine - known - named


def test_kills_while_persisting(start_worker: StartWorker, tmp_path: Path) -> None:
    kill_rounds(start_worker, tmp_path, ROUNDS)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_many_kills_while_persisting(start_worker: StartWorker, tmp_path: Path) -> None:
    kill_rounds(start_worker, tmp_path, LONG_ROUNDS)
