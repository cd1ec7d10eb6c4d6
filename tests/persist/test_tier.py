"""Readers go on from the store when workers are gone, and their callers do not notice."""

from pathlib import Path

import pytest
from persisted import blocks_of, write

import crossdock
from crossdock import BlocksLost
from harness import StartWorker, WorkerProcess, connect_all, started_workers


@pytest.fixture
def store(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def workers(start_worker: StartWorker, store: str) -> list[WorkerProcess]:
    options = {"store": store, "segment_bytes": 2 * 2**20, "max_frame_bytes": 2**20}
    return [start_worker(**options) for _ in range(2)]


def connected(workers: list[WorkerProcess], store: str) -> crossdock.Cluster:
    options = crossdock.Options(
        frame_bytes=2**18, buffer_bytes=2**20, deadline_seconds=60, loss_after_seconds=1,
        connect_seconds=1, store=store, read_batch_bytes=2**20,
    )  # fmt: skip
    return connect_all(workers, options=options)


def test_a_read_goes_on_from_the_store_when_all_workers_die(
    workers: list[WorkerProcess], store: str, job_uid: str
) -> None:
    with connected(workers, store) as cluster, cluster.job(job_uid, owner="runner") as job:
        shuffle = job.shuffle("killed", partitions=30, maps=10)
        for m in range(10):
            write(shuffle, m)
        view = shuffle.view()
        expected = blocks_of(view)
        view.persist()
        reading = view.read()
        found = [next(reading) for _ in range(20)]
        for worker in workers:
            worker.kill9()
        found += reading
        assert [(b.partition, b.map_id, bytes(b.data), b.rows) for b in found] == expected
        assert blocks_of(view, partitions=range(3, 5), maps=range(2, 4)) == [
            b for b in expected if b[0] in {3, 4} and b[1] in {2, 3}
        ]


def test_a_view_made_later_merges_workers_with_the_store(
    workers: list[WorkerProcess], store: str, job_uid: str
) -> None:
    winners = dict.fromkeys(range(8), 0)
    with connected(workers, store) as cluster, cluster.job(job_uid, owner="runner") as job:
        shuffle = job.shuffle("later", partitions=12, maps=8)
        for m in range(8):
            write(shuffle, m)
        view = shuffle.view(winners)
        sizes, blocks = view.block_sizes(range(12)).tolist(), view.blocks.tolist()
        expected = blocks_of(view)
        view.persist()
        workers[0].kill9()
        write(shuffle, 3, attempt=1)
        again = shuffle.view(winners)
        assert again.id == view.id
        assert (again.bytes == view.bytes).all()
        assert again.blocks.tolist() == blocks
        assert again.block_sizes(range(12)).tolist() == sizes
        assert blocks_of(again) == expected
        first = again.first_piece(5, 2)
        assert first is not None
        whole = next(data for p, m, data, _ in expected if (p, m) == (5, 2))
        assert whole.startswith(bytes(first))

        other = shuffle.view({**winners, 3: 1})  # part of what the dead worker's run has
        assert other.id != view.id
        assert [b for b in blocks_of(other) if b[1] != 3] == [b for b in expected if b[1] != 3]
        assert other.bytes.sum() == sum(len(b[2]) for b in blocks_of(other))
        published = other.persist()
        workers[1].kill9()
        with crossdock.open_view(published.store, job_uid, "later", published.view) as stored:
            assert [(b.partition, b.map_id) for b in stored.read()] == [
                (b[0], b[1]) for b in blocks_of(other)
            ]


def test_what_is_damaged_on_a_worker_is_read_from_the_store(
    start_worker: StartWorker, store: str, job_uid: str
) -> None:
    worker = start_worker(store=store)
    with connected([worker], store) as cluster, cluster.job(job_uid, owner="runner") as job:
        shuffle = job.shuffle("damaged", partitions=6, maps=4)
        for m in range(4):
            write(shuffle, m)
        view = shuffle.view()
        expected = blocks_of(view)
        view.persist()
        [log] = worker.data_dir.rglob("payload.log")
        with log.open("r+b") as file:
            file.seek(log.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))
        assert blocks_of(view) == expected
        assert blocks_of(shuffle.view()) == expected


def test_what_was_not_persisted_is_lost_by_its_exact_name(
    workers: list[WorkerProcess], store: str, job_uid: str
) -> None:
    with connected(workers, store) as cluster, cluster.job(job_uid, owner="runner") as job:
        shuffle = job.shuffle("part", partitions=4, maps=5)
        for m in range(3):
            write(shuffle, m)
        shuffle.view(dict.fromkeys(range(3), 0)).persist()
        for m in (3, 4):
            write(shuffle, m)
        for worker in workers:
            worker.kill9()
        with pytest.raises(BlocksLost) as caught:
            shuffle.view(dict.fromkeys(range(5), 0))
        assert [m.map_id for m in caught.value.missing] == [3, 4]
        assert len(blocks_of(shuffle.view(dict.fromkeys(range(3), 0)))) == 12


def test_a_damaged_segment_is_no_harm_while_a_worker_has_the_frames(
    store: str, job_uid: str
) -> None:
    with (
        started_workers(2, options={"store": store}) as workers,
        connected(workers, store) as cluster,
        cluster.job(job_uid, owner="runner") as job,
    ):
        shuffle = job.shuffle("both", partitions=5, maps=3)
        for m in range(3):
            write(shuffle, m)
        view = shuffle.view()
        expected = blocks_of(view)
        view.persist()
        for segment in Path(store.removeprefix("file://")).rglob("segments/*/*"):
            segment.unlink()
        workers[0].restart()
        assert blocks_of(view) == expected
        assert blocks_of(shuffle.view()) == expected
