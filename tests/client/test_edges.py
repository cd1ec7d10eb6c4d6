"""The edges: nothing at all, very much, very large numbers, and wrong arguments."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support import Blocks, attached, open_job, options, read, write

import crossdock
from crossdock import (
    AttemptConflict,
    BlocksLost,
    ConfigError,
    Options,
    ProtocolError,
    ShuffleIncomplete,
    ShuffleMismatch,
)
from crossdock.views import ShuffleKey
from crossdock.wire import frame, tables
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader
from crossdock_worker import selection, stripes
from crossdock_worker.shuffle_log import ShuffleLog
from harness import StartWorker, WorkerProcess, eventually

U32_MAX, U64_MAX = 2**32 - 1, 2**64 - 1


# -- nothing -----------------------------------------------------------------------------------


def test_a_shuffle_without_maps(job: crossdock.Job) -> None:
    shuffle = job.shuffle("empty", partitions=3, maps=0)
    for view in (shuffle.view({}), shuffle.view(), shuffle.view([])):
        assert view.bytes.tolist() == view.rows.tolist() == view.blocks.tolist() == [0] * 3
        assert read(view) == []
        assert len(view.block_sizes(range(3))) == 0
        assert view.id == shuffle.view({}).id
    assert job.shuffle("other", partitions=3).view({}).id != shuffle.view({}).id


def test_attempts_without_data(job: crossdock.Job) -> None:
    shuffle = job.shuffle("words", partitions=4, maps=3)
    for map_id in range(3):
        with shuffle.writer(map_id=map_id, attempt=0) as writer:
            if map_id == 1:
                writer.write(2, b"data", rows=3)
    view = shuffle.view()
    assert view.winners == {0: 0, 1: 0, 2: 0}
    assert read(view) == [(2, 1, b"data", 3)]
    assert view.blocks.tolist() == [0, 0, 1, 0]
    assert read(shuffle.view({0: 0, 2: 0})) == []


def test_pieces_without_bytes(job: crossdock.Job) -> None:
    """A block of no bytes is a block: it has rows, and readers are told of it."""
    shuffle = job.shuffle("words", partitions=3)
    with shuffle.writer(map_id=0, attempt=0) as writer:
        writer.write(0, b"", rows=7)
        writer.write(2, b"")
        writer.write(2, b"x", rows=1)
        writer.write(2, b"")
    view = shuffle.view({0: 0})
    assert read(view) == [(0, 0, b"", 7), (2, 0, b"x", 1)]
    assert view.rows.tolist() == [7, 0, 1]
    assert view.blocks.tolist() == [1, 0, 1]


def test_empty_ranges(job: crossdock.Job) -> None:
    shuffle = job.shuffle("words", partitions=5)
    write(shuffle, 3, partitions=[1, 3])
    view = shuffle.view({3: 0})
    assert read(view, partitions=range(2, 2)) == []
    assert read(view, partitions=range(2, 3)) == []
    assert read(view, partitions=range(4, 5)) == []
    assert read(view, maps=range(3)) == []
    assert [b[0] for b in read(view, maps=range(3, 4))] == [1, 3]
    assert [b.partition for b in view.read(3)] == [3]


# -- large numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [0, 2**63, U64_MAX, None])
@pytest.mark.parametrize("map_id", [0, U32_MAX])
def test_one_partition_and_large_numbers(
    job: crossdock.Job, map_id: int, attempt: int | None
) -> None:
    shuffle = job.shuffle("words", partitions=1)
    with shuffle.writer(map_id=map_id, attempt=attempt) as writer:
        writer.write(0, b"data", rows=U32_MAX)
        writer.write(0, b"more", rows=U32_MAX)
    view = shuffle.view({map_id: writer.attempt})
    assert read(view) == [(0, map_id, b"datamore", 2 * U32_MAX)]
    assert view.rows.tolist() == [2 * U32_MAX]
    assert read(view, maps=range(map_id, map_id + 1)) == read(view)
    assert read(view, maps=range(map_id)) == []


def test_random_attempts_differ(job: crossdock.Job) -> None:
    shuffle = job.shuffle("words", partitions=1)
    numbers = {shuffle.writer(map_id=0).attempt for _ in range(50)}
    assert len(numbers) == 50
    assert max(numbers) > 2**56


def test_a_hundred_thousand_partitions(job: crossdock.Job) -> None:
    count = 100_000
    shuffle = job.shuffle("wide", partitions=count)
    started = time.monotonic()
    for map_id in range(2):
        with shuffle.writer(map_id=map_id, attempt=0) as writer:
            writer.write_batch(
                np.arange(map_id, count, 2), bytes(5 * count // 2), np.full(count // 2, 5)
            )
    view = shuffle.view({0: 0, 1: 0})
    assert view.bytes.tolist() == [5] * count
    assert view.blocks.tolist() == [1] * count
    batches = list(view.read_batches())
    partitions = np.concatenate([b.partition for b in batches])
    assert (partitions == np.arange(count)).all()
    assert (np.concatenate([b.map_id for b in batches]) == np.arange(count) % 2).all()
    assert [b.partition for b in view.read(range(99_999, count))] == [99_999]
    assert time.monotonic() - started < 60


def test_a_million_blocks(job: crossdock.Job) -> None:
    maps, partitions = 100, 10_000
    shuffle = job.shuffle("many", partitions=partitions)
    started = time.monotonic()
    lengths = np.arange(partitions) % 3 + 1
    data = bytes(range(256)) * (int(lengths.sum()) // 256 + 1)
    data = data[: int(lengths.sum())]
    for map_id in range(maps):
        with shuffle.writer(map_id=map_id, attempt=map_id) as writer:
            writer.write_batch(np.arange(partitions), data, lengths, np.ones(partitions, int))
    view = shuffle.view({m: m for m in range(maps)})
    assert (view.bytes == (maps * lengths).astype(np.uint64)).all()
    assert (view.rows == maps).all()
    assert (view.blocks == maps).all()
    blocks = 0
    for batch in view.read_batches():
        blocks += len(batch)
    assert blocks == maps * partitions
    ends = np.cumsum(lengths)
    found = read(view, partitions=range(777, 778), maps=range(10, 13))
    expected = data[ends[777] - lengths[777] : ends[777]]
    assert found == [(777, m, expected, 1) for m in range(10, 13)]
    assert time.monotonic() - started < 120


def put(log: ShuffleLog, map_id: int, payload: bytes) -> None:
    head, body = frame.build(
        payload=payload, partition=np.array([0, 1]), length=np.array([len(payload) - 1, 1]),
        rows=np.array([1, 1]), partitions=2, map_id=map_id, attempt=0, seq=0, count=1,
        writer=b"w" * 16,
    )  # fmt: skip
    header = FrameHeader.decode(head)
    columns = Columns.decode(header, head[HEADER_BYTES:])
    with log.reserve(header) as reservation:
        log.payload.write(reservation.payload_at, memoryview(body))
        assert log.commit(header, columns, reservation)


@pytest.mark.parametrize("at", [2**31, 2**32, 5 * 2**30])
def test_logs_beyond_32_bits(start_worker: StartWorker, tmp_path: Path, at: int) -> None:
    """Payloads behind 2 and 4 GiB of a file, which is sparse. A worker serves it, too."""
    payloads = {0: b"begins here", 1: b"x" * 5000, 2: b"behind it"}
    worker = start_worker()
    with open_job([worker]) as job:
        shuffle = job.shuffle("large", partitions=2)
        write(shuffle, 9)
        worker.kill9()
        directory = worker.data_dir / "jobs" / job.uid / "shuffles" / "large" / "0"
        log = ShuffleLog.open(directory, ShuffleKey(job.uid, "large"))
        assert log is not None
        put(log, 0, payloads[0])
        log.payload.files[0].end = at - 2000  # as if that much had been pushed in between
        put(log, 1, payloads[1])
        put(log, 2, payloads[2])
        snapshot, absent = log.snapshot(tables.frame_keys(log.frames()))
        assert not len(absent)
        offsets = np.sort(snapshot.rows["payload_at"]).tolist()
        assert offsets[-2:] == [stripes.address(0, at - 2000), stripes.address(0, at)]
        stats = selection.statistics(snapshot, 2)
        assert int(stats["bytes"].sum()) == sum(map(len, payloads.values())) + 2 * 40
        log.close()
        worker.start()
        found = read(shuffle.view(dict.fromkeys(payloads, 0)))
        assert found == [(0, m, data[:-1], 1) for m, data in payloads.items()] + [
            (1, m, data[-1:], 1) for m, data in payloads.items()
        ]


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_one_partition_larger_than_2_gib(start_worker: StartWorker) -> None:
    with open_job([start_worker()]) as job:
        shuffle = job.shuffle("huge", partitions=1)
        piece, count = os.urandom(8 * 2**20), 270
        with shuffle.writer(map_id=0, attempt=0) as writer:
            for _ in range(count):
                writer.write(0, piece)
        view = shuffle.view({0: 0})
        assert int(view.bytes[0]) == count * len(piece) > 2**31
        (block,) = view.read()
        assert len(block.data) == count * len(piece)
        for i in range(count):
            assert block.data[i * len(piece) : (i + 1) * len(piece)] == piece


# -- how pieces travel -------------------------------------------------------------------------


def test_pieces_larger_than_a_frame(start_worker: StartWorker) -> None:
    with open_job([start_worker()], frame_bytes=1000, buffer_bytes=4000) as job:
        shuffle = job.shuffle("words", partitions=2)
        data = os.urandom(10_500)
        with shuffle.writer(map_id=0, attempt=0) as writer:
            writer.write(1, b"before")
            writer.write(1, data, rows=9)
            writer.write(1, memoryview(b"behind"), rows=1)
        assert read(shuffle.view({0: 0})) == [(1, 0, b"before" + data + b"behind", 10)]
        assert writer.partition_bytes.tolist() == [0, 10_512]


def test_write_batch_equals_write(job: crossdock.Job) -> None:
    random = np.random.default_rng(5)
    partitions = np.sort(random.integers(0, 50, 3000))
    lengths = random.integers(0, 40, 3000).astype(np.uint64)
    rows = random.integers(0, 9, 3000)
    data = random.bytes(int(lengths.sum()))
    ends = np.cumsum(lengths).astype(int)
    found: list[Blocks] = []
    for name in ("single", "batch"):
        shuffle = job.shuffle(name, partitions=50)
        with shuffle.writer(map_id=0, attempt=0) as writer:
            if name == "batch":
                writer.write_batch(partitions, data, lengths, rows)
            else:
                for p, n, end, r in zip(partitions, lengths, ends, rows, strict=True):
                    writer.write(int(p), data[end - int(n) : end], rows=int(r))
        view = shuffle.view({0: 0})
        found.append(read(view))
        assert view.bytes.tolist() == writer.partition_bytes.tolist()
    assert found[0] == found[1]


def test_write_and_write_batch_keep_their_order(job: crossdock.Job) -> None:
    shuffle = job.shuffle("words", partitions=3)
    with shuffle.writer(map_id=0, attempt=0) as writer:
        writer.write(1, b"first ")
        writer.write_batch(np.array([0, 1, 1]), b"0secondthird ", np.array([1, 6, 6]))
        writer.write(1, b"fourth ")
        writer.write_batch(np.array([1]), b"fifth", np.array([5]))
    assert read(shuffle.view({0: 0})) == [
        (0, 0, b"0", 0),
        (1, 0, b"first secondthird fourth fifth", 0),
    ]


def test_a_writer_s_memory_is_bounded(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While no push comes to an end, `write` waits at the bound."""
    bound, frame_bytes = 40_000, 5_000
    with open_job([start_worker()], frame_bytes=frame_bytes, buffer_bytes=bound) as job:
        shuffle = job.shuffle("words", partitions=16)
        gate, taken = threading.Event(), []
        push = crossdock.push.Push.run

        def held(self: crossdock.push.Push) -> list[crossdock.push.Ack]:
            assert gate.wait(60)
            return push(self)

        monkeypatch.setattr(crossdock.push.Push, "run", held)

        def work() -> None:
            with shuffle.writer(map_id=0, attempt=0) as writer:
                for i in range(400):
                    writer.write(i % 16, bytes(1000))
                    taken.append(i)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            eventually(lambda: 1000 * len(taken) >= bound - 2 * frame_bytes, what="the bound")
            time.sleep(0.4)  # in which it would take more, if it did not wait
            assert 1000 * len(taken) <= bound + 2 * frame_bytes
        finally:
            gate.set()
            thread.join()
        assert int(shuffle.view({0: 0}).bytes.sum()) == 400_000


