"""Frames that are freed: gone from disk and for good, and nobody who reads them notices."""

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.errors import AttemptConflict, PlacesUnknown
from crossdock.views import ShuffleKey, places_digest
from crossdock.wire import tables
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader
from crossdock.wire.tables import Table
from crossdock_worker import files, journal
from crossdock_worker.journal import Kind
from crossdock_worker.places import PlacesCache
from crossdock_worker.rows import Snapshot, disk_bytes_of
from crossdock_worker.shuffle_log import ShuffleLog
from raw import make_frame

KEY = ShuffleKey("job", "words", 0)
BIG = 300_000


def frame(
    map_id: int, seq: int, count: int = 0, *, size: int = 50, writer: bytes = b"w" * 16
) -> tuple[FrameHeader, Columns, bytes]:
    payload = random.Random(f"{map_id} {seq}").randbytes(size)
    data = make_frame(
        [(1, payload, 1)], partitions=8, map_id=map_id, seq=seq, count=count, writer=writer
    )
    header = FrameHeader.decode(data[:HEADER_BYTES])
    columns = Columns.decode(header, data[HEADER_BYTES : HEADER_BYTES + header.columns_bytes])
    return header, columns, payload


def put(log: ShuffleLog, map_id: int, seq: int, count: int = 0, *, size: int = 50) -> None:
    header, columns, payload = frame(map_id, seq, count, size=size)
    with log.reserve(header) as reservation:
        log.payload.write(reservation.payload_at, payload)
        assert log.commit(header, columns, reservation)


def payloads(snapshot: Snapshot) -> list[bytes]:
    found = []
    for row in snapshot.rows:
        at, size = int(row["payload_at"]), int(row["payload_bytes"])
        found.append(snapshot.payload[at : at + size].tobytes())
    return found


def keys_of(log: ShuffleLog, *maps: int) -> Table:
    frames = log.frames()
    frames = frames[tables.sort_order(frames)]
    return tables.frame_keys(frames[np.isin(frames["map"], maps)])


def maps_of(log: ShuffleLog) -> list[int]:
    return sorted(log.frames()["map"].tolist())


def reopened(log: ShuffleLog) -> ShuffleLog:
    """Return what a process finds that starts after this one was killed."""
    again = ShuffleLog.open(log.directory, KEY)
    assert again is not None
    again.raise_damage()
    return again


def blocks_on_disk(log: ShuffleLog) -> int:
    return sum(f.path.stat().st_blocks * 512 for f in (*log.payload.files, log.index))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ShuffleLog]:
    made = ShuffleLog.create(tmp_path / "log", KEY)
    yield made
    made.close()


def test_freed_frames_are_gone_and_the_others_stay(log: ShuffleLog) -> None:
    for m in range(4):
        put(log, m, 0, 1, size=BIG)
    before, used = blocks_on_disk(log), log.payload.used_bytes
    freed = log.free(keys_of(log, 0, 2))
    assert freed == 2 * BIG + 2 * 20 == log.freed_bytes
    assert maps_of(log) == [1, 3]
    assert log.payload.used_bytes == used - 2 * BIG
    assert before - blocks_on_disk(log) > 2 * BIG - 16 * 1024, "the file system has it back"
    snapshot, _ = log.snapshot(keys_of(log, 1, 3))
    assert payloads(snapshot) == [frame(m, 0, size=BIG)[2] for m in (1, 3)]
    again = reopened(log)
    assert maps_of(again) == [1, 3]
    assert again.payload.used_bytes == log.payload.used_bytes
    assert again.freed_bytes == freed
    put(again, 7, 0, 1, size=BIG)
    assert payloads(again.snapshot(keys_of(again, 1, 3, 7))[0])[2] == frame(7, 0, size=BIG)[2]
    again.close()


