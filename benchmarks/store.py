"""What persisting to an object store costs, and how fast it is, on a real S3 server.

    .venv/bin/python benchmarks/store.py --json [--only KEY …] [--runs N] [--gib N]

versitygw on loopback. `docs/benchmarks.md` says what the keys mean.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from support import cutting, load, processes, s3
from support.counting import CountingProxy
from support.load import PrebuiltFrame
from support.measure import MIB, Figure, alternate
from support.processes import WorkerProcess

import crossdock
from crossdock.persisting import Published
from crossdock.store.manifest import Manifest
from crossdock.store.view import StoreView
from crossdock.wire import names

GIB = 1024 * MIB
UPLOADS = 4
SEGMENT_BYTES = 128 * MIB
_number = count()


class Bench:
    """What the figures share."""

    def __init__(self, directory: Path, bucket: s3.Bucket, runs: int, gib: float) -> None:
        self.directory = directory
        self.bucket = bucket
        self.runs = runs
        self.total = int(gib * GIB)

    @contextmanager
    def workers(
        self, number: int = 1, *, bucket: s3.Bucket | None = None
    ) -> Iterator[tuple[list[WorkerProcess], crossdock.Job]]:
        """Run workers with the bucket as their store, and a job; empty the bucket afterwards."""
        found = bucket or self.bucket
        options = (*found.worker_options, "--store-uploads", str(UPLOADS))
        with ExitStack() as stack:
            workers = []
            for _ in range(number):
                directory = self.directory / str(next(_number))
                workers.append(stack.enter_context(processes.worker(directory, *options)))
            urls = [w.url for w in workers]
            cluster = stack.enter_context(crossdock.connect(urls, token=workers[0].token))
            job = cluster.job("bench", owner="runner")
            try:
                yield workers, job
            finally:
                job.end()
                self.bucket.empty()

    @contextmanager
    def counted(self) -> Iterator[tuple[CountingProxy, WorkerProcess, crossdock.Job]]:
        """Run a worker whose store is behind a proxy that counts, from now on."""
        server = self.bucket.server
        with CountingProxy(server.endpoint) as proxy:
            behind = s3.Bucket(replace(server, endpoint=proxy.endpoint))
            with self.workers(bucket=behind) as ((worker,), job):
                proxy.begin()
                yield proxy, worker, job

    def opened(self, published: Published) -> StoreView:
        return crossdock.open_view(
            published.store, published.job, published.shuffle, published.view,
            store_options=self.bucket.options,
        )  # fmt: skip

    def manifest(self, published: Published) -> Manifest:
        with self.opened(published) as view:
            return view.manifest


def pushed(
    worker: WorkerProcess, job: crossdock.Job, *, maps: int, partitions: int, total: int
) -> crossdock.View:
    """Push prebuilt frames of all partitions, one a map, and return the view of them."""
    piece = total // maps // partitions
    prebuilt = PrebuiltFrame(
        payload_bytes=piece * partitions, piece_bytes=piece, partitions=partitions
    )
    name = f"s{next(_number)}"
    path = f"{names.shuffle_path('bench', name, 0)}/frames"
    load.push_to_worker(worker.url, worker.token, path, prebuilt, range(maps))()
    return job.shuffle(name, partitions=partitions, maps=maps).view()


def writes_per_gib(bench: Bench) -> tuple[float, str]:
    """Write requests for each GiB, M = P = 2,000."""
    with bench.counted() as (proxy, worker, job):
        view = pushed(worker, job, maps=2000, partitions=2000, total=bench.total)
        view.persist()
        made, nbytes = proxy.writes, int(view.bytes.sum())
    return made / (nbytes / GIB), f"{made} writes for {nbytes / GIB:.2f} GiB"


def write_flatness(bench: Bench) -> tuple[float, str]:
    """Writes with P = 20,000 ÷ writes with P = 100."""
    made = {}
    for partitions in (20_000, 100):
        with bench.counted() as (proxy, worker, job):
            pushed(worker, job, maps=200, partitions=partitions, total=bench.total).persist()
            made[partitions] = proxy.writes
    return made[20_000] / made[100], f"{made[20_000]} and {made[100]} writes"


def run_length(bench: Bench) -> tuple[float, str]:
    """Median of contiguous bytes of one partition in a segment, weighted by bytes."""
    partitions, maps = 500, 64
    data = np.random.default_rng(0).bytes(bench.total // maps)
    lengths = np.full(partitions, len(data) // partitions)
    data = data[: int(lengths.sum())]
    with bench.workers(2) as (_, job):
        shuffle = job.shuffle("runs", partitions=partitions, maps=maps)
        for m in range(maps):
            with shuffle.writer(map_id=m, attempt=0) as writer:
                writer.write_batch(np.arange(partitions), data, lengths)
        manifest = bench.manifest(shuffle.view().persist())
    b = manifest.batches[manifest.batches["first_partition"] == manifest.batches["last_partition"]]
    keys = b["segment"].astype(np.int64) << 32 | b["first_partition"]
    _, at = np.unique(keys, return_inverse=True)
    runs = np.sort(np.bincount(at, b["nbytes"]))
    median = float(runs[np.searchsorted(np.cumsum(runs), runs.sum() / 2)]) / MIB
    return median, f"{len(runs)} runs, {runs.min() / MIB:.2f}-{runs.max() / MIB:.2f} MiB"


def persist_speed(bench: Bench) -> Figure:
    """Persisting against boto3's own upload of one file of the same size."""
    file = bench.directory / "baseline"
    block = np.random.default_rng(0).bytes(8 * MIB)
    with file.open("wb") as out:
        for _ in range(bench.total // len(block)):
            out.write(block)
    with bench.workers() as (workers, job):

        def ours() -> float:
            maps = bench.total // (8 * MIB)
            view = pushed(workers[0], job, maps=maps, partitions=128, total=bench.total)
            began = time.perf_counter()
            view.persist()
            seconds = time.perf_counter() - began
            view.shuffle.release()
            bench.bucket.empty()
            return bench.total / MIB / seconds

        def theirs() -> float:
            began = time.perf_counter()
            bench.bucket.upload(file, part_bytes=SEGMENT_BYTES, parallel=UPLOADS)
            seconds = time.perf_counter() - began
            bench.bucket.empty()
            return bench.total / MIB / seconds

        return alternate("persist_ratio", ours, theirs, runs=bench.runs, unit="MiB/s")


def cold_read(bench: Bench) -> Figure:
    """Reading all partitions from the store against boto3 downloading the same segments."""
    with bench.workers() as (workers, job):
        maps = bench.total // (8 * MIB)
        published = pushed(workers[0], job, maps=maps, partitions=128, total=bench.total).persist()
        keys = [segment.key for segment in bench.manifest(published).segments]

        def ours() -> float:
            began = time.perf_counter()
            with bench.opened(published) as view:
                got = sum(batch.nbytes for batch in view.read_batches())
            return got / MIB / (time.perf_counter() - began)

        def theirs() -> float:
            began = time.perf_counter()
            got = bench.bucket.download(keys, part_bytes=16 * MIB, parallel=4)
            return got / MIB / (time.perf_counter() - began)

        return alternate("cold_read_ratio", ours, theirs, runs=bench.runs, unit="MiB/s")


def small_job(bench: Bench) -> tuple[float, str]:
    """Requests, of any kind, of a job of 100 MiB that nobody persists."""
    with bench.counted() as (proxy, worker, job):
        view = pushed(worker, job, maps=100, partitions=16, total=100 * MIB)
        got = sum(batch.nbytes for batch in view.read_batches())
        counts = proxy.counts
    what = ", ".join(f"{number} {verb}" for verb, number in counts.items())
    return counts.total(), f"{got / MIB:.0f} MiB written and read; {what or 'nothing asked'}"


def worker_memory(bench: Bench) -> tuple[float, str]:
    """Peak of the worker's own memory while it persists one partition of twice the size."""
    with bench.workers() as (workers, job):
        worker = workers[0]
        total = 2 * bench.total
        view = pushed(worker, job, maps=total // (8 * MIB), partitions=1, total=total)
        before, peaks, done = worker.memory_bytes, [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peaks.append(worker.memory_bytes)

        watcher = threading.Thread(target=watch)
        watcher.start()
        view.persist()
        done.set()
        watcher.join()
    return max(peaks) / MIB, f"{total / GIB:.1f} GiB; {before / MIB:.0f} MiB before"


def reread(bench: Bench) -> tuple[float, str]:
    """Bytes that come twice when the link is cut in the middle of a run of 64 MiB."""
    total = 64 * MIB
    with bench.workers() as (workers, job), cutting.link(bench.bucket.server.endpoint) as link:
        view = pushed(workers[0], job, maps=total // MIB, partitions=1, total=total)
        published = view.persist()
        options = replace(bench.bucket.options, endpoint_url=link.endpoint)
        came = []
        for cut_at in (None, total * 3 // 8):  # where no range happens to end
            with crossdock.open_view(
                published.store, published.job, published.shuffle, published.view,
                store_options=options, options=crossdock.Options(store_hedge_seconds=60),
            ) as stored:  # fmt: skip
                link.begin(cut_at=cut_at)
                assert sum(batch.nbytes for batch in stored.read_batches()) == total
                came.append(link.received_bytes)
        assert link.cuts == 1
    return came[1] - came[0], f"{came[0]} bytes without a cut, {came[1]} with one; block {MIB}"


AMOUNTS: dict[str, Callable[[Bench], tuple[float, str]]] = {
    "writes_per_gib": writes_per_gib,
    "write_flatness": write_flatness,
    "run_length_median_mib": run_length,
    "small_job_requests": small_job,
    "reread_bytes": reread,
    "worker_rss_mib": worker_memory,
}
RATIOS: dict[str, Callable[[Bench], Figure]] = {
    "persist_ratio": persist_speed,
    "cold_read_ratio": cold_read,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.add_argument("--only", nargs="*", default=[], metavar="KEY")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--gib", type=float, default=4.0, help="GiB that are persisted")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="crossdock-bench-") as directory,
        s3.bucket(Path(directory) / "s3") as bucket,
    ):
        bench = Bench(Path(directory), bucket, arguments.runs, arguments.gib)
        for key, amount in AMOUNTS.items():
            if not arguments.only or key in arguments.only:
                value, raw = amount(bench)
                figures[key] = round(value, 2)
                print(f"{key:22} {value:7.2f}   {raw}", flush=True)
        for key, measure in RATIOS.items():
            if not arguments.only or key in arguments.only:
                figure = measure(bench)
                figures[key] = round(figure.ratio, 3)
                print(figure.show(), flush=True)
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