# -- wrong arguments ---------------------------------------------------------------------------


def test_wrong_pieces_are_named(job: crossdock.Job) -> None:
    shuffle = job.shuffle("words", partitions=3)
    writer = shuffle.writer(map_id=0, attempt=0)
    for partition in (-1, 3, 2**40):
        with pytest.raises(ConfigError, match=f"partition {partition} is not one of"):
            writer.write(partition, b"x")
    for rows in (-1, 2**32):
        with pytest.raises(ProtocolError, match=f"rows {rows} does not fit"):
            writer.write(0, b"x", rows=rows)
    one, two = np.array([1]), np.array([2, 1])
    for message, arguments in [
        ("differ in length", (one, b"x", np.array([1, 2]))),
        ("must not fall", (two, b"xy", np.array([1, 1]))),
        ("is not one of the 3", (np.array([3]), b"x", one)),
        ("is not one of the 3", (np.array([-1]), b"x", one)),
        ("add up to 1, not", (one, b"xy", one)),
        ("or negative", (np.array([1, 1]), b"x", np.array([2, -1]))),
        ("longer than frame_bytes", (one, b"x", np.array([2**40]))),
        ("rows of a piece", (one, b"x", one, np.array([2**32]))),
    ]:
        with pytest.raises(ConfigError, match=message):
            writer.write_batch(*arguments)
    writer.write(2, b"sound")
    writer.commit()
    for call in (lambda: writer.write(0, b"x"), writer.commit, lambda: writer.write_batch(
        one, b"x", one)):  # fmt: skip
        with pytest.raises(ConfigError, match="committed or aborted already"):
            call()
    writer.abort()  # too late, and harmless
    assert read(shuffle.view({0: 0})) == [(2, 0, b"sound", 0)]


