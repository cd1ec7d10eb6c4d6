"""Two copies of each frame, workers that go away, come back, or come back empty; and seals."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import attached, content, expected, open_job, read, started_after, wipe, write

import crossdock
from crossdock import BlocksLost, Shuffle, ShuffleIncomplete, Unavailable, placement
from harness import WorkerProcess, started_workers

ALL = {0: 0, 1: 3, 2: 0, 3: 1}


def write_all(shuffle: Shuffle, *, replicas: int = 1, size: int = 40) -> None:
    for map_id, attempt in ALL.items():
        write(shuffle, map_id, attempt, replicas=replicas, size=size)


def worker_id(worker: WorkerProcess) -> str:
    return str(worker.get_json("/v1/workers")["self"]["id"])


def frames_at(worker: WorkerProcess, shuffle: Shuffle) -> int:
    job = worker.get_json(f"/v1/jobs/{shuffle.key.job}")
    return sum(s["frames"] for s in job["shuffles"] if s["name"] == shuffle.key.name)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("how", ["killed", "wiped"])
def test_losing_a_worker_loses_nothing(count: int, how: str) -> None:
    with started_workers(count) as workers, open_job(workers) as job:
        shuffle = job.shuffle("words", partitions=8)
        write_all(shuffle, replicas=2)
        assert sum(frames_at(w, shuffle) for w in workers) == 2 * _frames(shuffle)
        first = shuffle.view(ALL)
        assert read(first) == expected(shuffle, ALL)
        for worker in workers:
            if how == "killed":
                worker.kill9()
            else:
                wipe(worker)
                worker.start()
            with attached(job, workers) as other:
                view = other.shuffle("words", partitions=8).view(ALL)
                assert view.id == first.id
                assert read(view) == expected(shuffle, ALL)
                assert view.bytes.tolist() == first.bytes.tolist()
                assert view.blocks.tolist() == first.blocks.tolist()
            # The view that was made before goes on at the other copies.
            assert read(first) == expected(shuffle, ALL)
            if how == "wiped":
                return
            worker.start()


def _frames(shuffle: Shuffle) -> int:
    """Return how many different frames the shuffle has."""
    return len(shuffle.resolve(shuffle.view(ALL)._winner_table).frames)


def test_losing_both_copies_is_loss_with_the_exact_list() -> None:
    with started_workers(3) as workers, open_job(workers, loss_after_seconds=1.0) as job:
        shuffle = job.shuffle("words", partitions=1)
        holders: dict[int, set[str]] = {}
        for map_id in range(12):
            with shuffle.writer(map_id=map_id, attempt=7, replicas=2) as writer:
                writer.write(0, content(map_id, 7, 0))
            holders[map_id] = set(writer._acked.values())
        # Each map has one frame here; the load of pushes spreads over all pairs or only one.
        gone, kept = workers[:2], workers[2]
        ids = {worker_id(w) for w in gone}
        lost = sorted((m, 7) for m, who in holders.items() if who <= ids)
        for worker in gone:
            worker.kill9()
        winners = dict.fromkeys(range(12), 7)
        started = time.monotonic()
        if lost:
            with pytest.raises(BlocksLost) as caught:
                shuffle.view(winners)
            assert caught.value.attempts == lost
            assert time.monotonic() - started >= 1.0, "lost before it was confirmed"
        alive = {m: 7 for m in winners if (m, 7) not in lost}
        assert read(shuffle.view(alive)) == [(0, m, content(m, 7, 0), 0) for m in alive]
        assert kept.running


def test_loss_of_a_worker_without_replicas_names_its_maps() -> None:
    with started_workers(2) as workers, open_job(workers, loss_after_seconds=1.0) as job:
        shuffle = job.shuffle("words", partitions=64)
        for map_id in range(6):  # each map's only partition is on one worker
            write(shuffle, map_id, 1, partitions=[10 * map_id])
        owners = {
            m: {w for w, held in shuffle.held(None)[0].items() if (held["map"] == m).any()}
            for m in range(6)
        }
        assert all(len(who) == 1 for who in owners.values())
        dead = workers[0]
        name = worker_id(dead)
        lost = [(m, 1) for m in range(6) if owners[m] == {name}]
        assert 0 < len(lost) < 6, "the partitions lie on one worker: choose others"
        dead.kill9()
        winners = dict.fromkeys(range(6), 1)
        with pytest.raises(BlocksLost) as caught:
            shuffle.view(winners)
        assert caught.value.attempts == lost
        dead.start()  # it only was away: everything is there again
        view = shuffle.view(winners)
        assert [b[1] for b in read(view)] == list(range(6))


def test_a_worker_that_comes_back_empty_is_loss_at_once() -> None:
    with started_workers(2) as workers, open_job(workers, loss_after_seconds=60) as job:
        shuffle = job.shuffle("words", partitions=8, maps=4)
        write_all(shuffle)
        before = shuffle.view(ALL)
        wipe(workers[0])
        workers[0].start()
        started = time.monotonic()
        with pytest.raises(BlocksLost) as caught:
            shuffle.view(ALL)
        with pytest.raises(BlocksLost) as caught_by_reader:
            read(before)
        assert time.monotonic() - started < 30, "nobody waits for it"
        assert set(caught.value.attempts) <= set(ALL.items())
        assert caught_by_reader.value.attempts == caught.value.attempts
        again = {m: a + 100 if (m, a) in caught.value.attempts else a for m, a in ALL.items()}
        for map_id, attempt in again.items():
            if attempt >= 100:
                write(shuffle, map_id, attempt)
        assert read(shuffle.view(again)) == expected(shuffle, again)


def test_a_writer_notices_that_the_worker_lost_its_disk() -> None:
    with (
        WorkerProcess() as worker,
        open_job([worker.start()], frame_bytes=1000, buffer_bytes=1000) as job,
    ):
        shuffle = job.shuffle("words", partitions=1)
        writer = shuffle.writer(map_id=4, attempt=2)
        for _ in range(4):
            writer.write(0, bytes(900))
        writer._collect(until_below=0)
        wipe(worker)
        worker.start()

        def go_on() -> None:
            with writer:
                for _ in range(4):
                    writer.write(0, bytes(900))

        with pytest.raises(BlocksLost, match="lost its disk") as caught:
            go_on()
        assert caught.value.attempts == [(4, 2)]


def test_calls_wait_for_an_unavailable_worker() -> None:
    with WorkerProcess() as worker, open_job([worker.start()], loss_after_seconds=60) as job:
        shuffle = job.shuffle("words", partitions=8, maps=4)
        write_all(shuffle)
        old = shuffle.view(ALL)
        for call in (
            lambda: read(shuffle.view(ALL)),
            lambda: read(old),
            lambda: read(shuffle.view()),
        ):
            worker.kill9()
            with started_after(worker, 0.5):
                assert call() == expected(shuffle, ALL)
        worker.kill9()
        with started_after(worker, 0.5):
            write(shuffle, 9)
        worker.kill9()
        with started_after(worker, 0.5):
            assert old.block_sizes(range(8))["map"].tolist() == sorted(ALL) * 8
        worker.kill9()
        with started_after(worker, 0.5):
            shuffle.release()


def test_unavailable_after_the_deadline() -> None:
    with (
        WorkerProcess() as worker,
        open_job([worker.start()], loss_after_seconds=60, deadline_seconds=0.5) as job,
    ):
        shuffle = job.shuffle("words", partitions=8, maps=4)
        write_all(shuffle)
        view = shuffle.view(ALL)
        worker.kill9()
        for call in (
            lambda: shuffle.view(ALL),
            shuffle.view,
            lambda: read(view),
            lambda: write(shuffle, 9),
            lambda: view.block_sizes(range(1)),
            shuffle.release,
        ):
            started = time.monotonic()
            with pytest.raises(Unavailable):
                call()
            assert 0.4 < time.monotonic() - started < 30
        worker.start()
        assert read(shuffle.view(ALL)) == expected(shuffle, ALL)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_worker_killed_in_the_middle_of_a_read(replicas: int) -> None:
    size = 2**20
    with (
        started_workers(2) as workers,
        open_job(
            workers, loss_after_seconds=60, read_batch_bytes=2**20, read_ahead_bytes=2**20
        ) as job,
    ):
        shuffle = job.shuffle("words", partitions=4)
        write_all(shuffle, replicas=replicas, size=size)
        view = shuffle.view(ALL)
        served = [place["worker"] for place in view.places()]
        victim = next(w for w in workers if worker_id(w) in served)
        blocks = view.read()
        first = next(blocks)
        victim.kill9()
        if replicas == 1:
            timer = threading.Timer(1.0, victim.start)
            timer.start()
        found = [first, *blocks]
        if replicas == 1:
            timer.join()
        assert [(b.partition, b.map_id, bytes(b.data), b.rows) for b in found] == expected(
            shuffle, ALL, size=size
        )


def test_the_one_worker_killed_again_and_again_during_a_read() -> None:
    size = 2**19
    with (
        WorkerProcess() as worker,
        open_job(
            [worker.start()], loss_after_seconds=60, read_batch_bytes=2**20, read_ahead_bytes=2**20
        ) as job,
    ):
        shuffle = job.shuffle("words", partitions=4)
        write_all(shuffle, size=size)
        found = []
        for block in shuffle.view(ALL).read():
            found.append((block.partition, block.map_id, bytes(block.data), block.rows))
            if len(found) in {2, 9}:
                worker.restart()
        assert found == expected(shuffle, ALL, size=size)


def test_pushes_go_elsewhere_when_a_worker_is_down() -> None:
    with started_workers(3) as workers, open_job(workers) as job:
        shuffle = job.shuffle("words", partitions=30)
        write(shuffle, 0)
        assert all(frames_at(w, shuffle) for w in workers), "each has its range"
        workers[1].kill9()
        write(shuffle, 1)
        with attached(job, [workers[0]]) as other:  # one that never saw the dead one
            write(other.shuffle("words", partitions=30), 2)
        workers[1].start()
        assert read(shuffle.view({0: 0, 1: 0, 2: 0})) == expected(shuffle, {0: 0, 1: 0, 2: 0})
        assert frames_at(workers[1], shuffle) == 1


def test_pushes_go_elsewhere_when_a_worker_pushes_back() -> None:
    with (
        WorkerProcess(options={"disk_capacity_bytes": 1}) as full,
        WorkerProcess() as free,
        open_job([full.start(), free.start()]) as job,
    ):
        shuffle = job.shuffle("words", partitions=30)
        write(shuffle, 0)  # one frame fits, whatever it weighs
        write(shuffle, 1)
        write(shuffle, 2)
        assert frames_at(full, shuffle) <= 1
        assert frames_at(free, shuffle) >= 4
        assert read(shuffle.view({0: 0, 1: 0, 2: 0})) == expected(shuffle, {0: 0, 1: 0, 2: 0})


def test_more_copies_than_workers_is_unavailable() -> None:
    with started_workers(2) as workers, open_job(workers, deadline_seconds=0.5) as job:
        shuffle = job.shuffle("words", partitions=2)
        with pytest.raises(Unavailable, match="3 copies"):
            write(shuffle, 0, replicas=3)


# -- seals -------------------------------------------------------------------------------------


def test_concurrent_callers_get_the_same_choice() -> None:
    with started_workers(2) as workers, open_job(workers) as job:
        for round_ in range(4):
            shuffle = job.shuffle(f"words{round_}", partitions=3, maps=3)
            for map_id in range(3):
                write(shuffle, map_id, 50)
            barrier = threading.Barrier(5)

            def seal(shuffle: Shuffle = shuffle, barrier: threading.Barrier = barrier) -> str:
                barrier.wait()
                return shuffle.view().id

            def speculate(shuffle: Shuffle = shuffle, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                write(shuffle, 1, 2)  # smaller: it would win, if it came in time for all

            with ThreadPoolExecutor(5) as pool:
                rival = pool.submit(speculate)
                ids = {f.result() for f in [pool.submit(seal) for _ in range(4)]}
                rival.result()
            assert len(ids) == 1
            view = shuffle.view()
            assert {view.id} == ids
            assert read(view) == expected(shuffle, view.winners)


def home_of(shuffle: Shuffle, workers: list[WorkerProcess]) -> tuple[WorkerProcess, list]:
    infos = shuffle.job.cluster.members(fresh=True).reachable
    by_url = {w.url: w for w in workers}
    key = f"seal/{shuffle.key.job}/{shuffle.key.name}/{shuffle.key.generation}"
    ranked = [by_url[infos[i].url] for i in placement.ranked(key, shuffle.job.record.homes)]
    return ranked[0], ranked[1:]


def test_while_the_home_is_away_nobody_else_chooses() -> None:
    with started_workers(2) as workers, open_job(workers, loss_after_seconds=60) as job:
        shuffle = job.shuffle("words", partitions=3, maps=2)
        for map_id in range(2):
            write(shuffle, map_id, 9, replicas=2)
        home, _ = home_of(shuffle, workers)
        sealed = shuffle.view().winners
        write(shuffle, 0, 1, replicas=2)  # would be chosen by whoever chooses now
        home.kill9()
        with (
            attached(job, workers, deadline_seconds=0.6, loss_after_seconds=60) as other,
            pytest.raises(Unavailable, match="home of the seal"),
        ):
            other.shuffle("words", partitions=3, maps=2).view()
        with started_after(home, 0.5):
            assert shuffle.view().winners == sealed == {0: 9, 1: 9}


def test_the_copy_of_the_seal_holds_when_the_home_is_lost() -> None:
    with started_workers(2) as workers, open_job(workers) as job:
        shuffle = job.shuffle("words", partitions=3, maps=2)
        for map_id in range(2):
            write(shuffle, map_id, 9, replicas=2)
        sealed = shuffle.view()
        write(shuffle, 0, 1, replicas=2)
        home, _ = home_of(shuffle, workers)
        wipe(home)
        home.start()
        assert shuffle.view().winners == sealed.winners == {0: 9, 1: 9}
        assert shuffle.view().id == sealed.id


def test_a_copy_on_the_third_worker_is_found() -> None:
    """The second home was away when the choice was made, and the first is lost afterwards."""
    with started_workers(3) as workers, open_job(workers, loss_after_seconds=1) as job:
        shuffle = job.shuffle("words", partitions=3, maps=2)
        home, (second, _) = home_of(shuffle, workers)
        for map_id in range(2):
            write(shuffle, map_id, 9, replicas=3)
        second.kill9()
        sealed = shuffle.view().winners
        second.start()
        write(shuffle, 0, 1, replicas=3)
        wipe(home)
        home.start()
        assert shuffle.view().winners == sealed == {0: 9, 1: 9}


def test_incomplete_shuffles_are_named() -> None:
    with WorkerProcess() as worker, open_job([worker.start()]) as job:
        shuffle = job.shuffle("words", partitions=3, maps=4)
        write(shuffle, 1)
        with pytest.raises(ShuffleIncomplete) as caught:
            shuffle.view()
        assert [m.map_id for m in caught.value.missing] == [0, 2, 3]
        for map_id in (0, 2, 3):
            write(shuffle, map_id)
        assert shuffle.view().winners == dict.fromkeys(range(4), 0)


def test_attempts_of_two_writers_are_never_merged() -> None:
    with started_workers(2) as workers, open_job(workers) as job:
        for shuffle in (job.shuffle("a", partitions=16), job.shuffle("b", partitions=16)):
            for worker, partitions in zip(workers, (range(8), range(8, 16)), strict=True):
                with attached(job, [worker]) as alone:
                    # Told of one worker only, but its peers are found: push past the client.
                    half = alone.shuffle(shuffle.key.name, partitions=16)
                    try:
                        write(half, 0, 5, partitions=partitions)
                    except crossdock.AttemptConflict:
                        break
            with pytest.raises(BlocksLost, match=r"two writers|frames are missing"):
                _two_writers(shuffle, workers)


def _two_writers(shuffle: Shuffle, workers: list[WorkerProcess]) -> None:
    view = shuffle.view({0: 5})
    blocks = {p for p, *_ in read(view)}
    assert blocks in (set(range(8)), set(range(8, 16))), "two attempts were merged"
    raise BlocksLost([], message="two writers: one was refused, the other is whole")