def test_what_is_known_of_attempts_stays(log: ShuffleLog) -> None:
    put(log, 0, 0)
    put(log, 0, 1, 2)
    put(log, 1, 0)
    log.free(keys_of(log, 0, 1))
    for each in (log, reopened(log)):
        assert each.begun
        assert not len(each.frames())
        with pytest.raises(AttemptConflict, match="another writer"):
            each.find(frame(1, 1, writer=b"x" * 16)[0])
        with pytest.raises(AttemptConflict, match="has 2 frames"):
            each.find(frame(0, 2)[0])
        with pytest.raises(AttemptConflict, match="committed"):
            each.abort(0, 0, None, epoch=0)
        with pytest.raises(PlacesUnknown):
            each.snapshot(np.array([(0, 0, 0)], tables.FRAME_KEY))
    assert again_aborted(log)


def again_aborted(log: ShuffleLog) -> bool:
    """Whether an attempt that is not committed can be given up though its frames were freed."""
    assert log.abort(1, 0, None, epoch=0) == 0
    with pytest.raises(AttemptConflict, match="aborted"):
        log.find(frame(1, 1)[0])
    return True


@pytest.mark.parametrize("seq", [0, 1], ids=["a frame", "the last frame"])
def test_a_freed_frame_that_comes_again_is_stored_again(log: ShuffleLog, seq: int) -> None:
    put(log, 0, 0)
    put(log, 0, 1, 2)
    log.free(keys_of(log, 0))
    put(log, 0, seq, 2 * seq)
    for each in (log, reopened(log)):
        [found] = payloads(each.snapshot(keys_of(each, 0))[0])
        assert found == frame(0, seq)[2]


def test_a_read_that_has_begun_sees_what_it_found(log: ShuffleLog) -> None:
    for m in range(3):
        put(log, m, 0, 1, size=BIG)
    keys, used = keys_of(log, 0, 1), log.payload.used_bytes
    with log.space.pins.held():
        snapshot, _ = log.snapshot(keys)
        log.free(keys)
        put(log, 8, 0, 1, size=BIG)
        put(log, 9, 0, 1, size=2 * BIG)
        assert payloads(snapshot) == [frame(m, 0, size=BIG)[2] for m in (0, 1)]
        assert log.space.leaving_bytes == 2 * BIG + 2 * 20
        assert log.payload.used_bytes == used + 3 * BIG
    log.reclaim()
    assert not np.count_nonzero(snapshot.payload[: 2 * BIG]), "a hole, which reads as zeros"
    assert (log.space.leaving_bytes, log.payload.used_bytes) == (0, used + BIG)
    put(log, 10, 0, 1, size=2 * BIG)
    assert log.payload.used_bytes == used + 3 * BIG == log.payload.files[0].end


def test_an_abort_does_not_pull_frames_from_under_a_read(log: ShuffleLog) -> None:
    put(log, 0, 0, size=BIG)
    put(log, 1, 0, 1)
    with log.space.pins.held():
        snapshot, _ = log.snapshot(keys_of(log, 0))
        assert log.abort(0, 0, None, epoch=0) == 1
        put(log, 2, 0, 1, size=BIG)
        assert payloads(snapshot) == [frame(0, 0, size=BIG)[2]]


def test_registered_places_are_unknown_once_a_frame_is_gone(log: ShuffleLog) -> None:
    for m in range(3):
        put(log, m, 0, 1)
    places, keys = PlacesCache(2**20), keys_of(log, 0, 1)
    digest = places_digest(KEY, keys)
    places.register(log, digest, keys)
    assert len(places.get(log, digest).snapshot.rows) == 2
    log.free(keys_of(log, 2))
    with pytest.raises(PlacesUnknown, match="went"):
        places.get(log, digest)
    places.register(log, digest, keys)
    log.free(keys_of(log, 1))
    with pytest.raises(PlacesUnknown):
        places.register(log, digest, keys)


def test_a_crash_between_journal_and_hole_leaves_no_space_behind(log: ShuffleLog) -> None:
    for m in range(4):
        put(log, m, 0, 1, size=BIG)
    with log.space.pins.held():  # so that nothing is punched
        log.free(keys_of(log, 1, 3))
        before = blocks_on_disk(log)
        again = reopened(log)
        assert before - blocks_on_disk(again) > 2 * BIG - 16 * 1024
        assert payloads(again.snapshot(keys_of(again, 0, 2))[0]) == [
            frame(m, 0, size=BIG)[2] for m in (0, 2)
        ]
        again.close()


