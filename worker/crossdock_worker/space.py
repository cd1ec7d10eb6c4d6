"""The two logs of a shuffle as space: handed out to frames, and given back when nobody reads it."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from crossdock.errors import CrossdockError, DataCorrupt
from crossdock.wire.crc import I64
from crossdock.wire.frame import FrameHeader
from crossdock.wire.tables import Table
from crossdock_worker import stripes
from crossdock_worker.files import RangeFile
from crossdock_worker.pins import Pins
from crossdock_worker.rows import (
    Reservation,
    Snapshot,
    disk_bytes_of,
    first_damaged,
    index_bytes_of,
)
from crossdock_worker.stripes import StripedFile

log = structlog.get_logger()


def remove_log(directory: Path) -> None:
    """Delete the files of a shuffle, and the directories that are empty then."""
    for name in (
        *stripes.names("payload"),
        "index.log",
        "journal",
    ):  # without a journal there is no log
        with suppress(OSError):  # then the next start deletes it
            (directory / name).unlink(missing_ok=True)
    for empty in (directory, directory.parent):
        with suppress(OSError):  # a seal may be there, or another generation
            empty.rmdir()


class LogSpace:
    """Payload and index log of one shuffle. Its owner locks, but for `pins` and `punch`."""

    def __init__(self, directory: Path) -> None:
        """Open the files, made if need be."""
        with ExitStack() as opened:  # if one file cannot be opened, the others are closed
            self.payload = StripedFile(directory, "payload")
            opened.callback(self.payload.close)
            self.index = RangeFile(directory / "index.log")
            opened.pop_all()
        self.pins: Pins[Table] = Pins()
        """Who reads; `ROW`s of frames that are gone wait for them."""
        self.leaving_bytes = 0
        """Of frames that are gone and whose space is not given back yet."""

    @property
    def used_bytes(self) -> int:
        """Bytes handed out and not given back."""
        return self.payload.used_bytes + self.index.used_bytes

    def restore(self, rows: Table, *, gone: bool) -> None:
        """Take the ranges of these frames as handed out, after a restart.

        Args:
            rows: `ROW`s.
            gone: whether other frames are gone, of which a crash may have left the space.
        """
        self.payload.restore(rows["payload_at"].astype(np.int64), rows["payload_bytes"])
        self.index.restore(rows["index_at"], index_bytes_of(rows["pieces"].astype(np.int64)))
        if gone:
            attempted(self.payload.punch_unused)
            attempted(self.index.punch_unused)

    def damage(self, rows: Table) -> DataCorrupt | None:
        """Look whether both logs are as long as their ranges say, and the index is intact."""
        for file in (*self.payload.files, self.index):
            size = file.size
            if size < file.end:
                return DataCorrupt(f"{file.path} ends at offset {size}, not {file.end}")
        damaged = first_damaged(rows, self.index.mapped())
        if damaged is not None:
            return DataCorrupt(f"{self.index.path} is damaged at offset {damaged['index_at']}")
        return None

    def cut_short(self, snapshot: Snapshot) -> tuple[RangeFile, int] | None:
        """Return the file that ends before what a snapshot needs of it, if any, and its size."""
        files = (*self.payload.files, self.index)
        for file, end in zip(files, (*snapshot.payload_ends, snapshot.index.nbytes), strict=True):
            if (size := file.size) < end:
                return file, size
        return None

    def reserve(self, header: FrameHeader) -> Reservation:
        """Hand out ranges for a frame."""
        index_bytes = index_bytes_of(header.pieces)
        return Reservation(
            self.payload.reserve(header.payload_bytes),
            header.payload_bytes,
            self.index.reserve(index_bytes),
            index_bytes,
        )

    def written(self, reservation: Reservation) -> None:
        """Take note that nobody writes to ranges any more, whatever became of them."""
        self.payload.written(reservation.payload_at)

    def give_back(self, reservation: Reservation) -> None:
        """Take back ranges in which no frame became visible."""
        self.payload.give_back(reservation.payload_at, reservation.payload_bytes)
        self.index.give_back(reservation.index_at, reservation.index_bytes)

    def retire(self, rows: Table) -> None:
        """Let the space of frames go once all reads that are under way have ended."""
        if len(rows):
            self.leaving_bytes += disk_bytes_of(rows)
            self.pins.retire(rows)

    def punch(self, rows: Table) -> bool:
        """Give the disk space of `pins.due` frames back; returns whether it could.

        Needs no lock: the ranges are nobody's yet.
        """
        return all(
            attempted(partial(file.punch, offset, size))
            for file, ranges in self._ranges(rows)
            for offset, size in ranges
        )

    def take_back(self, rows: Table) -> None:
        """Hand out the ranges of `pins.due` frames again."""
        for file, ranges in self._ranges(rows):
            for offset, size in ranges:
                file.give_back(offset, size)
        self.leaving_bytes -= disk_bytes_of(rows)

    def _ranges(self, rows: Table) -> list[tuple[RangeFile | StripedFile, list[tuple[int, int]]]]:
        index_bytes = index_bytes_of(rows["pieces"].astype(np.int64))
        return [
            (self.payload, _joined(rows["payload_at"].astype(np.int64), rows["payload_bytes"])),
            (self.index, _joined(rows["index_at"].astype(np.int64), index_bytes)),
        ]

    def close(self) -> None:
        """Close the files."""
        self.payload.close()
        self.index.close()


def attempted(work: Callable[[], None]) -> bool:
    """Do what gives space back; returns False after a warning if the disk does not let it."""
    try:
        work()
    except CrossdockError as error:
        log.warning("disk space was not given back", problem=str(error))
        return False
    return True


def _joined(offsets: I64, sizes: Table | I64) -> list[tuple[int, int]]:
    """Return (offset, size) of the stretches that ranges make up, rising."""
    order = np.argsort(offsets)
    starts, lengths = offsets[order], sizes[order].astype(np.int64)
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    if not len(starts):
        return []
    first = np.flatnonzero(np.concatenate(([True], starts[1:] != starts[:-1] + lengths[:-1])))
    joined = np.add.reduceat(lengths, first)
    return list(zip(starts[first].tolist(), joined.tolist(), strict=True))
