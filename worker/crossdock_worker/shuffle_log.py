"""One generation of one shuffle on this worker's disk.

    journal       what is visible (journal.py); a frame exists when its record does
    payload.log   payloads, each a contiguous range
    index.log     per frame u32[5 n]: the columns as they came, then where each piece ends
    runs/         what of it was persisted (runs.py)

Memory holds one row per frame; the index of pieces is read through a map of its file.
"""

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np

from crossdock.errors import (
    AttemptConflict,
    DataCorrupt,
    JobFenced,
    PlacesUnknown,
    ShuffleMismatch,
    ShuffleReleased,
    StaleEpoch,
)
from crossdock.views import ShuffleKey
from crossdock.wire.crc import I64
from crossdock.wire.frame import Columns, FrameHeader
from crossdock.wire.tables import Table
from crossdock_worker import journal
from crossdock_worker.attempts import Attempts, GivenUp, of_attempts
from crossdock_worker.files import RangeFile, make_directory, writing
from crossdock_worker.journal import Kind
from crossdock_worker.rows import (
    ROW,
    FrameId,
    Reservation,
    Snapshot,
    first_damaged,
    frame_id,
    frames_of,
    index_bytes_of,
    is_row_of,
    row_of,
)
from crossdock_worker.runs import Runs

_PARTITIONS: Final = struct.Struct("<I")
_ABORT: Final = struct.Struct("<IQ")
_FIRST_ROWS: Final = 64
_KEYS_AT_ONCE: Final = 16_384


