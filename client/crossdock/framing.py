"""Pieces on their way to becoming a frame: collected per worker, then put into a frame's order."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from crossdock.wire.crc import I64, BytesLike
from crossdock.wire.frame import Integers
from crossdock.wire.names import U32_MAX

MAX_PIECES: Final = 262_144
"""Per frame, so that its index stays a few MiB."""


_PIECE_BYTES: Final = 120
"""Of a piece that is written alone: a bytes object, and its place in three lists."""
_INDEX_BYTES: Final = 24
"""Of a piece in a run: its partition, length and rows."""


@dataclass(frozen=True, slots=True)
class Run:
    """Pieces back to back: of a batch, or of single writes; as a frame's contents, sorted."""

    partition: Integers
    length: Integers
    rows: Integers
    payload: BytesLike


@dataclass(slots=True)
class FrameBuffer:
    """Pieces meant for one worker, in the order of writing."""

    nbytes: int = 0
    pieces: int = 0
    held_bytes: int = 0
    """Memory, about: small pieces take many times their own bytes."""
    _runs: list[Run] = field(default_factory=list)
    _partitions: list[int] = field(default_factory=list)
    _payloads: list[bytes] = field(default_factory=list)
    _rows: list[int] = field(default_factory=list)

    def add(self, partition: int, payload: bytes, rows: int) -> int:
        """Append one piece; return how much more memory is held."""
        self._partitions.append(partition)
        self._payloads.append(payload)
        self._rows.append(rows)
        self.nbytes += len(payload)
        self.pieces += 1
        self.held_bytes += (more := len(payload) + _PIECE_BYTES)
        return more

    def add_run(self, run: Run) -> int:
        """Append many pieces, not copied yet; return how much more memory is held."""
        self._close_writes()
        self._runs.append(run)
        self.nbytes += len(run.payload)
        self.pieces += len(run.partition)
        self.held_bytes += (more := len(run.payload) + _INDEX_BYTES * len(run.partition))
        return more

    def _close_writes(self) -> None:
        """Make a run of the single writes so far."""
        if not self._payloads:
            return
        partition = np.array(self._partitions, np.uint32)
        length = np.fromiter(map(len, self._payloads), np.int64, len(self._payloads))
        rows = np.array(self._rows, np.int64)
        order = np.argsort(partition, kind="stable")
        payload = b"".join(map(self._payloads.__getitem__, order.tolist()))
        run = Run(partition[order], length[order], rows[order], payload)
        self._runs.append(run)
        self._partitions, self._payloads, self._rows = [], [], []

    def take(self) -> Run:
        """Return all pieces in a frame's order, neighbours of one partition joined; empties it."""
        self._close_writes()
        runs, self._runs = self._runs, []
        self.nbytes = self.pieces = self.held_bytes = 0
        return _joined(runs[0] if len(runs) == 1 else _merged(runs))


def _merged(runs: list[Run]) -> Run:
    """Bring the pieces of several runs, each sorted, into one order; copies their bytes."""
    partition = np.concatenate([run.partition for run in runs])
    length = np.concatenate([run.length for run in runs]).astype(np.int64)
    rows = np.concatenate([run.rows for run in runs]).astype(np.int64)
    source = np.repeat(np.arange(len(runs)), [len(run.partition) for run in runs])
    starts = np.concatenate([_starts(run.length) for run in runs])
    order = np.argsort(partition, kind="stable")
    partition, length, rows = partition[order], length[order], rows[order]
    source, starts = source[order], starts[order]
    ends = starts + length
    apart = np.ones(len(starts), bool)
    apart[1:] = (source[1:] != source[:-1]) | (starts[1:] != ends[:-1])
    first = np.flatnonzero(apart)
    last = np.append(first[1:], len(starts)) - 1
    views = [memoryview(run.payload) for run in runs]
    spans = zip(source[first].tolist(), starts[first].tolist(), ends[last].tolist(), strict=True)
    return Run(partition, length, rows, b"".join(views[i][a:b] for i, a, b in spans))


def _joined(run: Run) -> Run:
    """Make one piece of neighbours of one partition: a block needs no more of them."""
    partition, rows = run.partition, run.rows.astype(np.int64)
    first = np.flatnonzero(np.concatenate(([True], partition[1:] != partition[:-1])))
    if len(first) == len(partition) or int(rows.sum()) > U32_MAX:  # rows of a piece are a u32
        return run
    return Run(
        partition[first],
        np.add.reduceat(run.length.astype(np.int64), first),
        np.add.reduceat(rows, first),
        run.payload,
    )


def _starts(length: Integers) -> I64:
    return np.cumsum(length, dtype=np.int64) - length
