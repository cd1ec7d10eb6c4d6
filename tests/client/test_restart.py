"""A worker that dies and starts again on the same disk, sound, torn or damaged."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support import expected, open_job, read, write

import crossdock
from crossdock import BlocksLost, JobFenced, ShuffleReleased, StaleEpoch
from crossdock.views import ShuffleKey
from crossdock.wire import crc, frame
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader
from crossdock_worker import journal
from crossdock_worker.shuffle_log import ShuffleLog
from harness import StartWorker, WorkerProcess, started_workers

MAPS = {0: 0, 1: 7, 2: 2**64 - 1}


def log_dir(worker: WorkerProcess, shuffle: crossdock.Shuffle) -> Path:
    key = shuffle.key
    base = worker.data_dir / "jobs" / key.job / "shuffles" / key.name
    return base / str(key.generation)


def own_worker(worker: WorkerProcess) -> dict[str, object]:
    found: dict[str, object] = worker.get_json("/v1/workers")["self"]
    return found


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_everything_acked_survives(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker]) as job:
        shuffle = job.shuffle("words", partitions=5, maps=3)
        for map_id, attempt in MAPS.items():
            write(shuffle, map_id, attempt)
        other = job.shuffle("other", partitions=2)
        write(other, 0)
        before, sealed = shuffle.view(MAPS), shuffle.view()
        for _ in range(3):
            worker.restart()
            after = shuffle.view(MAPS)
            assert after.id == before.id == sealed.id
            assert read(after) == expected(shuffle, MAPS)
            assert after.bytes.tolist() == before.bytes.tolist()
            assert after.rows.tolist() == before.rows.tolist()
            assert after.blocks.tolist() == [3] * 5
            # A view that was made before goes on, too: places are registered again.
            assert read(before) == expected(shuffle, MAPS)
            assert read(other.view({0: 0})) == expected(other, {0: 0})


def test_the_identity_stays_and_the_incarnation_grows(start_worker: StartWorker) -> None:
    worker = start_worker()
    first = own_worker(worker)
    for i in range(1, 3):
        worker.restart(kill=i == 1)
        now = own_worker(worker)
        assert now["id"] == first["id"]
        assert now["incarnation"] == first["incarnation"] + i


def test_a_seal_survives(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker]) as job:
        shuffle = job.shuffle("words", partitions=2, maps=2)
        write(shuffle, 0, 5)
        write(shuffle, 1, 6)
        sealed = shuffle.view()
        write(shuffle, 0, 1)  # would have won, had it been there in time
        worker.restart()
        assert shuffle.view().winners == sealed.winners == {0: 5, 1: 6}
        assert shuffle.view().id == sealed.id


def test_releases_and_epochs_survive(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker]) as job:
        old = job.shuffle("words", partitions=2)
        write(old, 0)
        old.release()
        fresh = job.shuffle("words", partitions=2, generation=1)
        write(fresh, 0, 3)
        with worker.connect() as cluster, cluster.job(job.uid, owner="runner", epoch=4) as owner:
            worker.restart()
            assert not log_dir(worker, old).exists()
            with pytest.raises(ShuffleReleased):
                old.view({0: 0})
            with pytest.raises(ShuffleReleased):
                write(owner.shuffle("words", partitions=2), 1)
            with pytest.raises(StaleEpoch):
                write(fresh, 1)
            assert read(fresh.view({0: 3})) == expected(fresh, {0: 3})


def test_a_tombstone_survives(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker]) as job:
        shuffle = job.shuffle("words", partitions=2)
        write(shuffle, 0)
        job.end()
        worker.restart()
        assert not (worker.data_dir / "jobs" / job.uid).exists()
        with pytest.raises(JobFenced):
            write(shuffle, 1)
        with worker.connect() as cluster, pytest.raises(JobFenced):
            cluster.job(job.uid, owner="runner")


def test_an_aborted_attempt_stays_aborted(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker], frame_bytes=1000, buffer_bytes=1000) as job:
        shuffle = job.shuffle("words", partitions=2)
        write(shuffle, 1)
        writer = shuffle.writer(map_id=0, attempt=9)
        for _ in range(20):
            writer.write(0, bytes(900))
        writer.abort()
        worker.restart()
        assert read(shuffle.view({1: 0})) == expected(shuffle, {1: 0})
        with pytest.raises(BlocksLost, match="no worker has any frame") as caught:
            shuffle.view({0: 9, 1: 0})
        assert caught.value.attempts == [(0, 9)]
        with pytest.raises(crossdock.AttemptConflict, match="aborted"):
            write(shuffle, 0, 9)
        described = worker.get_json(f"/v1/jobs/{job.uid}")["shuffles"][0]
        assert described["frames"] == 1


def test_a_torn_journal_tail_is_cut(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker]) as job:
        shuffle = job.shuffle("words", partitions=3)
        write(shuffle, 0)
        write(shuffle, 1)
        path = log_dir(worker, shuffle) / "journal"
        for cut in (1, 30, 90):
            worker.kill9()
            data = path.read_bytes()
            path.write_bytes(data[:-cut])
            worker.start()
            assert read(shuffle.view({0: 0})) == expected(shuffle, {0: 0})
            with pytest.raises(BlocksLost) as caught:
                shuffle.view({0: 0, 1: 0})
            assert caught.value.attempts == [(1, 0)]
            write(shuffle, 1)  # the map runs again, even under its old number
            assert read(shuffle.view({0: 0, 1: 0})) == expected(shuffle, {0: 0, 1: 0})


@pytest.mark.parametrize("name", ["journal", "index.log"])
def test_damage_in_the_middle_is_reported(start_worker: StartWorker, name: str) -> None:
    worker = start_worker()
    with open_job([worker]) as job:
        shuffle, other = (job.shuffle(n, partitions=3) for n in ("words", "other"))
        for map_id in range(4):
            write(shuffle, map_id)
        write(other, 0)
        path = log_dir(worker, shuffle) / name
        worker.kill9()
        offset = {
            "journal": lambda: [r.offset for r in journal.replay(path)][2],
            "index.log": lambda: 2 * 3 * 20,  # two frames of 3 pieces of 20 bytes before it
        }[name]()
        flip(path, offset + 20)
        damaged = path.read_bytes()
        worker.start()
        where = f"{path} is damaged at offset {offset}"
        logged = [e for e in worker.log_lines() if e.get("event") == "shuffle is damaged"]
        assert [(e["job"], e["shuffle"], e["generation"]) for e in logged] == [
            (job.uid, "words", 0)
        ]
        assert where in logged[0]["problem"]
        with pytest.raises(BlocksLost) as caught:
            shuffle.view({0: 0, 3: 0})
        assert where in str(caught.value)
        assert caught.value.attempts == [(0, 0), (3, 0)]
        assert all(where in m.reason for m in caught.value.missing)
        assert path.read_bytes()[: len(damaged)] == damaged, "damage is evidence: it stays"
        assert read(other.view({0: 0})) == expected(other, {0: 0})
        write(other, 1)
        answer = worker.request("POST", f"{shuffle.path}/frames/list")
        assert (answer.status, answer.code) == (500, "data_corrupt")
        assert where in answer.json()["message"]


def test_a_short_payload_log_is_reported(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker]) as job:
        shuffle = job.shuffle("words", partitions=3)
        write(shuffle, 0)
        path = log_dir(worker, shuffle) / "payload.log"
        worker.kill9()
        path.write_bytes(path.read_bytes()[:50])
        worker.start()
        with pytest.raises(BlocksLost, match=r"payload\.log ends at offset 50"):
            shuffle.view({0: 0})


def test_a_damaged_shuffle_still_can_be_written_elsewhere() -> None:
    with started_workers(2) as workers, open_job(workers) as job:
        shuffle = job.shuffle("words", partitions=8)
        for map_id in range(3):
            write(shuffle, map_id)
        damaged = next(w for w in workers if log_dir(w, shuffle).exists())
        damaged.kill9()
        flip(log_dir(damaged, shuffle) / "journal", 40)
        damaged.start()
        with pytest.raises(BlocksLost) as caught:
            shuffle.view(dict.fromkeys(range(3), 0))
        for map_id, attempt in caught.value.attempts:
            write(shuffle, map_id, attempt + 1)
        winners = {m: int((m, 0) in caught.value.attempts) for m in range(3)}
        assert read(shuffle.view(winners)) == expected(shuffle, winners)


def test_a_flipped_payload_bit_never_reaches_the_reader(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker]) as job:
        shuffle = job.shuffle("words", partitions=4)
        for map_id in range(3):
            write(shuffle, map_id, map_id + 10, size=500)
        winners = {0: 10, 1: 11, 2: 12}
        view = shuffle.view(winners)
        flip(log_dir(worker, shuffle) / "payload.log", 4 * 500 + 2 * 500 + 7)  # map 1, partition 2
        for target in (view, shuffle.view(winners)):
            with pytest.raises(BlocksLost, match="partition 2 fails its checksum") as caught:
                read(target)
            assert caught.value.attempts == [(1, 11)]
        sound = expected(shuffle, winners, size=500, partitions=[0, 1, 3])
        assert [b for p in (0, 1, 3) for b in read(view, partitions=range(p, p + 1))] == sound
        assert read(view, maps=range(2, 3)) == expected(shuffle, {2: 12}, size=500)


def test_a_flipped_payload_bit_is_read_from_the_replica() -> None:
    with started_workers(2) as workers, open_job(workers) as job:
        shuffle = job.shuffle("words", partitions=4)
        winners = dict.fromkeys(range(4), 0)
        for map_id in winners:
            write(shuffle, map_id, replicas=2, size=500)
        view = shuffle.view(winners)
        serving = {place["worker"] for place in view.places()}
        for worker in workers:
            if own_worker(worker)["id"] in serving:
                flip(log_dir(worker, shuffle) / "payload.log", 777)
        assert len(serving) == 1
        assert read(view) == expected(shuffle, winners, size=500)


def test_a_damaged_journal_is_covered_by_the_replica() -> None:
    with started_workers(2) as workers, open_job(workers) as job:
        shuffle = job.shuffle("words", partitions=4)
        winners = dict.fromkeys(range(3), 0)
        for map_id in winners:
            write(shuffle, map_id, replicas=2)
        first = shuffle.view(winners)
        for worker in workers:
            worker.kill9()
            path = log_dir(worker, shuffle) / "journal"
            sound = path.read_bytes()
            flip(path, 60)
            worker.start()
            assert shuffle.view(winners).id == first.id
            assert read(shuffle.view(winners)) == expected(shuffle, winners)
            worker.kill9()
            path.write_bytes(sound)
            worker.start()


def frame_of(map_id: int, payload: bytes, **more: int) -> tuple[FrameHeader, Columns, bytes]:
    pieces = 1 if payload else 0
    head, body = frame.build(
        payload=payload, partition=np.zeros(pieces, int), rows=np.zeros(pieces, int),
        length=np.full(pieces, len(payload)), partitions=1, map_id=map_id, attempt=0,
        seq=0, count=1, writer=b"w" * 16, **more,
    )  # fmt: skip
    header = FrameHeader.decode(head)
    return header, Columns.decode(header, head[HEADER_BYTES:]), bytes(body)


def put(log: ShuffleLog, map_id: int, payload: bytes) -> None:
    header, columns, body = frame_of(map_id, payload)
    with log.reserve(header) as reservation:
        log.payload.write(reservation.payload_at, body)
        log.commit(header, columns, reservation)


def test_a_push_cut_off_by_a_crash_harms_nothing_and_costs_no_space(tmp_path: Path) -> None:
    """An empty frame that was acked behind a push that never came leaves the log sound."""
    key = ShuffleKey("job", "words")
    log = ShuffleLog.create(tmp_path, key)
    put(log, 0, b"zero")
    header, _, _ = frame_of(1, bytes(5000))
    with log.reserve(header):
        put(log, 2, b"")
        put(log, 3, b"three")
        put(log, 4, b"")
        again = ShuffleLog.open(tmp_path, key)  # as after a crash: the reservation is lost
        assert again is not None
        assert sorted(again.frames()["map"].tolist()) == [0, 2, 3, 4]
        assert again.payload.used_bytes == len(b"zero" + b"three")
        put(again, 5, bytes(5000))
        assert [file.end for file in again.payload.files] == [4 + 5000, 5]
        again.close()
    log.close()


def test_an_empty_frame_behind_a_lost_push_is_no_damage(tmp_path: Path) -> None:
    key = ShuffleKey("job", "words")
    log = ShuffleLog.create(tmp_path, key)
    header, _, _ = frame_of(1, bytes(5000))
    with log.reserve(header):
        put(log, 2, b"")
        again = ShuffleLog.open(tmp_path, key)
        assert again is not None
        assert again.frames()["map"].tolist() == [2]
        assert again.payload.files[0].end == 0
        again.close()
    log.close()


def refused(worker: WorkerProcess) -> str:
    """Start a worker that must refuse; return what it said."""
    done = subprocess.run(worker.command(), check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr + done.stdout


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        (json.dumps({"id": "x", "incarnation": 1, "format": 99}), "has format 99"),
        ("{torn", "is damaged"),
        (json.dumps({"id": "x"}), "is damaged"),
        (None, "holds other files and no worker's identity"),
    ],
)
def test_a_foreign_directory_is_refused(tmp_path: Path, identity: str | None, message: str) -> None:
    worker = WorkerProcess(directory=tmp_path)
    worker.data_dir.mkdir()
    (worker.data_dir / "somebody-else.txt").write_text("mine")
    if identity is not None:
        (worker.data_dir / "identity").write_text(identity)
    assert message in " ".join(refused(worker).split())
    assert (worker.data_dir / "somebody-else.txt").read_text() == "mine"


def test_a_directory_in_use_is_refused(start_worker: StartWorker) -> None:
    first = start_worker()
    second = WorkerProcess(directory=first.directory)
    assert "is in use by another worker" in " ".join(refused(second).split())
    assert own_worker(first)["incarnation"] == 1
    first.restart()
    assert own_worker(first)["incarnation"] == 2


def test_a_start_that_was_killed_at_once_can_be_repeated(start_worker: StartWorker) -> None:
    worker = start_worker()
    worker.kill9()
    (worker.data_dir / "identity").rename(worker.data_dir / ".identity.new")
    for name in ("jobs", "tombstones", "trash"):
        (worker.data_dir / name).rmdir()
    for name in ("spare", "settled"):
        (worker.data_dir / name).unlink()
    worker.start()
    assert own_worker(worker)["incarnation"] == 1


def test_the_checksum_of_damage_is_checked_end_to_end() -> None:
    """Guards this module's own `flip`: one bit is what CRC32C always sees."""
    data = bytearray(b"payload")
    before = crc.extend(0, data)
    data[3] ^= 0x10
    assert crc.extend(0, data) != before