def test_a_crash_in_the_middle_of_the_journal_frees_whole_records(log: ShuffleLog) -> None:
    for seq in range(1300):
        put(log, 0, seq, size=1)
    with log.space.pins.held():  # so that nothing is punched: that waits for the journal
        log.free(keys_of(log, 0))
    path = log.directory / "journal"
    kinds = [r.kind for r in journal.replay(path)]
    assert kinds.count(Kind.FREE) == 3, "records are bounded"
    os.truncate(path, path.stat().st_size - 10)
    again = reopened(log)
    assert len(again.frames()) == 1300 - 1024
    assert again.payload.used_bytes == 1300 - 1024
    again.close()


def test_the_journal_is_on_disk_before_the_hole_is_made(
    log: ShuffleLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    punch_hole = files.punch_hole

    def sync(_: int) -> None:
        done.append("sync")

    def punch(fd: int, offset: int, size: int) -> bool:
        done.append("punch")
        return punch_hole(fd, offset, size)

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(files, "punch_hole", punch)
    put(log, 0, 0, 1)
    log.free(keys_of(log, 0))
    assert done == ["sync", "punch", "punch"]


def test_a_journal_that_cannot_be_written_keeps_the_bytes(
    log: ShuffleLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    put(log, 0, 0, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        log.free(keys_of(log, 0))
    assert log.payload.used_bytes == 50
    assert log.payload.mapped()[:50].tobytes() == frame(0, 0)[2]
    log.reclaim()
    assert log.space.used_bytes == 0


def test_a_closed_log_punches_nothing(log: ShuffleLog) -> None:
    put(log, 0, 0, 1)
    with log.space.pins.held():
        log.free(keys_of(log, 0))
        log.close()
    log.reclaim()  # its descriptors may be other files by now


some_events = st.lists(
    st.tuples(st.sampled_from(["put", "last", "persist", "free", "abort"]), st.integers(0, 3)),
    max_size=40,
)


@given(some_events)
def test_holdings_add_up(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]]
) -> None:
    log = ShuffleLog.create(tmp_path_factory.mktemp("log"), KEY)
    count: dict[int, int] = {}
    ended: set[int] = set()
    persisted: set[tuple[int, int]] = set()
    here: set[tuple[int, int]] = set()
    for event, m in events:
        seq = count.get(m, 0)
        mine = [f for f in log.frames().tolist() if f[0] == m]
        if event in {"put", "last"} and m not in ended:
            put(log, m, seq, seq + 1 if event == "last" else 0)
            count[m] = seq + 1
            here.add((m, seq))
            if event == "last":
                ended.add(m)
        elif event == "persist":
            log.note_persisted(log.frames()[log.frames()["map"] == m])
            persisted |= {f for f in here if f[0] == m}
        elif event == "free" and all(f in persisted for f in here if f[0] == m):
            log.free(keys_of(log, m))
            here = {f for f in here if f[0] != m}
        elif event == "abort" and m not in ended:
            assert log.abort(m, 0, None, epoch=0) == len(mine)
            here = {f for f in here if f[0] != m}
            if m in count:
                ended.add(m)
    complete = {m for m in ended if any(f[0] == m for f in log.frames().tolist())}
    size = 50 + 20
    found = log.holdings()
    fresh = here - persisted
    assert found.complete_bytes == size * sum(f[0] in complete for f in fresh)
    assert found.unfinished_bytes == size * sum(f[0] not in complete for f in fresh)
    assert found.persisted_bytes == size * len(here & persisted)
    assert (found.oldest is None) == (not fresh)
    assert log.space.used_bytes == size * len(here)
    log.close()


def test_sizes_of_rows(log: ShuffleLog) -> None:
    put(log, 0, 0, 1, size=123)
    snapshot, _ = log.snapshot(keys_of(log, 0))
    assert disk_bytes_of(snapshot.rows) == 123 + 20 == log.space.used_bytes
