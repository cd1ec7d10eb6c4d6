"""Appending to a journal on a disk that is full or breaks: what was acked is read after it all."""

import errno
import os
from pathlib import Path

import pytest

from crossdock.errors import CrossdockError, Overloaded
from crossdock.views import ShuffleKey
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader
from crossdock_worker.shuffle_log import ShuffleLog
from raw import make_frame


class FaultyDisk:
    """Journals' writes are short, and cutting files fails, while it is told so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.short = False
        self.stuck = False
        self._write, self._ftruncate = os.write, os.ftruncate
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "ftruncate", self.ftruncate)

    def write(self, fd: int, data: bytes) -> int:
        return self._write(fd, data[: len(data) // 2] if self.short else data)

    def ftruncate(self, fd: int, size: int) -> None:
        if self.stuck:
            raise OSError(errno.EIO, "told to fail")
        self._ftruncate(fd, size)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FaultyDisk:
    return FaultyDisk(monkeypatch)


@pytest.fixture
def log(tmp_path: Path) -> ShuffleLog:
    return ShuffleLog.create(tmp_path / "log", ShuffleKey("job", "words", 0))


def put(log: ShuffleLog, map_id: int, count: int = 1) -> None:
    data = make_frame([(1, b"abc", 1)], partitions=8, map_id=map_id, count=count)
    header = FrameHeader.decode(data[:HEADER_BYTES])
    columns = Columns.decode(header, data[HEADER_BYTES : HEADER_BYTES + header.columns_bytes])
    with log.reserve(header) as reservation:
        log.payload.write(reservation.payload_at, b"abc")
        assert log.commit(header, columns, reservation)


def maps(log: ShuffleLog) -> list[int]:
    return sorted(log.frames()["map"].tolist())


def maps_after_restart(log: ShuffleLog) -> list[int]:
    log.close()
    again = ShuffleLog.open(log.directory, log.key)
    assert again is not None
    found = maps(again)
    again.close()
    return found


def test_a_short_write_leaves_the_journal_as_it_was(log: ShuffleLog, disk: FaultyDisk) -> None:
    put(log, 0)
    disk.short = True
    with pytest.raises(Overloaded):
        put(log, 1)
    disk.short = False
    put(log, 2)
    assert maps_after_restart(log) == [0, 2]


@pytest.mark.parametrize("healed", [False, True])
def test_nothing_is_acked_behind_a_fragment(
    log: ShuffleLog, disk: FaultyDisk, *, healed: bool
) -> None:
    put(log, 0)
    put(log, 5, count=0)
    disk.short = disk.stuck = True
    with pytest.raises(CrossdockError, match="journal"):
        put(log, 1)
    disk.short = False
    for _ in range(2):
        with pytest.raises(CrossdockError, match="journal"):
            put(log, 2)
        with pytest.raises(CrossdockError, match="journal"):
            log.abort(5, 0, None, epoch=0)
    assert maps(log) == [0, 5], "reads go on"
    disk.stuck = False
    if healed:
        put(log, 4)
    assert maps_after_restart(log) == ([0, 4, 5] if healed else [0, 5])
