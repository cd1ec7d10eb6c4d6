"""Workers that come, go and fail beside reads and seals: nothing is lost that is not."""

import os
import shutil
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import open_job, options, write

from crossdock import Job, ShuffleMismatch, placement
from crossdock.blocks import Pieces
from crossdock.errors import Unavailable
from crossdock.http import Response
from crossdock.merging import Merge
from crossdock.pool import Pool
from crossdock.reader import Reader
from crossdock.wire.blocks import PieceColumns
from harness import StartWorker, WorkerProcess, connect_all, started_workers


def id_of(worker: WorkerProcess) -> str:
    return str(worker.get_json("/v1/workers")["self"]["id"])


def test_a_replica_is_read_when_a_disk_is_found_damaged() -> None:
    with started_workers(2) as workers, connect_all(workers) as cluster:
        job = cluster.job("damaged", owner="runner")
        shuffle = job.shuffle("copies", partitions=4, maps=2)
        for m in range(2):
            write(shuffle, m, replicas=2, size=200_000)
        view = shuffle.view({0: 0, 1: 0})
        expected = [(b.partition, b.map_id, bytes(b.data)) for b in view.read()]
        [serving] = {share.worker for share in view.shares}
        hurt = next(w for w in workers if id_of(w) == serving)
        [log] = hurt.data_dir.rglob("payload.log")
        os.truncate(log, 10)
        for each in (view, shuffle.view({0: 0, 1: 0})):
            assert [(b.partition, b.map_id, bytes(b.data)) for b in each.read()] == expected
        assert len(view.block_sizes(range(4))) == 8
        job.end()


def test_two_short_absences_with_nobody_asking_between_are_not_a_long_one(
    two_workers: list[WorkerProcess],
) -> None:
    worker, _ = two_workers
    patient = options(loss_after_seconds=30)
    with (
        connect_all(two_workers, options=patient) as cluster,
        cluster.job("absent", owner="runner", lease_seconds=600) as job,
    ):
        shuffle = job.shuffle("short", partitions=1, maps=1)
        write(shuffle, 0)
        worker.kill9()
        assert cluster.members(fresh=True).unreachable
        worker.start()
        clock = cluster._silences
        clock._known = {url: (s, until - 40) for url, (s, until) in clock._known.items()}
        worker.kill9()
        assert cluster.members(fresh=True).unreachable, "forty seconds in which nobody asked"
        worker.start()
        assert shuffle.view({0: 0}).winners == {0: 0}
        job.end()


class Stalled:
    """A stream of pieces for `Merge`; one that gets nothing, or one that always gets more."""

    def __init__(self, *, dry: bool) -> None:
        self.pending: deque[Pieces] = deque()
        self.ended = False
        self.dry = dry
        self.count = 0

    def advance(self) -> None:
        if not self.dry:
            self.count += 1
            one = np.array([self.count], np.uint32)
            none = np.zeros(1, np.uint32)
            columns = PieceColumns(
                one, none, np.zeros(1, np.uint64), none, none, none + 1, none, none
            )
            self.pending.append(Pieces(columns, np.zeros(1, np.int64), memoryview(b"x")))


def test_while_one_stream_gets_nothing_the_others_are_not_read_on() -> None:
    dry, wet = Stalled(dry=True), Stalled(dry=False)
    merge = Merge([dry, wet], Stalled.advance)
    for _ in range(100):
        assert merge.round() == []
    assert len(wet.pending) <= 1


@pytest.fixture
def sealed_job(two_workers: list[WorkerProcess]) -> Any:
    with connect_all(two_workers) as cluster, cluster.job("sealed", owner="runner") as job:
        ids = {id_of(w): w for w in two_workers}
        homes = [ids[h] for h in placement.ranked("seal/sealed/s/0", job.record.homes)]
        yield job, homes


SEAL = "/v1/jobs/sealed/shuffles/s/0/seal"


def test_a_seal_whose_copy_failed_is_copied_by_the_next_who_asks(sealed_job: Any) -> None:
    job, (first, second) = sealed_job
    shuffle = job.shuffle("s", partitions=1, maps=1)
    write(shuffle, 0, attempt=7, replicas=2)
    assert shuffle.view().winners == {0: 7}
    [copy] = second.data_dir.rglob("seal")
    copy.unlink()
    write(shuffle, 0, attempt=3, replicas=2)
    assert shuffle.view().winners == {0: 7}
    assert second.request("GET", SEAL).status == 200, "copied"
    first.kill9()
    shutil.rmtree(first.data_dir)
    first.start()
    assert shuffle.view().winners == {0: 7}


def test_a_seal_of_another_number_of_maps_is_no_answer(sealed_job: Any) -> None:
    job, _ = sealed_job
    write(job.shuffle("s", partitions=1, maps=1), 0)
    job.shuffle("s", partitions=1, maps=1).view()
    with pytest.raises(ShuffleMismatch, match="sealed with 1 maps, and 5 are asked for"):
        job.shuffle("s", partitions=1, maps=5).view()