class ShuffleLog:
    """Frames of one generation of a shuffle. Safe to use from many threads."""

    def __init__(self, directory: Path, key: ShuffleKey, given_up: GivenUp | None = None) -> None:
        """Create the log (`create`) or replay it (`open`); do not call directly."""
        self.directory = directory
        self.key = key
        self.partitions = 0
        """P; 0 until a frame is visible, since one that is refused must not decide it."""
        self._lock = threading.Lock()
        self._writers = 0
        self._closed: type[JobFenced | ShuffleReleased] | None = None
        self._epoch = 0
        self._rows = np.zeros(_FIRST_ROWS, ROW)
        self._count = 0
        self._at: dict[FrameId, int] = {}
        self._attempts = Attempts((key.name, key.generation), given_up or GivenUp())
        self._forgotten = 0
        self._damage: DataCorrupt | None = None
        with ExitStack() as opened:  # if one file cannot be opened, the others are closed
            self.payload = RangeFile(directory / "payload.log")
            opened.callback(self.payload.close)
            self.index = RangeFile(directory / "index.log")
            opened.callback(self.index.close)
            self._journal = journal.Appender(directory / "journal")
            opened.pop_all()
        self.runs = Runs(directory / "runs")

    @classmethod
    def create(
        cls, directory: Path, key: ShuffleKey, given_up: GivenUp | None = None
    ) -> "ShuffleLog":
        """Make a new, empty log."""
        make_directory(directory)
        return cls(directory, key, given_up)

    @staticmethod
    def remove(directory: Path) -> None:
        """Delete a log's files, and the directories that are empty then."""
        for name in ("payload.log", "index.log", "journal"):  # without a journal there is no log
            with suppress(OSError):  # then the next start deletes it
                (directory / name).unlink(missing_ok=True)
        for empty in (directory, directory.parent):
            with suppress(OSError):  # a seal may be there, or another generation
                empty.rmdir()

    @classmethod
    def open(
        cls, directory: Path, key: ShuffleKey, given_up: GivenUp | None = None
    ) -> "ShuffleLog | None":
        """Replay a log after a restart; None when no frame of it was ever visible.

        Damage does not raise: the log remembers it and raises it to whoever asks for frames.
        """
        path = directory / "journal"
        if not path.exists():
            return None
        records, damage = journal.replay_sound(path)
        if len(records) <= 1 and damage is None:
            return None
        log = cls(directory, key, given_up)
        log.partitions = _PARTITIONS.unpack(records[0].body)[0] if records else 1
        log._damage = damage
        log._restore(records[1:])
        return log

    def _restore(self, records: list[journal.Record]) -> None:
        aborted: set[tuple[int, int]] = set()
        for record in records:
            if record.kind is Kind.FRAME:
                self._remember(np.frombuffer(record.body, ROW)[0])
            elif record.kind is Kind.ABORT:
                aborted.add(_ABORT.unpack(record.body))
        for key in aborted:  # at once: no frame comes after the abort of its attempt
            self._attempts.abort(key)
        rows = self._rows[: self._count]
        keys = zip(rows["map"].tolist(), rows["attempt"].tolist(), strict=True)
        rows = rows[np.fromiter((k not in aborted for k in keys), bool, len(rows))]
        self._rows, self._count = np.concatenate((rows, np.zeros(_FIRST_ROWS, ROW))), len(rows)
        self._at = {frame_id(row): i for i, row in enumerate(rows)}
        self.payload.restore(rows["payload_at"], rows["payload_bytes"])
        self.index.restore(rows["index_at"], index_bytes_of(rows["pieces"].astype(np.int64)))
        self._damage = self._damage or self._check_files()

    def _check_files(self) -> DataCorrupt | None:
        """Check that both logs are as long as the journal says and that the index is intact."""
        for file in (self.payload, self.index):
            size = os.fstat(file.fd).st_size
            if size < file.end:
                return DataCorrupt(f"{file.path} ends at offset {size}, not {file.end}")
        damaged = first_damaged(self._rows[: self._count], self.index.mapped())
        if damaged is not None:
            return DataCorrupt(f"{self.index.path} is damaged at offset {damaged['index_at']}")
        return None

    # -- writing ---------------------------------------------------------------------------

    def find(self, header: FrameHeader) -> bool:
        """Whether this very frame is here already; raises why it cannot come any more."""
        with self._lock:
            return self._find(header)

    def _find(self, header: FrameHeader) -> bool:
        self._raise_closed()
        self._check_epoch(header.epoch, "frame")
        if self.partitions not in {0, header.partitions}:
            raise ShuffleMismatch(
                f"shuffle {self.key.name!r} has {self.partitions} partitions, the frame says "
                f"{header.partitions}"
            )
        at = self._at.get((header.map_id, header.attempt, header.seq))
        if at is None:
            self._attempts.check(header)
            return False
        row = self._rows[at]
        if not is_row_of(row, header):
            raise AttemptConflict(
                f"map {header.map_id} attempt {header.attempt} frame {header.seq} is here "
                "already, from another writer or with other contents"
            )
        return True

    @contextmanager
    def reserve(self, header: FrameHeader) -> Iterator[Reservation]:
        """Yield ranges for one frame; unless `commit` took them, they are given back."""
        index_bytes = index_bytes_of(header.pieces)
        with self._lock:
            self._raise_closed()
            self._writers += 1
            reservation = Reservation(
                self.payload.reserve(header.payload_bytes),
                header.payload_bytes,
                self.index.reserve(index_bytes),
                index_bytes,
            )
        try:
            yield reservation
        finally:
            with self._lock:
                self._writers -= 1
                if not reservation.taken:
                    self.payload.give_back(reservation.payload_at, reservation.payload_bytes)
                    self.index.give_back(reservation.index_at, reservation.index_bytes)
                self._close_when_idle()

    def commit(self, header: FrameHeader, columns: Columns, reservation: Reservation) -> bool:
        """Make a frame visible whose payload is written; False if it already was."""
        self.index.write(reservation.index_at, columns.encoded)
        ends = columns.ends.astype("<u4", copy=False)
        self.index.write(reservation.index_at + len(columns.encoded), ends.view(np.uint8).data)
        row = row_of(header, columns, reservation)
        with self._lock:
            if self._find(header):  # again: much may have happened since the frame's head came
                return False
            record = journal.encode(Kind.FRAME, row.tobytes())
            if not self.partitions:
                record = journal.encode(Kind.SHUFFLE, _PARTITIONS.pack(header.partitions)) + record
            self._journal.append(record)
            self.partitions = header.partitions
            self._remember(row)
            reservation.taken = True
        return True

    def abort(self, map_id: int, attempt: int, writer: bytes | None, *, epoch: int) -> int:
        """Give up an attempt that was never committed; return how many of its frames went.

        With `writer`, only that writer's: another's attempt of the same number is a conflict. One
        without frames here stays as it is: they may be elsewhere, and a record of each attempt
        that never came would be a journal without a bound.
        """
        key = (map_id, attempt)
        with self._lock:
            self._raise_closed()
            self._check_epoch(epoch, "call")
            if not self._attempts.is_of(key, writer):
                return 0
            if self._attempts.is_committed(key):
                raise AttemptConflict(f"map {map_id} attempt {attempt} is committed already")
            rows = self._rows[: self._count]
            mine = rows[(rows["map"] == map_id) & (rows["attempt"] == attempt)]
            self._journal.append(journal.encode(Kind.ABORT, _ABORT.pack(map_id, attempt)))
            self._forget(map_id, attempt)
            for row in mine:
                self.payload.give_back(int(row["payload_at"]), int(row["payload_bytes"]))
                self.index.give_back(int(row["index_at"]), index_bytes_of(int(row["pieces"])))
            return len(mine)

    def _remember(self, row: np.void) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate((self._rows, np.zeros(self._count, ROW)))
        self._rows[self._count] = row
        map_id, attempt, seq = frame_id(row)
        self._at[map_id, attempt, seq] = self._count
        self._count += 1
        writer = row["writer"].tobytes()
        self._attempts.remember((map_id, attempt), seq, int(row["count"]), writer)

    def _forget(self, map_id: int, attempt: int) -> None:
        """Drop an attempt's frames; the last rows move to where theirs were."""
        rows = self._rows[: self._count]
        mine = np.flatnonzero((rows["map"] == map_id) & (rows["attempt"] == attempt))
        self._attempts.abort((map_id, attempt))
        self._forgotten += 1
        for at in mine[::-1].tolist():
            del self._at[frame_id(self._rows[at])]
            self._count -= 1
            if at != self._count:
                last = self._rows[self._count]
                self._rows[at] = last
                self._at[frame_id(last)] = at

    # -- reading ---------------------------------------------------------------------------

    def frames(self, attempts: Table | None = None) -> Table:
        """Return the frames held (`tables.FRAME`), of these attempts or all."""
        with self._lock:
            self._raise_closed()
            self.raise_damage()
            rows = self._rows[: self._count].copy()
        frames = frames_of(rows)
        if attempts is None:
            return frames
        return frames[of_attempts(frames, attempts)]

    def snapshot(self, keys: Table) -> tuple[Snapshot, Table]:
        """Return the frames with these keys, and the keys that are not here.

        Raises `PlacesUnknown` at once when they are more than the frames that are.
        """
        while True:
            found, forgotten = self._look_up(keys)
            with self._lock:
                self._raise_closed()
                self.raise_damage()
                if forgotten != self._forgotten:  # rows were moved meanwhile
                    continue
                here = found >= 0
                rows = self._rows[found[here]]
                return (
                    Snapshot(rows, self.payload.mapped(), self.index.mapped().view("<u4")),
                    keys[~here],
                )

    def _look_up(self, keys: Table) -> tuple[I64, int]:
        """Return where frames are, -1 for what is not, while no more aborts than so many came."""
        with self._lock:
            self._raise_closed()
            self.raise_damage()
            if len(keys) > self._count:
                raise PlacesUnknown(f"{len(keys)} frames are asked for, {self._count} are here")
            forgotten = self._forgotten
        found = np.empty(len(keys), np.int64)
        for start in range(0, len(keys), _KEYS_AT_ONCE):  # pushes wait for the lock
            some = keys[start : start + _KEYS_AT_ONCE].tolist()
            with self._lock:
                found[start : start + len(some)] = [self._at.get(key, -1) for key in some]
        return found, forgotten

    def payload_fd(self) -> int:
        """Return a duplicate of the payload log's descriptor; the caller closes it."""
        with self._lock, writing(self.payload.path):
            self._raise_closed()
            return os.dup(self.payload.fd)

    def raise_damage(self) -> None:
        """Raise what a restart or a read found damaged, if anything."""
        if self._damage is not None:
            raise self._damage

    def note_damage(self, file: RangeFile, offset: int) -> DataCorrupt:
        """Remember damage that a read met, for all who come later; return the error."""
        self._damage = self._damage or DataCorrupt(f"{file.path} is damaged at offset {offset}")
        return self._damage

    def check_maps(self, snapshot: Snapshot) -> None:
        """Raise what is damaged; to read a map behind its file's end would kill the process."""
        with self._lock:
            self._raise_closed()
            for file, mapped in ((self.payload, snapshot.payload), (self.index, snapshot.index)):
                if (size := os.fstat(file.fd).st_size) < mapped.nbytes:
                    self.note_damage(file, size)
            self.raise_damage()

    def check_columns(self, snapshot: Snapshot) -> None:
        """Raise when the index is not what was pushed; `check_maps` comes first."""
        damaged = first_damaged(snapshot.rows, snapshot.index.view(np.uint8))
        if damaged is None:
            return
        with self._lock:
            if frame_id(damaged) in self._at:  # else it was aborted, and another lies there now
                raise self.note_damage(self.index, int(damaged["index_at"]))
        raise PlacesUnknown("a frame of these was aborted")

    @property
    def begun(self) -> bool:
        """Whether a frame of it was ever visible."""
        return self.partitions > 0

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk, journal included."""
        return self.payload.used_bytes + self.index.used_bytes + self._journal.size

    @property
    def counts(self) -> tuple[int, int]:
        """Frames and pieces that are visible."""
        with self._lock:
            return self._count, int(self._rows[: self._count]["pieces"].sum(dtype=np.int64))

    def advance(self, epoch: int) -> None:
        """Let no frame of a lower epoch become visible any more."""
        with self._lock:
            self._epoch = epoch

    def close(self, because: type[JobFenced | ShuffleReleased] = ShuffleReleased) -> None:
        """Take nothing more, and close the files when the last writer has left."""
        with self._lock:
            self._closed = self._closed or because
            self._close_when_idle()

    def _close_when_idle(self) -> None:
        # A descriptor closed under a writer could be another file's by its next write.
        if self._closed and not self._writers and not self._journal.closed:
            self.payload.close()
            self.index.close()
            self._journal.close()

    def _check_epoch(self, epoch: int, what: str) -> None:
        if epoch < self._epoch:
            raise StaleEpoch(
                f"job {self.key.job} is at epoch {self._epoch}, the {what} is from {epoch}"
            )

    def _raise_closed(self) -> None:
        if self._closed is JobFenced:
            raise JobFenced(f"job {self.key.job} was ended")
        if self._closed:
            raise ShuffleReleased(f"shuffle {self.key.name!r} was released")
