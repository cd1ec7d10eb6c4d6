"""What tests of deleting share: a small shuffle, what is left of it, clients with a store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import crossdock
from crossdock.store.api import StoreOptions
from harness import QUICK, StartWorker, WorkerProcess, eventually


def write(job: crossdock.Job, name: str = "words", maps: int = 2) -> crossdock.View:
    """Write a small shuffle."""
    shuffle = job.shuffle(name, partitions=3, maps=maps)
    for m in range(maps):
        with shuffle.writer(map_id=m, attempt=0) as writer:
            for p in range(3):
                writer.write(p, f"{m} {p}".encode(), rows=1)
    return shuffle.view()


def files(directory: Path) -> list[Path]:
    found = os.walk(directory)  # which takes it that folders go meanwhile
    return [Path(folder, name) for folder, _, names in found for name in names]


def worker_options(url: str, options: StoreOptions) -> dict[str, object]:
    """Return the options of a worker's command line for a store."""
    settings = [
        f"endpoint_url={options.endpoint_url}", f"region={options.region}", "path_style=true",
    ]  # fmt: skip
    return {"store": url, "store_option": settings if options.endpoint_url else []}


@contextmanager
def client(
    workers: list[WorkerProcess], url: str, options: StoreOptions | None = None, **more: object
) -> Iterator[crossdock.Cluster]:
    chosen = replace(QUICK, store=url, **{"store_settle_seconds": 0.3, **more})  # type: ignore[arg-type]
    urls = [w.url for w in workers]
    with crossdock.connect(urls, token="", options=chosen, store_options=options) as found:
        yield found


def peers_with_a_store(
    start_worker: StartWorker, directory: Path, count: int, **more: object
) -> list[WorkerProcess]:
    """Start workers with a directory as their store that know of each other."""
    options = {
        "store": directory.as_uri(), "peers_interval_seconds": 0.1,
        "drain_grace_seconds": 0, **more,
    }  # fmt: skip
    workers: list[WorkerProcess] = []
    for _ in range(count):
        peers = {"peers": ",".join(w.url for w in workers)} if workers else {}
        workers.append(start_worker(**options, **peers))
    for worker in workers:
        eventually(lambda w=worker: len(w.get_json("/v1/workers")["workers"]) == count)  # type: ignore[misc]
    return workers


def stored_bytes(workers: list[WorkerProcess], job: str) -> int:
    return sum(w.get_json(f"/v1/jobs/{job}")["store"]["stored_bytes"] for w in workers)


def proofs(workers: list[WorkerProcess]) -> list[int]:
    """Return how many shuffles each batch had that was proved to be deleted."""
    return [
        line["shuffles"]
        for worker in workers
        for line in worker.log_lines()
        if line["event"] == "released shuffles are deleted"
    ]
