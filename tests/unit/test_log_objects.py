"""Log objects: frames are in the store by one request, and are found and read like others."""

import asyncio
import dataclasses
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import crossdock
from crossdock.errors import ConfigError, Unavailable
from crossdock.lifecycle.timing import Timing
from crossdock.store import logs, manifest
from crossdock.store.accounting import Requests, writes
from crossdock.store.api import Store, StoreOptions
from crossdock.store.errors import ObjectDamaged, StoreUnavailable, StoreUnsure
from crossdock.store.frames import ALL_MAPS, StoredFrames
from crossdock.store.layout import ShuffleLayout, run_of
from crossdock.store.logs import read_record
from crossdock.store.opening import open_store
from crossdock.store.records import Record
from crossdock.store.stream import Access
from crossdock.views import ShuffleKey
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader
from crossdock_worker.acklog import AckLog
from crossdock_worker.log_writer import LogWriter
from crossdock_worker.rows import FrameId
from crossdock_worker.shuffle_log import ShuffleLog
from raw import make_frame

KEY = ShuffleKey("job", "words", 0)
AT_ONCE = Timing(settle_seconds=0)
LAYOUT = ShuffleLayout.of("c", KEY)
Pieces = list[tuple[int, bytes, int]]


@pytest.fixture
def meter() -> Requests:
    return Requests()


@pytest.fixture
def store(tmp_path: Path, meter: Requests) -> Iterator[Store]:
    opened = open_store((tmp_path / "store").as_uri(), StoreOptions(), meter=meter)
    yield opened
    opened.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ShuffleLog]:
    made = ShuffleLog.create(tmp_path / "log", KEY)
    yield made
    made.close()


def writer_of(store: Store, segment_bytes: int = 2**20) -> LogWriter:
    return LogWriter(store, cluster="c", worker="w", segment_bytes=segment_bytes, timing=AT_ONCE)


def put(log: ShuffleLog, map_id: int, pieces: Pieces, *, seq: int = 0) -> FrameId:
    """Make a frame visible."""
    data = make_frame(pieces, partitions=8, map_id=map_id, seq=seq, count=0)
    header = FrameHeader.decode(data[:HEADER_BYTES])
    end = HEADER_BYTES + header.columns_bytes
    with log.reserve(header) as reservation:
        log.payload.write(reservation.payload_at, data[end:])
        assert log.commit(header, Columns.decode(header, data[HEADER_BYTES:end]), reservation)
    return (map_id, 0, seq)


def records(store: Store) -> list[Record]:
    return [read_record(store, info) for info in store.list(LAYOUT.records)]


def read(store: Store, record: Record) -> list[tuple[int, int, bytes]]:
    made = manifest.assemble(KEY, record.frames, record.statistics, [record])
    access = Access.to(store, crossdock.Options())
    found = []
    for stream in StoredFrames(access, made).streams((0, 8), ALL_MAPS):
        while not stream.ended or stream.pending:
            while stream.pending:
                pieces = stream.pending.popleft()
                for i, start in enumerate(pieces.starts.tolist()):
                    data = pieces.data[start : start + int(pieces.columns.length[i])]
                    columns = pieces.columns
                    found.append((int(columns.partition[i]), int(columns.map_id[i]), bytes(data)))
            stream.advance()
    access.threads.close()
    return found


def test_frames_are_found_and_read_like_those_of_a_run(store: Store, log: ShuffleLog) -> None:
    frames = [put(log, m, [(p, b"map %d part %d" % (m, p), 1) for p in range(8)]) for m in range(5)]
    writer_of(store).write(log, frames[:3])
    (record,) = records(store)
    assert sorted(record.frames["map"].tolist()) == [0, 1, 2]
    assert read(store, record) == [
        (p, m, b"map %d part %d" % (m, p)) for p in range(8) for m in range(3)
    ]
    assert int(record.statistics["bytes"].sum()) == record.payload_bytes


def test_it_is_one_write(store: Store, log: ShuffleLog, meter: Requests) -> None:
    frames = [put(log, m, [(1, b"x" * 1000, 1)]) for m in range(5)]
    writer_of(store).write(log, frames)
    assert writes(meter.of_job("job")) == 1


