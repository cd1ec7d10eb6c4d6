"""Storms: a store that refuses one verb for a minute makes a worker slow, and loses nothing."""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from faults import Answer, FaultyProxy, Forward, Request, error
from servers import S3Server, s3_options

import crossdock
from crossdock.store.api import Verb
from crossdock.store.opening import open_store
from harness import WorkerProcess, connect_all, eventually

SECONDS: Final = float(os.environ.get("CROSSDOCK_STORM_SECONDS", "60"))
MAPS, PARTITIONS = 4, 5
URL: Final = "s3://shuffles/storms"
USED: Final = (Verb.PUT, Verb.GET, Verb.LIST, Verb.LIST_UPLOADS, Verb.DELETE)
"""By workers: what they write has a known length, and goes by one request."""
CLIENT: Final = crossdock.Options(
    frame_bytes=2**17, buffer_bytes=2**20, deadline_seconds=3 * SECONDS + 60,
    loss_after_seconds=3 * SECONDS + 60, connect_seconds=2,
)  # fmt: skip
Blocks = list[tuple[int, int, bytes, int]]


class Storm:
    """Refuses a verb from `begin` on for a while."""

    def __init__(self) -> None:
        self.refused = 0
        self._until = 0.0

    def begin(self) -> None:
        self._until = time.monotonic() + SECONDS

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self._until

    def __call__(self, request: Request, forward: Forward) -> Answer:
        if self.is_over:
            return forward(request)
        self.refused += 1
        return error(503, "SlowDown")


def written(job: crossdock.Job, name: str) -> crossdock.Shuffle:
    rng = random.Random(name)
    shuffle = job.shuffle(name, partitions=PARTITIONS, maps=MAPS)
    for m in range(MAPS):
        with shuffle.writer(map_id=m, attempt=0) as writer:
            for p in range(PARTITIONS):
                writer.write(p, rng.randbytes(rng.randrange(200_000)), rows=p)
    return shuffle


def blocks_of(view: crossdock.View) -> Blocks:
    return [(b.partition, b.map_id, bytes(b.data), b.rows) for b in view.read()]


@pytest.fixture
def proxy(versitygw: S3Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(versitygw.endpoint) as found:
        yield found


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("verb", USED)
def test_a_storm_makes_a_worker_slow_and_loses_nothing(
    verb: Verb, versitygw: S3Server, proxy: FaultyProxy, tmp_path: Path, job_uid: str
) -> None:
    storm = Storm()
    proxy.fail(verb, storm, times=10**9)
    options = s3_options(versitygw)
    worker = WorkerProcess(
        options={
            "store": URL,
            "store_option": [
                f"endpoint_url={proxy.endpoint}", f"region={options.region}", "path_style=true",
            ],
            "segment_bytes": 2**20 + 2**19, "max_frame_bytes": 2**18,
            "store_settle_seconds": 0.5, "eager_quiet_seconds": 0.5,
        },
        directory=tmp_path,
    )  # fmt: skip
    winners = dict.fromkeys(range(MAPS), 0)
    with (
        worker.start(),
        connect_all([worker], options=CLIENT) as cluster,
        cluster.job(job_uid, owner="runner") as job,
        cluster.job(f"{job_uid}-acks", owner="runner", persistence="BeforeAck") as acks,
    ):
        asked = written(job, "asked")
        expected = blocks_of(asked.view(winners))
        storm.begin()
        killer = threading.Timer(SECONDS / 10, worker.restart)
        killer.start()
        asked.view(winners).persist()  # rides out both
        killer.join()
        acked = written(acks, "acked")
        acked_blocks = blocks_of(acked.view(winners))

        def packed() -> bool:
            with closing(open_store(URL, options)) as store:
                keys = [info.key for info in store.list("") if job_uid in info.key]
            return not any(k.endswith(".log") or "/intents/" in k for k in keys)

        eventually(packed, seconds=3 * SECONDS + 60, what="the end of logs and intents", pause=0.5)
        storm.begin()  # and once more for who reads the store through a worker
        worker.kill9()
        worker.data_dir.rename(worker.data_dir.with_name("aside"))
        worker.start()
        for each in (job, acks):
            each.introduce(worker.url)
        assert blocks_of(asked.view(winners)) == expected
        assert blocks_of(acked.view(winners)) == acked_blocks
    assert storm.refused, "the storm met nobody"