def test_wrong_numbers_and_names_are_named(job: crossdock.Job) -> None:
    shuffle = job.shuffle("words", partitions=3)
    with pytest.raises(ProtocolError, match="map 4294967296"):
        shuffle.writer(map_id=2**32)
    with pytest.raises(ProtocolError, match="attempt -1"):
        shuffle.writer(map_id=0, attempt=-1)
    with pytest.raises(ConfigError, match="replicas 0"):
        shuffle.writer(map_id=0, replicas=0)
    for partitions in (0, -1, 2**32):
        with pytest.raises(ConfigError, match="partitions"):
            job.shuffle("words", partitions=partitions)
    for name in ("", "../up", "a/b", "ä", "-x", "x" * 129):
        with pytest.raises(ProtocolError, match="not a valid name"):
            job.shuffle(name, partitions=1)
        with pytest.raises(ProtocolError, match="not a valid name"):
            job.cluster.job(name)
    with pytest.raises(ConfigError, match="needs the number of maps"):
        shuffle.view()
    with pytest.raises(ConfigError, match="map 1 has two winners"):
        shuffle.view([(0, 0), (1, 0), (1, 1)])
    with pytest.raises(ProtocolError):
        shuffle.view({-1: 0})


def test_wrong_ranges_are_named(job: crossdock.Job) -> None:
    shuffle = job.shuffle("words", partitions=3)
    write(shuffle, 0)
    view = shuffle.view({0: 0})
    for wrong in (range(4), range(-1, 2), range(0, 3, 2)):
        with pytest.raises(ConfigError, match="partitions"):
            next(iter(view.read(wrong)))
        with pytest.raises(ConfigError, match="partitions"):
            view.block_sizes(wrong)
    with pytest.raises(ConfigError, match="maps"):
        next(iter(view.read(maps=range(2**33))))


