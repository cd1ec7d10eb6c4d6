"""Aborts: the frames that stay are found where they are, at once and after a restart."""

import time
from pathlib import Path

import pytest

from crossdock.errors import AttemptConflict
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader
from crossdock_worker.files import RangeFile
from crossdock_worker.shuffle_log import ShuffleLog
from raw import make_frame

KEY = ShuffleKey("job", "words", 0)


def header_of(data: bytes) -> FrameHeader:
    return FrameHeader.decode(data[:HEADER_BYTES])


def put(log: ShuffleLog, map_id: int, seq: int) -> None:
    """Store a frame whose payload says which one it is."""
    payload = b"map %d seq %d" % (map_id, seq)
    data = make_frame([(1, payload, 1)], partitions=8, map_id=map_id, seq=seq, count=0)
    header = header_of(data)
    columns = Columns.decode(header, data[HEADER_BYTES : HEADER_BYTES + header.columns_bytes])
    with log.reserve(header) as reservation:
        log.payload.write(reservation.payload_at, payload)
        assert log.commit(header, columns, reservation)


def contents(log: ShuffleLog) -> list[tuple[int, int, bytes]]:
    """Return (map, seq, payload) of every frame, found by its key."""
    keys = tables.frame_keys(log.frames())
    snapshot, missing = log.snapshot(keys)
    assert not len(missing)
    assert tables.frame_keys(snapshot.rows).tolist() == keys.tolist()
    found = []
    for row in snapshot.rows:
        at, size = int(row["payload_at"]), int(row["payload_bytes"])
        data = snapshot.payload[at : at + size].tobytes()
        found.append((int(row["map"]), int(row["seq"]), data))
    return sorted(found)


def test_what_stays_is_found(tmp_path: Path) -> None:
    log = ShuffleLog.create(tmp_path / "log", KEY)
    for seq in range(3):
        for map_id in range(5):
            put(log, map_id, seq)
    for map_id in (4, 1):
        assert log.abort(map_id, 0, None, epoch=0) == 3
    put(log, 7, 0)
    stay = [(0, 3), (2, 3), (3, 3), (7, 1)]
    expected = [(m, s, b"map %d seq %d" % (m, s)) for m, count in stay for s in range(count)]
    assert contents(log) == expected
    used = log.payload.used_bytes
    log.close()
    again = ShuffleLog.open(tmp_path / "log", KEY)
    assert again is not None
    assert contents(again) == expected
    assert again.payload.used_bytes == used
    with pytest.raises(AttemptConflict):
        again.find(header_of(make_frame([], partitions=8, map_id=1)))
    again.close()


def test_an_abort_before_the_push_has_ended_gives_space_back_once(tmp_path: Path) -> None:
    log = ShuffleLog.create(tmp_path / "log", KEY)
    put(log, 9, 0)
    data = make_frame([(1, b"x" * 14, 1)], partitions=8, count=0)
    header = header_of(data)
    columns = Columns.decode(header, data[HEADER_BYTES : HEADER_BYTES + header.columns_bytes])
    with log.reserve(header) as reservation:
        put(log, 10, 0)  # what is given back twice at a log's end would only shorten it
        log.payload.write(reservation.payload_at, b"x" * 14)
        assert log.commit(header, columns, reservation)
        assert log.abort(0, 0, None, epoch=0) == 1
        put(log, 11, 0)  # takes the range that the abort gave back
    for map_id in range(12, 16):
        put(log, map_id, 0)
    expected = [(m, 0, b"map %d seq 0" % m) for m in (9, *range(10, 16))]
    assert contents(log) == expected
    log.close()


def test_a_frame_that_came_twice_takes_space_once(tmp_path: Path) -> None:
    log = ShuffleLog.create(tmp_path / "log", KEY)
    data = make_frame([(1, b"abc", 1)], partitions=8)
    header = header_of(data)
    columns = Columns.decode(header, data[HEADER_BYTES : HEADER_BYTES + header.columns_bytes])
    with log.reserve(header) as first, log.reserve(header) as second:
        assert log.commit(header, columns, first)
        assert not log.commit(header, columns, second)
    assert log.payload.used_bytes == 3
    log.close()


def test_aborts_of_what_never_came_write_nothing(tmp_path: Path) -> None:
    log = ShuffleLog.create(tmp_path / "log", KEY)
    put(log, 0, 0)
    before = (tmp_path / "log" / "journal").stat().st_size
    for attempt in range(100):
        assert log.abort(1, attempt, None, epoch=0) == 0
        assert log.abort(1, attempt, bytes(16), epoch=0) == 0
    assert (tmp_path / "log" / "journal").stat().st_size == before
    put(log, 1, 0)
    assert log.abort(1, 0, None, epoch=0) == 1
    assert log.abort(1, 0, None, epoch=0) == 0
    log.close()


def test_giving_back_many_ranges_takes_no_time(tmp_path: Path) -> None:
    file = RangeFile(tmp_path / "ranges")
    for _ in range(20_000):
        file.reserve(10)
    started = time.monotonic()
    for i in range(0, 20_000, 2):
        file.give_back(10 * i, 10)
    assert time.monotonic() - started < 30
    assert file.used_bytes == 100_000
    for i in range(1, 20_000, 2):
        file.give_back(10 * i, 10)
    assert (file.end, file.used_bytes) == (0, 0)
    file.close()
