"""What tests of draining share: workers that know each other, contents, drains to the end."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import crossdock
from crossdock import Shuffle, View
from harness import WorkerProcess, connect_all, eventually, mutual_workers

Blocks = list[tuple[int, int, bytes, int]]
WITH_STORE = {"segment_bytes": 2 * 2**20, "max_frame_bytes": 2**20}


def blocks_of(view: View) -> Blocks:
    return [(b.partition, b.map_id, bytes(b.data), b.rows) for b in view.read()]


def write(shuffle: Shuffle, map_id: int, *, attempt: int = 0, replicas: int = 1) -> None:
    rng = random.Random(f"{map_id} {attempt}")
    with shuffle.writer(map_id=map_id, attempt=attempt, replicas=replicas) as writer:
        for p in range(shuffle.partitions):
            writer.write(p, rng.randbytes(rng.randrange(30_000)), rows=rng.randrange(5))


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
        **{"deadline_seconds": 60, "loss_after_seconds": 60, **changes},
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
    eventually(lambda: drain(worker)["drained"], what="the drain")
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