def test_frames_without_pieces_are_found_too(store: Store, log: ShuffleLog) -> None:
    writer_of(store).write(log, [put(log, 4, [])])
    (record,) = records(store)
    assert record.frames["map"].tolist() == [4]
    assert read(store, record) == []


def test_what_is_too_much_for_a_segment_is_in_several(store: Store, log: ShuffleLog) -> None:
    pieces: Pieces = [(p, secrets.token_bytes(900), p) for p in range(8) for _ in range(20)]
    frames = [put(log, m, pieces) for m in range(3)]
    writer_of(store, 100_000).write(log, frames)
    (record,) = records(store)
    assert len(record.segments) > 3
    assert all(info.size <= 100_000 for info in store.list(LAYOUT.prefix + "segments/"))
    assert read(store, record) == [
        (p, m, data) for p in range(8) for m in range(3) for q, data, _ in pieces if q == p
    ]


@pytest.mark.parametrize("size", [*range(4100, 4600, 50), 9000])
def test_no_object_is_longer_than_the_bound_with_its_record(
    store: Store, log: ShuffleLog, size: int
) -> None:
    data = [secrets.token_bytes(size // 8) for _ in range(8)]
    frames = [put(log, m, [(p, data[p], 1) for p in range(8)]) for m in range(2)]
    writer = writer_of(store, 10_000)
    writer.write(log, frames)
    sizes = [info.size for info in store.list("")]
    assert sum(sizes) > 2 * (size // 8) * 8
    assert max(sizes) <= 10_000
    (record,) = records(store)
    assert record.is_log
    assert read(store, record) == [(p, m, data[p]) for p in range(8) for m in range(2)]
    log.runs.finish(dataclasses.replace(record, run="a-longer-one"))
    writer.delete_covered(log)
    assert list(store.list("")) == []


def test_frames_whose_record_would_be_longer_than_the_bound_are_in_several(
    store: Store, log: ShuffleLog
) -> None:
    frames = [put(log, m, [(1, b"%d" % m, 1)]) for m in range(300)]
    writer_of(store, 3000).write(log, frames)
    assert max(info.size for info in store.list("")) <= 3000
    found = records(store)
    assert len(found) > 1
    assert sorted(b for r in found for b in read(store, r)) == [
        (1, m, b"%d" % m) for m in range(300)
    ]


def test_a_frame_whose_record_alone_is_longer_is_refused(store: Store, log: ShuffleLog) -> None:
    with pytest.raises(ConfigError, match="--segment-bytes"):
        writer_of(store, 200).write(log, [put(log, 0, [])])
    assert list(store.list("")) == []


def test_a_long_record_is_read_whole(
    store: Store, log: ShuffleLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer_of(store).write(log, [put(log, 1, [(1, b"abc", 1)])])
    monkeypatch.setattr(logs, "_FIRST_READ_BYTES", 20)
    (record,) = records(store)
    assert record.frames["map"].tolist() == [1]


def test_damage_is_told(store: Store, log: ShuffleLog, tmp_path: Path) -> None:
    writer_of(store).write(log, [put(log, 1, [(1, b"abc", 1)])])
    (info,) = store.list(LAYOUT.records)
    path = tmp_path / "store" / info.key
    for change in (
        lambda d: d[:-1],
        lambda d: d[:-9] + bytes([d[-9] ^ 1]) + d[-8:],
        lambda d: d[-20:],
    ):
        whole = path.read_bytes()
        path.write_bytes(change(whole))
        with pytest.raises(ObjectDamaged):
            read_record(store, dataclasses.replace(info, size=path.stat().st_size))
        path.write_bytes(whole)


def test_they_go_once_runs_have_their_frames(store: Store, log: ShuffleLog, tmp_path: Path) -> None:
    first = [put(log, m, [(1, b"first", 1)]) for m in range(2)]
    second = [put(log, m, [(1, b"second", 1)]) for m in range(2, 4)]
    writer = writer_of(store)
    writer.write(log, first)
    writer.write(log, second)
    writer.delete_covered(log)
    assert len(records(store)) == 2
    (run,) = [r for r in records(store) if 0 in r.frames["map"]]
    log.runs.finish(dataclasses.replace(run, run="a-longer-one"))
    writer.delete_covered(log)
    assert [r.frames["map"].tolist() for r in records(store)] == [[2, 3]]
    log.close()
    again = ShuffleLog.open(tmp_path / "log", KEY)
    assert again is not None
    for m in (2, 3):
        again.abort(m, 0, None, epoch=0)
    writer.delete_covered(again)  # a later process knows of it by this disk
    assert records(store) == []
    again.close()


def test_an_unanswered_write_is_done_again_under_another_key(
    store: Store, log: ShuffleLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_object, keys = store.put, []

    def put_twice(key: str, *args: object, **kwargs: object) -> object:
        keys.append(key)
        found = put_object(key, *args, **kwargs)  # type: ignore[arg-type]
        if len(keys) == 1:
            raise StoreUnsure("no answer")
        return found

    monkeypatch.setattr(store, "put", put_twice)
    writer = writer_of(store)
    writer.write(log, [put(log, 1, [(1, b"abc", 1)])])
    assert len(set(keys)) == 2
    assert {r.run for r in log.runs.logs()} == {run_of(key) for key in keys}
    log.runs.finish(dataclasses.replace(records(store)[0], run="a-longer-one"))
    writer.delete_covered(log)
    assert list(store.list("")) == []


def test_a_frame_that_was_aborted_meanwhile_is_not_acked(store: Store, log: ShuffleLog) -> None:
    frame = put(log, 1, [(1, b"abc", 1)])
    log.abort(1, 0, None, epoch=0)
    with pytest.raises(Unavailable, match="went away"):
        writer_of(store).write(log, [frame])


# -- groups ----------------------------------------------------------------------------------------


def header(map_id: int, size: int = 100) -> FrameHeader:
    data = make_frame([(1, bytes(size), 1)], partitions=8, map_id=map_id)
    return FrameHeader.decode(data[:HEADER_BYTES])


class Writes:
    """Takes what is to be written."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def __call__(self, _log: ShuffleLog, frames: list[FrameId]) -> None:
        self.groups.append([map_id for map_id, _, _ in frames])
        self.begun.set()
        assert self.gate.wait(60)
        if self.error is not None:
            raise self.error


def together(log: ShuffleLog, writes: Writes, maps: range, *, seconds: float, size: int) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(2) as threads:
            acks = AckLog(writes, threads=threads, interval_seconds=seconds, group_bytes=size)
            await asyncio.gather(*(acks.durable(log, header(m)) for m in maps))

    asyncio.run(main())


def test_frames_of_an_interval_share_a_write(log: ShuffleLog) -> None:
    writes = Writes()
    together(log, writes, range(10), seconds=0.05, size=10**6)
    assert writes.groups == [list(range(10))]


def test_enough_bytes_do_not_wait(log: ShuffleLog) -> None:
    writes = Writes()
    together(log, writes, range(9), seconds=3600, size=3 * header(0).frame_bytes)
    assert writes.groups == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_a_failed_write_fails_its_frames_and_no_others(log: ShuffleLog) -> None:
    writes = Writes()
    writes.error = StoreUnavailable("not now")

    async def main() -> None:
        with ThreadPoolExecutor(2) as threads:
            acks = AckLog(writes, threads=threads, interval_seconds=0.01, group_bytes=10**6)
            waits = [asyncio.create_task(acks.durable(log, header(m))) for m in range(3)]
            found = await asyncio.gather(*waits, return_exceptions=True)
            assert [type(error) for error in found] == [StoreUnavailable] * 3
            writes.error = None
            await acks.durable(log, header(0))

    asyncio.run(main())
    assert writes.groups == [[0, 1, 2], [0]]


def test_one_that_leaves_does_not_take_the_others_with_it(log: ShuffleLog) -> None:
    writes = Writes()
    writes.gate.clear()

    async def main() -> None:
        with ThreadPoolExecutor(2) as threads:
            acks = AckLog(writes, threads=threads, interval_seconds=0.01, group_bytes=10**6)
            leaves, stays = (asyncio.create_task(acks.durable(log, header(m))) for m in range(2))
            assert await asyncio.to_thread(writes.begun.wait, 60)
            leaves.cancel()
            await asyncio.wait([leaves])
            writes.gate.set()
            await stays

    asyncio.run(main())
    assert np.concatenate(writes.groups).tolist() == [0, 1]