def test_another_partition_count_is_refused(job: crossdock.Job) -> None:
    write(job.shuffle("words", partitions=3), 0)
    other = job.shuffle("words", partitions=4)
    with pytest.raises(ShuffleMismatch, match="has 3 partitions"):
        write(other, 1)
    with pytest.raises(ConfigError, match="has 3 partitions, not 4"):
        other.view({0: 0})


def test_the_same_attempt_twice_is_a_conflict(job: crossdock.Job) -> None:
    shuffle = job.shuffle("words", partitions=3, maps=2)
    write(shuffle, 0)
    with pytest.raises(AttemptConflict):
        write(shuffle, 0)
    with pytest.raises(ShuffleIncomplete):
        shuffle.view()
    with pytest.raises(BlocksLost) as caught:
        shuffle.view({0: 0, 1: 5})
    assert caught.value.attempts == [(1, 5)]


def test_an_exception_aborts(job: crossdock.Job) -> None:
    shuffle = job.shuffle("words", partitions=3)

    def work() -> None:
        with shuffle.writer(map_id=0, attempt=0) as writer:
            writer.write(0, b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    with pytest.raises(BlocksLost):
        shuffle.view({0: 0})
    write(shuffle, 0, 0)  # nothing had left the writer


def test_endpoints_and_options_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CROSSDOCK_ENDPOINTS", raising=False)
    for message, endpoints in [
        ("no worker to connect to", None),
        ("no worker to connect to", []),
        ("is one string", "http://127.0.0.1:1"),
        ("'127.0.0.1:1' is no URL", ["127.0.0.1:1"]),
    ]:
        with pytest.raises(ConfigError, match=message):
            crossdock.connect(endpoints)
    with pytest.raises(ConfigError, match="exclude each other"):
        crossdock.connect(["http://127.0.0.1:1"], token="a", token_file="b")
    with pytest.raises(ConfigError, match="frame_bytes must be more than 0"):
        Options(frame_bytes=0)
    with pytest.raises(ConfigError, match="buffer_bytes 5 is less than one frame"):
        Options(buffer_bytes=5)
    with pytest.raises(ConfigError, match="cannot read the authority"):
        crossdock.connect(["https://127.0.0.1:1"], ca_file="/nowhere.pem")


def test_the_environment_says_where_and_with_what(
    secure_worker: WorkerProcess,
    job_uid: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("CROSSDOCK_ENDPOINTS", f" {secure_worker.url}/ ,{secure_worker.url}")
    monkeypatch.setenv("CROSSDOCK_TOKEN", secure_worker.token(job_uid))
    monkeypatch.delenv("CROSSDOCK_TOKEN_FILE", raising=False)
    with crossdock.connect(options=options()) as cluster, cluster.job(
        job_uid, owner="runner"
    ) as job:  # fmt: skip
        shuffle = job.shuffle("words", partitions=1)
        write(shuffle, 0)
        assert len(read(shuffle.view({0: 0}))) == 1
    monkeypatch.setenv("CROSSDOCK_TOKEN", "wrong")
    with crossdock.connect(options=options()) as cluster, pytest.raises(
        crossdock.Unauthenticated, match="CROSSDOCK_TOKEN"
    ):  # fmt: skip
        cluster.job(job_uid)
    file = tmp_path / "token"
    file.write_text(secure_worker.token(job_uid) + "\n")
    monkeypatch.setenv("CROSSDOCK_TOKEN_FILE", str(file))
    with crossdock.connect(options=options()) as cluster, cluster.job(job_uid) as job:
        assert len(read(job.shuffle("words", partitions=1).view({0: 0}))) == 1
        file.write_text("wrong")
        with pytest.raises(crossdock.Unauthenticated):
            job.shuffle("words", partitions=1).view({0: 0})


def test_attached_clients_share_a_job(start_worker: StartWorker) -> None:
    worker = start_worker()
    with open_job([worker]) as job, attached(job, [worker]) as other:
        write(other.shuffle("words", partitions=2), 0)
        assert len(read(job.shuffle("words", partitions=2).view({0: 0}))) == 2
        with pytest.raises(crossdock.JobUnknown):
            other.cluster.job("nobody-made-this")
