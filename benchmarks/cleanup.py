"""What deleting a job costs, how fast it is, and what memory a sweep takes.

    .venv/bin/python benchmarks/cleanup.py --json [--only KEY …] [--runs N] [--objects N]

versitygw on loopback. `docs/benchmarks.md` says what the keys mean.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from support import processes, s3
from support.measure import MIB, Figure, alternate

import crossdock
from crossdock.cleanup.deleting import DeletionOptions, NoWorkers, delete_job
from crossdock.lifecycle.stopping import Ender
from crossdock.lifecycle.timing import Timing
from crossdock.store.layout import ShuffleLayout
from crossdock.store.opening import open_store
from crossdock.views import ShuffleKey

HERE = Path(__file__).parent
PER_TEN_THOUSAND = 10_000
WRITERS = 16
_number = count()

SWEEP = """
import json, resource, sys
from crossdock.cleanup.cli import run_audit
import typer
app = typer.Typer()
app.command()(run_audit)
app(sys.argv[1:], standalone_mode=False)
print(json.dumps({"kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


class Bench:
    """What the figures share."""

    def __init__(self, directory: Path, bucket: s3.Bucket, runs: int, objects: int) -> None:
        self.directory = directory
        self.bucket = bucket
        self.runs = runs
        self.objects = objects

    def fill(self, job: str) -> str:
        """Write as many small objects as a job may have; return their prefix."""
        store = open_store(self.bucket.url, self.bucket.options)
        layout = ShuffleLayout.of("bench", ShuffleKey(job, "words", 0))
        with ThreadPoolExecutor(WRITERS) as pool:
            keys = (layout.segment("run", n) for n in range(self.objects))
            list(pool.map(lambda key: store.put(key, b"x"), keys))
        store.close()
        return f"bench/{job}/"


def deleting(bench: Bench) -> tuple[Figure, float]:
    """Seconds of a deletion, and of boto3 listing and deleting the same page by page."""
    prefix = bench.bucket.url.removeprefix(f"s3://{bench.bucket.server.bucket}/")

    def ours() -> float:
        job = f"ours-{next(_number)}"
        bench.fill(job)
        store = open_store(bench.bucket.url, bench.bucket.options)
        options = DeletionOptions(
            cluster="bench", store=lambda: store, deadline_seconds=600,
            timing=Timing(settle_seconds=0, relist_seconds=0),
        )  # fmt: skip
        next(iter(store.list("none/")), None)  # a client takes tenths of a second to make
        began = time.perf_counter()
        done = delete_job(job, NoWorkers(), options, ender=Ender.OWNER, lease_seconds=0)
        seconds = time.perf_counter() - began
        assert done.objects == bench.objects
        store.close()
        return seconds

    def theirs() -> float:
        below = f"{prefix}/{bench.fill(f'theirs-{next(_number)}')}"
        client, bucket = bench.bucket.client(), bench.bucket.server.bucket
        client.list_objects_v2(Bucket=bucket, Prefix="none/")
        began = time.perf_counter()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=below)
        for page in pages:
            keys = [{"Key": each["Key"]} for each in page.get("Contents", ())]
            if keys:
                client.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        return time.perf_counter() - began

    figure = alternate("delete_ratio", ours, theirs, runs=bench.runs, unit="s")
    return figure, statistics.median(figure.ours) * PER_TEN_THOUSAND / bench.objects


def requests_of_one(bench: Bench) -> tuple[float, str]:
    """Requests to the store for the end of a job of one segment."""
    options = crossdock.Options(store=bench.bucket.url, store_settle_seconds=0.1)
    directory = bench.directory / "worker"
    with (
        processes.worker(directory, *bench.bucket.worker_options) as worker,
        crossdock.connect(
            [worker.url], token=worker.token, options=options, store_options=bench.bucket.options
        ) as cluster,
    ):
        job = cluster.job("bench", owner="runner")
        shuffle = job.shuffle("words", partitions=4, maps=1)
        with shuffle.writer(map_id=0) as writer:
            for partition in range(4):
                writer.write(partition, b"word", rows=1)
        shuffle.view().persist()
        done = job.end()
    return done.requests, f"{done.objects} objects"


def sweep_memory(bench: Bench) -> tuple[float, str]:
    """Peak memory of `crossdock audit` over a million objects, all orphans."""
    objects = 100 * bench.objects
    stub = subprocess.Popen(
        [sys.executable, "-m", "support.listing", str(objects)],
        stdout=subprocess.PIPE, text=True, cwd=HERE,
    )  # fmt: skip
    assert stub.stdout is not None
    try:
        port = int(stub.stdout.readline())
        settings = (f"endpoint_url=http://127.0.0.1:{port}", "region=x", "path_style=true")
        arguments = [part for each in settings for part in ("--store-option", each)]
        done = subprocess.run(
            [sys.executable, "-c", SWEEP, "--store", "s3://bucket/prefix", "--cluster", "bench",
             "--live", "", "--json", *arguments],
            stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ),
        )  # fmt: skip
    finally:
        stub.kill()
        stub.wait()
        stub.stdout.close()
    audit, memory = map(json.loads, done.stdout.splitlines())
    assert audit["left"]["orphan"]["objects"] == objects
    return memory["kib"] * 1024 / MIB, f"{objects} objects in {audit['seconds']:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.add_argument("--only", nargs="*", default=[], metavar="KEY")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--objects", type=int, default=10_000, help="that a job has")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    amounts: dict[str, Callable[[Bench], tuple[float, str]]] = {
        "requests_per_deleted_job": requests_of_one,
        "sweep_rss_mib": sweep_memory,
    }
    with (
        tempfile.TemporaryDirectory(prefix="crossdock-bench-") as directory,
        s3.bucket(Path(directory) / "s3") as bucket,
    ):
        bench = Bench(Path(directory), bucket, arguments.runs, arguments.objects)
        for key, amount in amounts.items():
            if not arguments.only or key in arguments.only:
                value, raw = amount(bench)
                figures[key] = round(value, 2)
                print(f"{key:26} {value:7.2f}   {raw}", flush=True)
        if not arguments.only or {"delete_ratio", "delete_s_per_10k_objects"} & {*arguments.only}:
            figure, seconds = deleting(bench)
            figures["delete_ratio"] = round(figure.ratio, 3)
            figures["delete_s_per_10k_objects"] = round(seconds, 3)
            print(figure.show(), flush=True)
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
