"""What a job takes, by tier, and what it may take."""

import re
from pathlib import Path

import pytest
from persisted import objects

import crossdock
from harness import QUICK, StartWorker, WorkerProcess, connect_all, eventually

SIZE = 30_000


@pytest.fixture
def worker(start_worker: StartWorker, tmp_path: Path) -> WorkerProcess:
    return start_worker(
        store=(tmp_path / "store").as_uri(), drain_grace_seconds=0, eager_quiet_seconds=3600,
        job_store_quota_bytes=10 * SIZE, store_settle_seconds=1,
    )  # fmt: skip


def write(shuffle: crossdock.Shuffle, map_id: int, size: int = SIZE) -> None:
    with shuffle.writer(map_id=map_id, attempt=0) as writer:
        writer.write(0, bytes(size), rows=1)


def gauges(worker: WorkerProcess, label: str, name: str) -> dict[str, float]:
    text = worker.request("GET", "/metrics").body.decode()
    found = re.findall(rf'^crossdock_{label}_bytes{{{label}="{name}",tier="(\w+)"}} (\S+)$', text,
                       re.MULTILINE)  # fmt: skip
    return {tier: float(value) for tier, value in found}


def test_bytes_are_told_by_tier_job_and_tenant(worker: WorkerProcess, job_uid: str) -> None:
    with connect_all([worker]) as cluster:
        jobs = [
            cluster.job(f"{job_uid}-{n}", owner="runner", tenant="acme" if n else "")
            for n in range(3)
        ]
        for job in jobs:
            shuffle = job.shuffle("words", partitions=1)
            write(shuffle, 0)
            write(shuffle, 1)
        jobs[2].shuffle("words", partitions=1).view({0: 0}).persist()
        for n, job in enumerate(jobs):
            found = gauges(worker, "job", job.uid)
            assert found["disk"] == worker.job_bytes(job.uid) > 2 * SIZE
            assert (found["freed"], found["store"]) == (0, SIZE if n == 2 else 0)
            described = worker.get_json(f"/v1/jobs/{job.uid}")["store"]
            assert described["stored_bytes"] == found["store"]
        acme = gauges(worker, "tenant", "acme")
        assert acme["store"] == SIZE
        assert acme["disk"] == sum(worker.job_bytes(job.uid) for job in jobs[1:])
        jobs[2].shuffle("words", partitions=1).release()
        eventually(lambda: gauges(worker, "job", jobs[2].uid)["store"] == 0)
        worker.restart()
        assert gauges(worker, "job", jobs[1].uid)["disk"] == worker.job_bytes(jobs[1].uid)


@pytest.mark.parametrize("own", [2 * SIZE, 0], ids=["the job's", "the worker's"])
def test_the_store_has_a_quota_of_its_own(
    worker: WorkerProcess, tmp_path: Path, job_uid: str, own: int
) -> None:
    quota = own or 10 * SIZE
    with connect_all([worker]) as cluster:
        job = cluster.job(job_uid, owner="runner", store_quota_bytes=own)
        shuffle = job.shuffle("words", partitions=1)
        for map_id in range(quota // SIZE + 1):
            write(shuffle, map_id)
        shuffle.view(dict.fromkeys(range(quota // SIZE), 0)).persist()
        with pytest.raises(crossdock.QuotaExceeded, match="in the store"):
            shuffle.view({quota // SIZE: 0}).persist()
        assert worker.get_json(f"/v1/jobs/{job_uid}")["store"]["stored_bytes"] == quota
        shuffle.release()
        eventually(
            lambda: worker.get_json(f"/v1/jobs/{job_uid}")["store"]["stored_bytes"] == 0,
            what="it counts until it is deleted",
        )  # fmt: skip
        later = job.shuffle("words", partitions=1, generation=1)
        write(later, 0)
        later.view({0: 0}).persist()


def test_what_must_be_in_the_store_before_its_ack_is_refused(
    worker: WorkerProcess, tmp_path: Path, job_uid: str
) -> None:
    with connect_all([worker], options=QUICK) as cluster:
        job = cluster.job(job_uid, owner="runner", store_quota_bytes=SIZE, persistence="BeforeAck")
        shuffle = job.shuffle("words", partitions=1)
        write(shuffle, 0)
        before = objects(tmp_path / "store")
        with pytest.raises(crossdock.QuotaExceeded):
            write(shuffle, 1)
        assert objects(tmp_path / "store") == before


def test_a_worker_counts_what_an_earlier_process_has_stored(
    worker: WorkerProcess, job_uid: str
) -> None:
    with connect_all([worker]) as cluster:
        job = cluster.job(job_uid, owner="runner", persistence="BeforeAck")
        write(job.shuffle("words", partitions=1), 0)
        assert gauges(worker, "job", job_uid)["store"] == SIZE
        worker.restart()
        assert gauges(worker, "job", job_uid)["store"] == SIZE
        job.shuffle("words", partitions=1).view({0: 0}).persist()
        eventually(lambda: gauges(worker, "job", job_uid)["store"] == SIZE, what="once, not twice")


def test_packing_adds_nothing_to_what_a_quota_counts(worker: WorkerProcess, job_uid: str) -> None:
    """Its frames have been counted since they were acked, with their log objects."""
    with connect_all([worker]) as cluster:
        job = cluster.job(
            job_uid, owner="runner", persistence="BeforeAck", store_quota_bytes=3 * SIZE
        )
        shuffle = job.shuffle("words", partitions=1)
        for map_id in range(3):
            write(shuffle, map_id)
        shuffle.view(dict.fromkeys(range(3), 0)).persist()
        eventually(lambda: gauges(worker, "job", job_uid)["store"] == 3 * SIZE)


def test_a_drain_loses_nothing_for_a_quota(worker: WorkerProcess, job_uid: str) -> None:
    with connect_all([worker]) as cluster:
        job = cluster.job(job_uid, owner="runner", store_quota_bytes=SIZE)
        shuffle = job.shuffle("words", partitions=1)
        for map_id in range(3):
            write(shuffle, map_id)
        assert worker.request("POST", "/v1/drain").status in {200, 202}
        eventually(lambda: worker.request("GET", "/v1/drain").status == 200, what="the drain")
        assert gauges(worker, "job", job_uid)["store"] == 3 * SIZE
