"""What is here of each attempt, and which further frames can belong to it."""

import threading
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from crossdock.errors import AttemptConflict
from crossdock.wire import tables
from crossdock.wire.frame import FrameHeader
from crossdock.wire.tables import Table
from crossdock_worker.rows import disk_bytes_each, frame_id, index_bytes_of

_GIVEN_UP: Final = 4096


def with_frames(attempts: Table, frames: Table) -> npt.NDArray[np.bool_]:
    """Return which of the attempts have a frame among these."""
    # Comparing whole keys is slow: most of what is not here is told by a number alone.
    found = np.isin(attempts["map"], frames["map"])
    found[found] = np.isin(attempts["attempt"][found], frames["attempt"])
    found[found] = np.isin(_packed(attempts[found]), _packed(frames))
    return found


def of_attempts(frames: Table, attempts: Table) -> npt.NDArray[np.bool_]:
    """Return which of the frames are of one of these attempts."""
    return np.isin(_packed(frames), _packed(attempts[with_frames(attempts, frames)]))


def _packed(table: Table) -> npt.NDArray[np.void]:
    keys = np.empty(len(table), tables.ATTEMPT)
    keys["map"], keys["attempt"] = table["map"], table["attempt"]
    return keys.view("V12")


@dataclass(slots=True)
class _Attempt:
    writer: bytes
    count: int = 0
    """Frames of the whole attempt, once its last one is here."""
    top_seq: int = 0
    seen: int = 0
    """Frames that came; one that was freed and comes again counts twice."""
    fresh_bytes: int = 0
    """On disk, of frames that are not in the store."""

    @property
    def complete(self) -> bool:
        return 0 < self.count <= self.seen


class GivenUp:
    """Attempts of one job that their writers gave up, of shuffles that are not here too.

    A frame that a writer sent before may still be in this worker's sockets, and would be visible
    for nobody's good. That is soon over, so only the last of them are remembered, and not over a
    restart. Safe to use from many threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: dict[tuple[tuple[str, int], tuple[int, int], bytes], None] = {}

    def note(self, shuffle: tuple[str, int], key: tuple[int, int], writer: bytes) -> None:
        """Remember that a writer gave up (map, attempt) of a shuffle's (name, generation)."""
        with self._lock:
            self._noted[shuffle, key, writer] = None
            while len(self._noted) > _GIVEN_UP:
                del self._noted[next(iter(self._noted))]

    def has(self, shuffle: tuple[str, int], key: tuple[int, int], writer: bytes) -> bool:
        """Whether that is remembered."""
        with self._lock:
            return (shuffle, key, writer) in self._noted


class Attempts:
    """The attempts of one shuffle on one worker. Its owner locks."""

    def __init__(self, shuffle: tuple[str, int], given_up: GivenUp) -> None:
        """Begin empty, for a shuffle's (name, generation)."""
        self._shuffle = shuffle
        self._given_up = given_up
        self._known: dict[tuple[int, int], _Attempt] = {}
        self._aborted: set[tuple[int, int]] = set()
        self.fresh_bytes = 0
        """On disk, of frames that are not in the store."""
        self.complete_bytes = 0
        """Of these, of attempts whose frames have all come."""

    def check(self, header: FrameHeader) -> None:
        """Raise `AttemptConflict` for a frame that cannot belong to its attempt."""
        key = (header.map_id, header.attempt)
        name = f"map {header.map_id} attempt {header.attempt}"
        if key in self._aborted or self._given_up.has(self._shuffle, key, header.writer):
            raise AttemptConflict(f"{name} was aborted by its writer")
        known = self._known.get(key)
        if known is None:
            return
        if known.writer != header.writer:
            raise AttemptConflict(f"{name} is being written by another writer")
        if known.count and (header.seq >= known.count or header.count not in {0, known.count}):
            raise AttemptConflict(f"{name} has {known.count} frames, and this is {header.seq}")
        if header.last and known.top_seq >= header.count:
            raise AttemptConflict(
                f"{name} has a frame {known.top_seq}, and its last one is to be {header.seq}"
            )

    def remember(
        self, key: tuple[int, int], seq: int, count: int, writer: bytes, nbytes: int
    ) -> None:
        """Note a frame that is visible now and takes so many bytes on disk."""
        known = self._known.setdefault(key, _Attempt(writer))
        was_complete = known.complete
        known.count = max(known.count, count)
        known.top_seq = max(known.top_seq, seq)
        known.seen += 1
        if known.complete and not was_complete:
            self.complete_bytes += known.fresh_bytes
        self._add(known, nbytes)

    def remember_row(self, row: np.void) -> None:
        """Note a frame by its `ROW`."""
        map_id, attempt, seq = frame_id(row)
        nbytes = int(row["payload_bytes"]) + index_bytes_of(int(row["pieces"]))
        self.remember((map_id, attempt), seq, int(row["count"]), row["writer"].tobytes(), nbytes)

    def no_longer_fresh(self, rows: Table) -> None:
        """Note frames, by their `ROW`s, that are in the store now, or not here any more."""
        sizes = disk_bytes_each(rows).tolist()
        for key, nbytes in zip(rows[["map", "attempt"]].tolist(), sizes, strict=True):
            known = self._known.get(key)
            if known is not None:
                self._add(known, -nbytes)

    def _add(self, known: _Attempt, nbytes: int) -> None:
        known.fresh_bytes += nbytes
        self.fresh_bytes += nbytes
        if known.complete:
            self.complete_bytes += nbytes

    def abort(self, key: tuple[int, int]) -> None:
        """Take no frame of an attempt any more."""
        self._aborted.add(key)
        known = self._known.pop(key, None)
        if known is not None:
            self._add(known, -known.fresh_bytes)

    def complete(self) -> Table:
        """Return the (map, attempt) table of the attempts whose frames have all come."""
        return np.array([k for k, known in self._known.items() if known.complete], tables.ATTEMPT)

    def is_of(self, key: tuple[int, int], writer: bytes | None) -> bool:
        """Whether an attempt is here and of this writer (None: of any); raises for another's."""
        known = self._known.get(key)
        if known is not None and writer is not None and known.writer != writer:
            raise AttemptConflict(f"map {key[0]} attempt {key[1]} is another writer's")
        return known is not None

    def is_aborted(self, key: tuple[int, int]) -> bool:
        """Whether the attempt was given up."""
        return key in self._aborted

    def is_committed(self, key: tuple[int, int]) -> bool:
        """Whether the attempt's last frame is here."""
        known = self._known.get(key)
        return known is not None and known.count > 0
