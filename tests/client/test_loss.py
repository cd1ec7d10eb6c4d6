"""Loss that is confirmed is told as loss, with the exact list and the reason; all else waits."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support import attached, content, expected, open_job, read, wipe, write

import crossdock
from crossdock import BlocksLost, SealLost, Shuffle, Unavailable
from harness import WorkerProcess, connect_all, started_workers

WINNERS = {0: 5, 1: 6}
SIZE = 500


@pytest.fixture
def apart() -> Iterator[tuple[list[WorkerProcess], Shuffle]]:
    """Two workers; both have map 0, and only the first has map 1."""
    with started_workers(2, peers=False) as workers, open_job(workers) as job:
        shuffle = job.shuffle("words", partitions=4)
        write(shuffle, 0, 5, replicas=2, size=SIZE)
        with attached(job, workers[:1]) as alone:
            write(alone.shuffle("words", partitions=4), 1, 6, size=SIZE)
        yield workers, shuffle


def damage(worker: WorkerProcess, map_id: int, partition: int) -> None:
    """Flip a bit of a block where it lies in one of the files of the payload log."""
    sought = content(map_id, WINNERS[map_id], partition, SIZE)
    [(log, data)] = [
        (path, bytearray(data))
        for path in Path(worker.data_dir).rglob("payload*.log")
        if sought in (data := path.read_bytes())
    ]
    data[data.index(sought) + 9] ^= 1
    log.write_bytes(data)


def test_the_part_of_a_share_that_has_copies_is_read_from_them(
    apart: tuple[list[WorkerProcess], Shuffle],
) -> None:
    workers, shuffle = apart
    view = shuffle.view(WINNERS)
    assert len(view.places()) == 1, "the first worker serves all"
    damage(workers[0], 0, 2)
    assert read(view) == expected(shuffle, WINNERS, size=SIZE)
    damage(workers[0], 0, 1)
    damage(workers[0], 0, 3)
    assert read(view) == expected(shuffle, WINNERS, size=SIZE)
    damage(workers[0], 1, 2)
    with pytest.raises(BlocksLost, match="partition 2 fails its checksum") as caught:
        read(view)
    assert caught.value.attempts == [(1, 6)]


def test_when_both_copies_are_damaged_it_is_lost_at_once(
    apart: tuple[list[WorkerProcess], Shuffle],
) -> None:
    workers, shuffle = apart
    view = shuffle.view(WINNERS)
    for worker in workers:
        damage(worker, 0, 2)
    started = time.monotonic()
    with pytest.raises(BlocksLost, match="every copy is damaged") as caught:
        read(view)
    assert caught.value.attempts == [(0, 5)]
    assert time.monotonic() - started < 30
    sound = [p for p in range(4) if p != 2]
    assert [b for p in sound for b in read(view, partitions=range(p, p + 1))] == expected(
        shuffle, WINNERS, size=SIZE, partitions=sound
    )


def test_when_all_workers_are_lost_the_data_are_lost() -> None:
    with started_workers(2) as workers, open_job(
        workers, loss_after_seconds=1
    ) as job:  # fmt: skip
        shuffle = job.shuffle("words", partitions=8, maps=2)
        for map_id, attempt in WINNERS.items():
            write(shuffle, map_id, attempt)
        before = shuffle.view()
        for worker in workers:
            worker.kill9()
        started = time.monotonic()
        with pytest.raises(BlocksLost, match="has not answered for 1 s") as caught:
            shuffle.view(WINNERS)
        assert time.monotonic() - started >= 1, "lost before it was confirmed"
        assert caught.value.attempts == sorted(WINNERS.items())
        with pytest.raises(BlocksLost):
            read(before)
        with pytest.raises(BlocksLost):
            before.block_sizes(range(8))
        with pytest.raises(SealLost, match="pass the winners to view"):
            shuffle.view()
        patient = job.cluster.options
        job.cluster.options = replace(patient, deadline_seconds=0.5)
        for call in (lambda: write(shuffle, 2), shuffle.release):  # these need a worker: they wait
            with pytest.raises(Unavailable):
                call()
        job.cluster.options = patient
        for worker in workers:
            worker.start()  # they only were away: everything is there again
        assert read(before) == read(shuffle.view()) == expected(shuffle, WINNERS)


def test_while_one_worker_may_come_back_nothing_is_lost() -> None:
    with started_workers(2) as workers, open_job(
        workers, loss_after_seconds=60, deadline_seconds=1
    ) as job:  # fmt: skip
        shuffle = job.shuffle("words", partitions=8, maps=2)
        for map_id, attempt in WINNERS.items():
            write(shuffle, map_id, attempt)
        for worker in workers:
            worker.kill9()
        for call in (lambda: shuffle.view(WINNERS), shuffle.view):
            with pytest.raises(Unavailable):
                call()


def test_when_all_workers_come_back_empty_the_choice_is_lost() -> None:
    with started_workers(2) as workers, open_job(workers, loss_after_seconds=60) as job:
        shuffle = job.shuffle("words", partitions=8, maps=2)
        for map_id, attempt in WINNERS.items():
            write(shuffle, map_id, attempt)
        shuffle.view()
        for worker in workers:
            wipe(worker)
            worker.start()
        started = time.monotonic()
        with pytest.raises(BlocksLost, match="another worker answers at") as caught:
            shuffle.view(WINNERS)
        assert caught.value.attempts == sorted(WINNERS.items())
        with pytest.raises(SealLost, match="another worker answers at"):
            shuffle.view()
        assert time.monotonic() - started < 30
        for map_id in WINNERS:  # the remedy
            write(shuffle, map_id, 100)
        winners = dict.fromkeys(WINNERS, 100)
        assert read(shuffle.view(winners)) == expected(shuffle, winners)


def test_a_way_in_that_is_lost_is_no_loss() -> None:
    """The endpoint is gone for good; the workers that it led to hold everything."""
    with started_workers(2) as workers, open_job(workers) as job:
        endpoint = workers[1]  # it was told of the first
        with connect_all(
            [endpoint], options=crossdock.Options(loss_after_seconds=0.5, deadline_seconds=60)
        ) as cluster:
            shuffle = cluster.job(job.uid).shuffle("words", partitions=8)
            assert len(cluster.members().reachable) == 2
            for map_id, attempt in WINNERS.items():
                write(shuffle, map_id, attempt, replicas=2)
            endpoint.kill9()
            for _ in range(2):
                assert read(shuffle.view(WINNERS)) == expected(shuffle, WINNERS)
                clock = cluster._silences
                clock._known = dict.fromkeys(clock._known, (float("inf"), 0.0))