def test_sparse_data_over_two_workers_take_few_requests(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, job_uid: str
) -> None:
    workers = [start_worker(), start_worker()]
    partitions = 4000
    for m, worker in enumerate(workers):
        with worker.connect() as cluster:
            job = cluster.job(job_uid, owner="runner", lease_seconds=600)
            with job.shuffle("sparse", partitions=partitions).writer(map_id=m, attempt=0) as writer:
                wanted = np.arange(m, partitions, 3 - m)
                writer.write_batch(wanted, bytes(8 * len(wanted)), np.full(len(wanted), 8))
    calls = []
    real: Callable[..., Response] = Pool.call

    def call(self: Pool, method: str, *rest: Any, **more: Any) -> Response:
        calls.append(method)
        return real(self, method, *rest, **more)

    with connect_all(workers) as cluster:
        view = cluster.job(job_uid).shuffle("sparse", partitions=partitions).view({0: 0, 1: 0})
        monkeypatch.setattr(Pool, "call", call)
        total = sum(batch.nbytes for batch in view.read_batches(range(2000)))
    assert total == int(view.bytes[:2000].sum())
    assert len(calls) <= 2 * (2000 // 64 + 1)


def test_a_batch_goes_on_at_its_byte_though_the_first_try_after_a_break_fails(
    worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch, job_uid: str
) -> None:
    with worker.connect() as cluster, cluster.job(job_uid, owner="runner") as job:
        shuffle = job.shuffle("broken", partitions=1, maps=1)
        write(shuffle, 0, size=20 * 2**20)
        view = shuffle.view({0: 0})
        skips: list[int] = []
        query, some, call = Reader.query, Response.read_some, Pool.call
        seen = {"reads": 0, "broken": 0}

        def noted(self: Reader, cursor: Any, *, skip: int) -> str:
            skips.append(skip)
            return query(self, cursor, skip=skip)

        def breaking(self: Response, target: memoryview) -> int:
            seen["reads"] += 1
            if seen["reads"] == 40:
                seen["broken"] = 1
                self._connection.close()
                raise Unavailable("cut")
            return some(self, target)

        def failing(self: Pool, *args: Any, **more: Any) -> Response:
            if seen["broken"] == 1 and "/blocks" in args[2]:
                seen["broken"] = 2
                raise Unavailable("still away")
            return call(self, *args, **more)

        monkeypatch.setattr(Reader, "query", noted)
        monkeypatch.setattr(Response, "read_some", breaking)
        monkeypatch.setattr(Pool, "call", failing)
        assert sum(b.nbytes for b in view.read_batches()) == int(view.bytes.sum())
        assert skips[0] == 0
        assert skips[1] == skips[2] > 0
        job.end()


def test_small_pieces_count_with_what_they_take(worker: WorkerProcess, job_uid: str) -> None:
    small = options(frame_bytes=2**20, buffer_bytes=2**20)
    with worker.connect(options=small) as cluster, cluster.job(job_uid, owner="runner") as job:
        with job.shuffle("tiny", partitions=2).writer(map_id=0, attempt=0) as writer:
            for i in range(60_000):
                writer.write(i % 2, b"8 bytes.")
                assert writer._buffered <= 2**20 + 2**10
        frames = worker.get_json(f"/v1/jobs/{job_uid}")["shuffles"][0]["frames"]
        assert frames >= 60_000 * 100 // 2**20, "480 kB that take about 7 MB"
        job.end()


def test_homes_that_nobody_has_heard_of_are_away_and_not_lost() -> None:
    """The third worker forgot the others when it started again, and the client never met them."""
    patient = options(loss_after_seconds=60, deadline_seconds=0.6)
    with started_workers(3) as workers, open_job(workers) as job:
        shuffle = job.shuffle("s", partitions=2, maps=1)
        write(shuffle, 0, 9, replicas=3)
        homes = [w for _, w in ranked_homes(job, "s", workers)]
        sealed = shuffle.view()
        write(shuffle, 0, 1, replicas=3)  # would be chosen by whoever chooses now
        third = homes[2]
        for worker in homes:
            worker.kill9()
        third.options.pop("peers", None)
        third.start()
        with connect_all([third], options=patient) as cluster, cluster.job(job.uid) as alone:
            other = alone.shuffle("s", partitions=2, maps=1)
            with pytest.raises(Unavailable, match="home of the seal"):
                other.view()
            with pytest.raises(Unavailable, match="not where they can be seen"):
                other.view({0: 5})
        for worker in homes[:2]:
            worker.start()
        assert shuffle.view().id == sealed.id


def ranked_homes(
    job: Job, name: str, workers: list[WorkerProcess]
) -> list[tuple[str, WorkerProcess]]:
    infos = job.cluster.members(fresh=True).reachable
    by_url = {w.url: w for w in workers}
    ranked = placement.ranked(f"seal/{job.uid}/{name}/0", job.record.homes)
    return [(home, by_url[infos[home].url]) for home in ranked]
