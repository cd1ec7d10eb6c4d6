"""What tests of deleting share: a small shuffle, what is left of it, clients with a store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import crossdock
from crossdock.store.api import StoreOptions
from harness import QUICK, WorkerProcess


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
