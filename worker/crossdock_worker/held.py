"""The frames of a shuffle that are on this disk: one row each, found by name.

Whether the store has them too is kept here, as are the attempts that they are of.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from crossdock.wire.crc import I64
from crossdock.wire.tables import Table
from crossdock_worker.attempts import Attempts
from crossdock_worker.rows import ROW, FrameId, disk_bytes_of, frame_id

_FIRST_ROWS: Final = 64
_KNOWN: Final = np.dtype([("since", "<f8"), ("persisted", "?")])
"""What is known of a frame beside its row, and not written down."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a shuffle has on this disk, in bytes of its logs, and since when."""

    complete_bytes: int
    """Of attempts whose frames have all come, not in the store."""
    unfinished_bytes: int
    """Of other attempts, not in the store."""
    persisted_bytes: int
    """In the store too."""
    oldest: float | None
    """When the first frame came that is not in the store, on the monotonic clock; None if all are.

    What an earlier process took came when this one began.
    """


class HeldFrames:
    """Rows in no order. Its owner locks."""

    def __init__(self, attempts: Attempts) -> None:
        self.attempts = attempts
        self._rows = np.zeros(_FIRST_ROWS, ROW)
        self._known = np.zeros(_FIRST_ROWS, _KNOWN)
        self._count = 0
        self._at: dict[FrameId, int] = {}
        self._persisted_bytes = 0
        self.pieces = 0
        """Of all rows."""

    def __len__(self) -> int:
        return self._count

    def __contains__(self, frame: FrameId) -> bool:
        return frame in self._at

    @property
    def rows(self) -> Table:
        """All rows; a view of what changes with the next frame."""
        return self._rows[: self._count]

    def row(self, frame: FrameId) -> np.void | None:
        """Return the row of a frame, if it is held."""
        at = self._at.get(frame)
        if at is None:
            return None
        row: np.void = self._rows[at]
        return row

    def find(self, frames: Iterable[FrameId]) -> list[int]:
        """Return where frames are, -1 for those that are not held."""
        return [self._at.get(frame, -1) for frame in frames]

    def at(self, positions: I64) -> Table:
        """Return a copy of the rows at what `find` returned."""
        return self._rows[positions]

    def add(self, row: np.void) -> None:
        """Hold a frame that is not held."""
        if self._count == len(self._rows):
            self._rows = np.concatenate((self._rows, np.zeros(self._count, ROW)))
            self._known = np.concatenate((self._known, np.zeros(self._count, _KNOWN)))
        self._rows[self._count] = row
        self._known[self._count] = (time.monotonic(), False)
        self._at[frame_id(row)] = self._count
        self._count += 1
        self.pieces += int(row["pieces"])
        self.attempts.remember_row(row)

    def mark_persisted(self, frames: Iterable[FrameId]) -> None:
        """Note that frames are in the store."""
        news = []
        for frame in frames:
            at = self._at.get(frame)
            if at is not None and not self._known["persisted"][at]:
                self._known["persisted"][at] = True
                news.append(at)
        rows = self._rows[news]
        self._persisted_bytes += disk_bytes_of(rows)
        self.attempts.no_longer_fresh(rows)

    def remove(self, frames: Iterable[FrameId]) -> Table:
        """Drop those of these frames that are held; the last rows move to where theirs were.

        Returns their `ROW`s: where their bytes still lie. Of their attempts all stays known.
        """
        places = sorted({at for f in frames if (at := self._at.get(f)) is not None}, reverse=True)
        rows, known = self._rows[places], self._known[places]
        self.pieces -= int(rows["pieces"].sum(dtype=np.int64))
        self._persisted_bytes -= disk_bytes_of(rows[known["persisted"]])
        for at in places:
            del self._at[frame_id(self._rows[at])]
            self._count -= 1
            if at != self._count:
                last = self._rows[self._count]
                self._rows[at] = last
                self._known[at] = self._known[self._count]
                self._at[frame_id(last)] = at
        self.attempts.no_longer_fresh(rows[~known["persisted"]])
        return rows

    def abort(self, attempt: tuple[int, int]) -> Table:
        """Drop an attempt for good; returns as `remove` does."""
        rows = self.rows
        mine = rows[(rows["map"] == attempt[0]) & (rows["attempt"] == attempt[1])]
        removed = self.remove(mine[["map", "attempt", "seq"]].tolist())
        self.attempts.abort(attempt)
        return removed

    def holdings(self) -> Holdings:
        """Return what is here; cheap, so that it can be asked for all the time."""
        known = self._known[: self._count]
        since = known["since"][~known["persisted"]]
        complete_bytes = self.attempts.complete_bytes
        return Holdings(
            complete_bytes,
            self.attempts.fresh_bytes - complete_bytes,
            self._persisted_bytes,
            float(since.min()) if len(since) else None,
        )
