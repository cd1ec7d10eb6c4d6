"""What a journal says after a restart: which frames are here, and what is known of attempts."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from crossdock.wire import tables
from crossdock_worker.held import HeldFrames
from crossdock_worker.journal import Kind, Record
from crossdock_worker.rows import ROW, disk_bytes_of

PARTITIONS: Final = struct.Struct("<I")
ABORTED: Final = struct.Struct("<IQ")


@dataclass(slots=True)
class Restored:
    """What became of a journal's frames."""

    gone: bool = False
    """Whether some are not here any more: a crash may have left their space on the disk."""
    freed_bytes: int = 0
    """On disk, of those that are in the store."""


def restore(records: Sequence[Record], held: HeldFrames) -> Restored:
    """Fill in what the records behind the first one say."""
    restored = Restored()
    aborted: set[tuple[int, int]] = set()
    for record in records:
        if record.kind is Kind.FRAME:
            held.add(np.frombuffer(record.body, ROW)[0])
        elif record.kind is Kind.FREE:
            keys = tables.decode(tables.FRAME_KEY, record.body, what="journal")
            restored.freed_bytes += disk_bytes_of(held.remove(keys.tolist()))
            restored.gone = True
        elif record.kind is Kind.ABORT:
            aborted.add(ABORTED.unpack(record.body))
    if aborted:  # at once: no frame comes after the abort of its attempt
        restored.gone = True
        frames = held.rows[["map", "attempt", "seq"]].tolist()
        held.remove(f for f in frames if f[:2] in aborted)
    for key in aborted:
        held.attempts.abort(key)
    return restored
