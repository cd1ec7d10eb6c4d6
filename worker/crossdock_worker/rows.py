"""What a worker remembers of a frame: one row, in memory and in the journal."""

from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from crossdock.wire import crc, tables
from crossdock.wire.crc import I64, U32
from crossdock.wire.frame import COLUMN_BYTES, Columns, FrameHeader
from crossdock.wire.tables import Table
from crossdock_worker import stripes

ROW: Final = np.dtype([*tables.FRAME.descr, ("payload_at", "<u8"), ("index_at", "<u8")])
"""A frame and where its bytes are, 80 bytes."""

INDEX_BYTES_PER_PIECE: Final = COLUMN_BYTES + 4

Pieces = TypeVar("Pieces", int, npt.NDArray[np.int64])

FrameId = tuple[int, int, int]
"""(map, attempt, seq)."""


@dataclass(slots=True)
class Reservation:
    """Ranges of the logs that one frame is being written to."""

    payload_at: int
    payload_bytes: int
    index_at: int
    index_bytes: int
    taken: bool = False
    """Whether the ranges are a visible frame's, which may be aborted at any moment from then on.

    So who reserved them does not ask the frames whether they are to be given back.
    """

    @property
    def total_bytes(self) -> int:
        return self.payload_bytes + self.index_bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Frames of a shuffle at one moment, and the mapped files that have their bytes."""

    rows: Table
    """`ROW`s, in the order asked for."""
    payload: npt.NDArray[np.uint8]
    """By address (stripes.py)."""
    index: U32
    era: int = 0
    """The log's when it was made: in a later one, some of these frames may be gone."""
    pieces: int = field(init=False)
    payload_bytes: int = field(init=False)
    payload_ends: tuple[int, ...] = field(init=False)
    """Of each file of the payload log, how far these frames reach."""

    def __post_init__(self) -> None:
        """Add up what reads ask for again and again."""
        object.__setattr__(self, "pieces", int(self.rows["pieces"].sum(dtype=np.int64)))
        payload_bytes = int(self.rows["payload_bytes"].sum(dtype=np.uint64))
        object.__setattr__(self, "payload_bytes", payload_bytes)
        at, size = (self.rows[name].astype(np.int64) for name in ("payload_at", "payload_bytes"))
        object.__setattr__(self, "payload_ends", stripes.ends(at, size))


def row_of(header: FrameHeader, columns: Columns, reservation: Reservation) -> np.void:
    """Return the row of a frame that is written where the reservation says."""
    row: np.void = np.zeros(1, ROW)[0]
    row["map"], row["attempt"], row["seq"] = header.map_id, header.attempt, header.seq
    row["count"], row["pieces"] = header.count, header.pieces
    row["payload_bytes"] = header.payload_bytes
    row["rows"] = int(columns.rows.sum(dtype=np.uint64))
    row["columns_crc"], row["payload_crc"] = header.columns_crc, header.payload_crc
    row["writer"] = np.void(header.writer)
    row["payload_at"], row["index_at"] = reservation.payload_at, reservation.index_at
    return row


def frame_id(row: np.void) -> FrameId:
    """Return how the frame of a row is named within its shuffle."""
    return int(row["map"]), int(row["attempt"]), int(row["seq"])


def first_damaged(rows: Table, index: npt.NDArray[np.uint8]) -> np.void | None:
    """Return the first of these rows whose columns in the index log are not what was pushed."""
    for row in rows:
        at = int(row["index_at"])
        columns = index[at : at + int(row["pieces"]) * COLUMN_BYTES]
        if crc.extend(0, columns.data) != int(row["columns_crc"]):
            damaged: np.void = row
            return damaged
    return None


def is_row_of(row: np.void, header: FrameHeader) -> bool:
    """Whether a frame of the same name is this very one: same writer, contents and count."""
    return (
        row["writer"].tobytes() == header.writer
        and int(row["payload_crc"]) == header.payload_crc
        and int(row["columns_crc"]) == header.columns_crc
        and int(row["count"]) == header.count
    )


def index_bytes_of(pieces: Pieces) -> Pieces:
    """Return how many bytes of the index log so many pieces take."""
    return pieces * INDEX_BYTES_PER_PIECE


def disk_bytes_each(rows: Table) -> I64:
    """Return how many bytes of both logs the frame of each row takes."""
    index_bytes = index_bytes_of(rows["pieces"].astype(np.int64))
    sizes: I64 = rows["payload_bytes"].astype(np.int64) + index_bytes
    return sizes


def disk_bytes_of(rows: Table) -> int:
    """Return how many bytes of both logs the frames of rows take together."""
    return int(disk_bytes_each(rows).sum())


def frames_of(rows: Table) -> Table:
    """Return what others are told of rows: `tables.FRAME`s, in their order."""
    frames = np.empty(len(rows), tables.FRAME)
    for name in tables.FRAME.names or ():
        frames[name] = rows[name]
    return frames
