"""One generation of one shuffle on this worker's disk.

    journal       what is visible (journal.py); a frame exists when its record does
    payload*.log  payloads, each a contiguous range (stripes.py)
    index.log     per frame u32[5 n]: the columns as they came, then where each piece ends
    runs/         what of it was persisted (runs.py)

Memory holds one row per frame; the index of pieces is read through a map of its file. Space of
frames that go is given back to the file system when nobody can be reading it any more (pins.py).
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from crossdock.wire import tables
from crossdock.wire.crc import I64
from crossdock.wire.frame import Columns, FrameHeader
from crossdock.wire.tables import Table
from crossdock_worker import journal
from crossdock_worker.attempts import Attempts, GivenUp, of_attempts
from crossdock_worker.files import RangeFile, make_directory
from crossdock_worker.held import HeldFrames, Holdings
from crossdock_worker.journal import FREE_KEYS, Kind
from crossdock_worker.replay import ABORTED, PARTITIONS, restore
from crossdock_worker.rows import (
    Reservation,
    Snapshot,
    disk_bytes_of,
    first_damaged,
    frames_of,
    is_row_of,
    row_of,
)
from crossdock_worker.runs import Runs
from crossdock_worker.space import LogSpace, attempted
from crossdock_worker.stripes import StripedFile

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
        self.epoch = 0
        """Of the job, as far as the log was told."""
        self._held = HeldFrames(Attempts((key.name, key.generation), given_up or GivenUp()))
        self._era = 0
        self._damage: DataCorrupt | None = None
        self.freed_bytes = 0
        """On disk, of frames that went because the store has them."""
        self.last_write = self.last_read = time.monotonic()
        with ExitStack() as opened:
            self.space = LogSpace(directory)
            opened.callback(self.space.close)
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
        log.partitions = PARTITIONS.unpack(records[0].body)[0] if records else 1
        log._damage = damage
        log._restore(records[1:])
        return log

    def _restore(self, records: list[journal.Record]) -> None:
        restored = restore(records, self._held)
        self.freed_bytes = restored.freed_bytes
        # A damaged journal may have ended before a frame whose bytes would be punched out.
        self.space.restore(self._held.rows, gone=restored.gone and self._damage is None)
        for run in self.runs.finished():
            self._held.mark_persisted(tables.frame_keys(run.frames).tolist())
        self._damage = self._damage or self.space.damage(self._held.rows)

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
        row = self._held.row((header.map_id, header.attempt, header.seq))
        if row is None:
            self._held.attempts.check(header)
            return False
        if not is_row_of(row, header):
            raise AttemptConflict(
                f"map {header.map_id} attempt {header.attempt} frame {header.seq} is here "
                "already, from another writer or with other contents"
            )
        return True

    @contextmanager
    def reserve(self, header: FrameHeader) -> Iterator[Reservation]:
        """Yield ranges for one frame; unless `commit` took them, they are given back."""
        with self._lock:
            self._raise_closed()
            self._writers += 1
            reservation = self.space.reserve(header)
        try:
            yield reservation
        finally:
            with self._lock:
                self._writers -= 1
                self.space.written(reservation)
                if not reservation.taken:
                    self.space.give_back(reservation)
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
                record = journal.encode(Kind.SHUFFLE, PARTITIONS.pack(header.partitions)) + record
            self._journal.append(record)
            self.partitions = header.partitions
            self._held.add(row)
            reservation.taken = True
            self.last_write = time.monotonic()
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
            if not self._held.attempts.is_of(key, writer):
                return 0
            if self._held.attempts.is_committed(key):
                raise AttemptConflict(f"map {map_id} attempt {attempt} is committed already")
            self._journal.append(journal.encode(Kind.ABORT, ABORTED.pack(map_id, attempt)))
            gone = self._held.abort(key)
            self._retire(gone)
        self.reclaim()
        return len(gone)

    def _retire(self, rows: Table) -> None:
        """Let frames go that are out of sight; readers that have found them may go on."""
        self._era += 1
        self.space.retire(rows)

    # -- what is in the store --------------------------------------------------------------

    def note_persisted(self, frames: Table) -> None:
        """Note that `tables.FRAME`s are in the store."""
        for start in range(0, len(frames), _KEYS_AT_ONCE):  # pushes wait for the lock
            with self._lock:
                some = frames[start : start + _KEYS_AT_ONCE]
                self._held.mark_persisted(tables.frame_keys(some).tolist())

    def free(self, keys: Table) -> int:
        """Drop frames that are in the store; return their bytes on disk.

        What is known of their attempts stays. A frame that comes once more is stored again. Not
        for the event loop.

        Args:
            keys: `tables.FRAME_KEY`s; the caller knows that the store has these very frames.
        """
        freed = 0
        for start in range(0, len(keys), FREE_KEYS):
            with self._lock:
                self._raise_closed()
                self.raise_damage()
                some = keys[start : start + FREE_KEYS]
                here = some[np.array(self._held.find(some.tolist())) >= 0]
                if len(here):
                    self._journal.append(journal.encode(Kind.FREE, tables.encode(here)))
                    gone = self._held.remove(here.tolist())
                    self._retire(gone)
                    freed += disk_bytes_of(gone)
                    self.freed_bytes += disk_bytes_of(gone)
        self.reclaim()
        return freed

    def reclaim(self) -> None:
        """Give space back that no read can reach any more. Not for the event loop."""
        with self._lock:
            due = [] if self._closed else self.space.pins.due()
            self._writers += bool(due)
        if not due:
            return
        rows = np.concatenate(due)
        # On disk first: if the machine died now, frames would come back without their bytes.
        done = attempted(self._journal.sync) and self.space.punch(rows)
        with self._lock:
            (self.space.take_back if done else self.space.pins.retire)(rows)
            self._writers -= 1
            self._close_when_idle()

    def holdings(self) -> Holdings:
        """Return what is here; cheap enough to be asked for all the time."""
        with self._lock:
            return self._held.holdings()

    # -- reading ---------------------------------------------------------------------------

    def frames(self, attempts: Table | None = None) -> Table:
        """Return the frames held (`tables.FRAME`), of these attempts or all."""
        with self._lock:
            self._raise_closed()
            self.raise_damage()
            rows = self._held.rows.copy()
        frames = frames_of(rows)
        if attempts is None:
            return frames
        return frames[of_attempts(frames, attempts)]

    def complete_frames(self) -> Table:
        """Return the frames held of attempts whose frames have all come."""
        with self._lock:
            complete = self._held.attempts.complete()
        return self.frames(complete)

    def snapshot(self, keys: Table) -> tuple[Snapshot, Table]:
        """Return the frames with these keys, and the keys that are not here.

        Raises `PlacesUnknown` at once when they are more than the frames that are.
        """
        while True:
            found, era = self._look_up(keys)
            with self._lock:
                self._raise_closed()
                self.raise_damage()
                if era != self._era:  # rows were moved meanwhile
                    continue
                here = found >= 0
                rows, index = self._held.at(found[here]), self.index.mapped().view("<u4")
                return Snapshot(rows, self.payload.mapped(), index, era), keys[~here]

    def _look_up(self, keys: Table) -> tuple[I64, int]:
        """Return where frames are, -1 for what is not, and in which era that holds."""
        with self._lock:
            self._raise_closed()
            self.raise_damage()
            if len(keys) > len(self._held):
                raise PlacesUnknown(f"{len(keys)} frames are asked for, {len(self._held)} are here")
            era = self._era
        found = np.empty(len(keys), np.int64)
        for start in range(0, len(keys), _KEYS_AT_ONCE):  # pushes wait for the lock
            some = keys[start : start + _KEYS_AT_ONCE].tolist()
            with self._lock:
                found[start : start + len(some)] = self._held.find(some)
        return found, era

    def has_all_of(self, snapshot: Snapshot) -> bool:
        """Whether none of a snapshot's frames can be gone; asked with a pin taken before."""
        return snapshot.era == self._era

    def payload_descriptors(self) -> list[int]:
        """Return duplicates of the payload log's descriptors; the caller closes them."""
        with self._lock:
            self._raise_closed()
            return self.payload.descriptors()

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
            if (cut := self.space.cut_short(snapshot)) is not None:
                self.note_damage(*cut)
            self.raise_damage()

    def check_columns(self, snapshot: Snapshot) -> None:
        """Raise when the index is not what was pushed; `check_maps` comes first."""
        damaged = first_damaged(snapshot.rows, snapshot.index.view(np.uint8))
        if damaged is not None:
            raise self.note_damage(self.index, int(damaged["index_at"]))

    @property
    def payload(self) -> StripedFile:
        """The log of payloads."""
        return self.space.payload

    @property
    def index(self) -> RangeFile:
        """The log of columns."""
        return self.space.index

    @property
    def begun(self) -> bool:
        """Whether a frame of it was ever visible."""
        return self.partitions > 0

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk, journal included."""
        return self.space.used_bytes + self._journal.size

    @property
    def counts(self) -> tuple[int, int]:
        """Frames and pieces that are visible."""
        with self._lock:
            return len(self._held), self._held.pieces

    def advance(self, epoch: int) -> None:
        """Let no frame of a lower epoch become visible any more."""
        with self._lock:
            self.epoch = epoch

    def close(self, because: type[JobFenced | ShuffleReleased] = ShuffleReleased) -> None:
        """Take nothing more, and close the files when the last writer has left."""
        with self._lock:
            self._closed = self._closed or because
            self._close_when_idle()

    def _close_when_idle(self) -> None:
        # A descriptor closed under a writer could be another file's by its next write.
        if self._closed and not self._writers and not self._journal.closed:
            self.space.close()
            self._journal.close()

    def _check_epoch(self, epoch: int, what: str) -> None:
        if epoch < self.epoch:
            raise StaleEpoch(
                f"job {self.key.job} is at epoch {self.epoch}, the {what} is from {epoch}"
            )

    def _raise_closed(self) -> None:
        if self._closed is JobFenced:
            raise JobFenced(f"job {self.key.job} was ended")
        if self._closed:
            raise ShuffleReleased(f"shuffle {self.key.name!r} was released")
