"""How fast the data plane is, as ratios to what bare Python does on the same machine.

    .venv/bin/python benchmarks/dataplane.py --json [--only KEY …] [--runs N]

One worker process, two client connections, both on loopback, memory as storage. Each figure is
the median over alternating runs. `docs/benchmarks.md` says what the keys mean.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from support import load, processes
from support.load import PrebuiltFrame
from support.measure import MIB, Figure, alternate, in_threads
from support.processes import WorkerProcess

import crossdock
from crossdock.wire import names

FRAME_BYTES = 8 * MIB
CONNECTIONS = 2
_number = count()


class Bench:
    """What the figures share: a directory in memory and the number of runs."""

    def __init__(self, directory: Path, runs: int) -> None:
        self.directory = directory
        self.runs = runs

    def fresh(self) -> Path:
        return self.directory / str(next(_number))

    @contextmanager
    def job(self, *workers: WorkerProcess) -> Iterator[crossdock.Job]:
        """Register the benchmark's job; end it afterwards, so that its memory is free."""
        urls = [w.url for w in workers]
        with crossdock.connect(urls, token=workers[0].token) as cluster:
            job = cluster.job("bench", owner="runner")
            yield job
            job.end()


def halves(total: int) -> list[range]:
    return [range(total * i // CONNECTIONS, total * (i + 1) // CONNECTIONS)
            for i in range(CONNECTIONS)]  # fmt: skip


def ingest(bench: Bench, key: str, piece_bytes: int) -> Figure:
    """Push prebuilt frames: the worker's whole path against recv_into + pwrite."""
    frames = 64
    prebuilt = PrebuiltFrame(payload_bytes=FRAME_BYTES, piece_bytes=piece_bytes, partitions=200)
    directory = bench.fresh()
    with (
        processes.worker(directory / "ours") as worker,
        processes.bare(directory / "bare") as port,
        bench.job(worker) as job,
    ):

        def ours() -> float:
            shuffle = job.shuffle(f"s{next(_number)}", partitions=200)
            path = f"{names.shuffle_path('bench', shuffle.key.name, 0)}/frames"
            rate = in_threads(
                [
                    load.push_to_worker(worker.url, worker.token, path, prebuilt, maps)
                    for maps in halves(frames)
                ]
            )
            shuffle.release()
            return rate

        def theirs() -> float:
            rate = in_threads([load.push_to_bare(port, prebuilt, m) for m in halves(frames)])
            load.clear_bare(port)
            return rate

        return alternate(key, ours, theirs, runs=bench.runs, unit="MiB/s")


def read(
    bench: Bench,
    key: str,
    *,
    maps: int,
    partitions: int,
    piece_bytes: int,
    pieces: int,
    at_once: int,
) -> Figure:
    """Read all partitions, verified, against bare sendfile of the same number of bytes.

    Every map has one frame with `pieces` pieces of each partition; `at_once` partitions are
    asked for in one read.
    """
    prebuilt = PrebuiltFrame(
        payload_bytes=partitions * pieces * piece_bytes,
        piece_bytes=piece_bytes,
        partitions=partitions,
    )
    directory = bench.fresh()
    with (
        processes.worker(directory / "ours") as worker,
        processes.bare(directory / "bare") as port,
        bench.job(worker) as job,
    ):
        shuffle = job.shuffle("read", partitions=partitions, maps=maps)
        path = f"{names.shuffle_path('bench', 'read', 0)}/frames"
        load.push_to_worker(worker.url, worker.token, path, prebuilt, range(maps))()
        load.push_to_bare(port, prebuilt, range(maps))()
        view = shuffle.view()
        total = int(view.bytes.sum())

        def read_view(wanted: range) -> int:
            reads = [wanted[i : i + at_once] for i in range(0, len(wanted), at_once)]
            return sum(batch.nbytes for r in reads for batch in view.read_batches(r))

        def ours() -> float:
            return in_threads([partial(read_view, part) for part in halves(partitions)])

        def theirs() -> float:
            return in_threads([load.read_from_bare(port, total // CONNECTIONS)] * CONNECTIONS)

        return alternate(key, ours, theirs, runs=bench.runs, unit="MiB/s")


def skew(bench: Bench) -> Figure:
    """Ingest over two workers: all data in one partition against an even spread."""
    partitions, pieces = 200, FRAME_BYTES // (64 * 1024)
    data = np.random.default_rng(0).bytes(FRAME_BYTES)
    even = np.sort(np.arange(pieces) % partitions)
    hot = np.zeros(pieces, np.int64)
    directory = bench.fresh()
    with (
        processes.worker(directory / "a") as a,
        processes.worker(directory / "b") as b,
        bench.job(a, b) as job,
    ):

        def push(partition: np.ndarray) -> float:
            shuffle = job.shuffle(f"s{next(_number)}", partitions=partitions)
            lengths = np.full(pieces, 64 * 1024)

            def write(map_id: int) -> int:
                with shuffle.writer(map_id=map_id, attempt=0) as writer:
                    for _ in range(64):
                        writer.write_batch(partition, data, lengths)
                return 64 * FRAME_BYTES

            rate = in_threads([partial(write, m) for m in range(CONNECTIONS)])
            shuffle.release()
            return rate

        return alternate(
            "skew_ratio", lambda: push(hot), lambda: push(even), runs=bench.runs, unit="MiB/s"
        )


def rss_growth(bench: Bench) -> tuple[float, str]:
    """Growth of the worker's memory while 4 GiB are offered at 10 times its in-flight limit."""
    limit, total = 64 * MIB, 4096 * MIB
    connections = 10 * limit // FRAME_BYTES
    prebuilt = PrebuiltFrame(payload_bytes=FRAME_BYTES, piece_bytes=64 * 1024, partitions=200)
    maps = iter(range(total // FRAME_BYTES))
    lock = threading.Lock()
    refused = 0
    with tempfile.TemporaryDirectory(prefix="crossdock-bench-") as on_disk:
        options = ("--max-inflight-bytes", str(limit))
        with processes.worker(Path(on_disk), *options) as worker, bench.job(worker) as job:
            path = f"{names.shuffle_path('bench', 'rss', 0)}/frames"
            before = worker.memory_bytes
            peak = before
            done = threading.Event()

            def push() -> int:
                nonlocal refused
                pushed = 0
                while True:
                    with lock:
                        map_id = next(maps, None)
                    if map_id is None:
                        return pushed
                    one = range(map_id, map_id + 1)
                    while True:
                        try:
                            pushed += load.push_to_worker(
                                worker.url, worker.token, path, prebuilt, one
                            )()
                            break
                        except RuntimeError:
                            with lock:
                                refused += 1
                            time.sleep(0.02)  # what Retry-After asks for, in short

            def watch() -> None:
                nonlocal peak
                while not done.wait(0.02):
                    peak = max(peak, worker.memory_bytes)

            watcher = threading.Thread(target=watch)
            watcher.start()
            rate = in_threads([push] * connections)
            done.set()
            watcher.join()
            job.shuffle("rss", partitions=200).release()
    growth = (peak - before) / MIB
    raw = f"from {before / MIB:.1f} to {peak / MIB:.1f} MiB, {refused} push-backs, {rate:.0f} MiB/s"
    return growth, raw


def index_bytes(bench: Bench) -> tuple[float, str]:
    """Worker memory per block at 1 M blocks, with a view registered and read from."""
    maps, partitions, piece_bytes = 1000, 1000, 64
    prebuilt = PrebuiltFrame(
        payload_bytes=partitions * piece_bytes, piece_bytes=piece_bytes, partitions=partitions
    )
    with (
        tempfile.TemporaryDirectory(prefix="crossdock-bench-") as on_disk,
        processes.worker(Path(on_disk)) as worker,
        bench.job(worker) as job,
    ):
        warm = f"{names.shuffle_path('bench', 'warm', 0)}/frames"
        load.push_to_worker(worker.url, worker.token, warm, prebuilt, range(10))()
        before = worker.memory_bytes
        path = f"{names.shuffle_path('bench', 'index', 0)}/frames"
        load.push_to_worker(worker.url, worker.token, path, prebuilt, range(maps))()
        view = job.shuffle("index", partitions=partitions, maps=maps).view()
        blocks = sum(1 for _ in view.read(500))
        assert blocks == maps
        after = worker.memory_bytes
    growth = after - before
    return growth / (maps * partitions), f"{growth} bytes for {maps * partitions} blocks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.add_argument("--only", nargs="*", default=[], metavar="KEY")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 -- page cache without a disk
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="crossdock-bench-", dir=memory) as directory:
        bench = Bench(Path(directory), arguments.runs)
        ratios: dict[str, Callable[[], Figure]] = {
            "ingest_ratio": lambda: ingest(bench, "ingest_ratio", 64 * 1024),
            "ingest_small_ratio": lambda: ingest(bench, "ingest_small_ratio", 1024),
            "serve_ratio": lambda: read(
                bench,
                "serve_ratio",
                maps=100,
                partitions=16,
                piece_bytes=64 * 1024,
                pieces=8,
                at_once=1,
            ),
            "serve_range_ratio": lambda: read(
                bench,
                "serve_range_ratio",
                maps=100,
                partitions=128,
                piece_bytes=64 * 1024,
                pieces=1,
                at_once=64,
            ),
            "gather_small_ratio": lambda: read(
                bench,
                "gather_small_ratio",
                maps=1000,
                partitions=512,
                piece_bytes=1024,
                pieces=1,
                at_once=256,
            ),
            "skew_ratio": lambda: skew(bench),
        }
        amounts = {
            "rss_growth_mib": lambda: rss_growth(bench),
            "index_bytes_per_block": lambda: index_bytes(bench),
        }
        for key, measure in ratios.items():
            if not arguments.only or key in arguments.only:
                figure = measure()
                figures[key] = round(figure.ratio, 3)
                print(figure.show(), flush=True)
        for key, amount in amounts.items():
            if not arguments.only or key in arguments.only:
                value, raw = amount()
                figures[key] = round(value, 2)
                print(f"{key:22} {value:7.2f}   {raw}", flush=True)
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
