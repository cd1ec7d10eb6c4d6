"""What the client's tests share: jobs on several workers, simple contents, simple readings."""

import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import crossdock
from crossdock import Shuffle, View
from harness import QUICK, WorkerProcess, connect_all

Blocks = list[tuple[int, int, bytes, int]]
"""(partition, map, data, rows) in the order of reads."""


def options(**changes: float) -> crossdock.Options:
    """Return quick options with some changed."""
    values = {name: getattr(QUICK, name) for name in QUICK.__dataclass_fields__}
    return crossdock.Options(**{**values, **changes})


@contextmanager
def open_job(workers: Iterable[WorkerProcess], **changes: float) -> Iterator[crossdock.Job]:
    """Register a job with all the workers, with client options of its own."""
    with (
        connect_all(list(workers), options=options(**changes)) as cluster,
        cluster.job(f"job-{secrets.token_hex(6)}", owner="runner", lease_seconds=3600) as job,
    ):
        yield job


def attached(job: crossdock.Job, workers: Iterable[WorkerProcess], **changes: float) -> Iterator:
    """Attach to the job with a client of its own; a context manager."""

    @contextmanager
    def attach() -> Iterator[crossdock.Job]:
        with (
            connect_all(list(workers), options=options(**changes)) as cluster,
            cluster.job(job.uid) as other,
        ):
            yield other

    return attach()


def content(map_id: int, attempt: int, partition: int, size: int = 40) -> bytes:
    """Return bytes that no other block has."""
    head = b"m%d a%d p%d|" % (map_id, attempt, partition)
    return (head * (size // len(head) + 1))[: max(size, len(head))]


def write(
    shuffle: Shuffle,
    map_id: int,
    attempt: int = 0,
    *,
    replicas: int = 1,
    size: int = 40,
    partitions: Iterable[int] | None = None,
) -> None:
    """Write an attempt that has a block in each of the partitions."""
    with shuffle.writer(map_id=map_id, attempt=attempt, replicas=replicas) as writer:
        for p in range(shuffle.partitions) if partitions is None else partitions:
            writer.write(p, content(map_id, attempt, p, size), rows=p + 1)


def expected(
    shuffle: Shuffle,
    winners: Mapping[int, int],
    *,
    size: int = 40,
    partitions: Iterable[int] | None = None,
) -> Blocks:
    """Return what `write` wrote of the winners, in the order of reads."""
    wanted = range(shuffle.partitions) if partitions is None else partitions
    return [
        (p, m, content(m, a, p, size), p + 1) for p in wanted for m, a in sorted(winners.items())
    ]


def read(view: View, **ranges: range) -> Blocks:
    """Read a view to its end."""
    return [(b.partition, b.map_id, bytes(b.data), b.rows) for b in view.read(**ranges)]


def wipe(worker: WorkerProcess) -> None:
    """Kill a worker and remove its disk."""
    worker.kill9()
    shutil.rmtree(worker.data_dir)


@contextmanager
def started_after(worker: WorkerProcess, seconds: float) -> Iterator[None]:
    """Start a worker in a thread, some seconds after the block begins."""
    timer = threading.Timer(seconds, worker.start)
    timer.start()
    try:
        yield
    finally:
        timer.join()
