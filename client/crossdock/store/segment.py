"""The format of a segment: one object of bounded size with pieces of many partitions.

    batch | batch | … | footer | footer length u32 | magic "XDSG" | crc32c of these two, u32

A batch is what a worker answers to a read (`crossdock.wire.blocks`): header, columns, payload. Its
pieces, and the batches, come by (partition, map, attempt, seq, position), so one partition's bytes
lie together, and neighbouring partitions next to each other. The footer, a container with the
directory below, is for those who have nothing but the segment; readers find the same in the
manifest and need but one ranged request for index and payload.
"""

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from crossdock.store import container
from crossdock.store.errors import ObjectDamaged
from crossdock.wire import crc
from crossdock.wire.crc import I64, U32, BytesLike
from crossdock.wire.tables import Table

MIB: Final = 2**20

BATCH: Final = np.dtype(
    [
        ("segment", "<u4"),
        ("first_partition", "<u4"),
        ("last_partition", "<u4"),
        ("first_map", "<u4"),
        ("last_map", "<u4"),
        ("pieces", "<u4"),
        ("offset", "<u8"),
        ("nbytes", "<u8"),
    ]
)
"""One batch, 40 bytes: where it lies in which segment, and the partitions and maps in it, both ends
included. Of a batch with several partitions the maps are those of all pieces."""

_TRAILER: Final = struct.Struct("<I4sI")
TRAILER_BYTES: Final = _TRAILER.size
_MAGIC: Final = b"XDSG"
_KIND: Final = "segment"

SMALL_BATCH_BYTES: Final = 1 * MIB
"""A batch of this size ends with its partition: so much is read for nothing beside one at most."""
LARGE_BATCH_BYTES: Final = 8 * MIB
"""A batch ends here, also within a partition."""
LARGE_BATCH_PIECES: Final = 64 * 1024


def cut_batches(partition: U32, length: U32) -> list[tuple[int, int]]:
    """Return the batches (first piece, end) of pieces in order; one iteration a batch."""
    total = len(partition)
    ends = np.cumsum(length, dtype=np.int64)
    bounds: I64 = np.append(np.flatnonzero(partition[1:] != partition[:-1]) + 1, total)
    batches = []
    start = 0
    while start < total:
        before = int(ends[start - 1]) if start else 0
        enough = int(np.searchsorted(ends, before + SMALL_BATCH_BYTES))
        soft = int(bounds[min(int(np.searchsorted(bounds, enough, side="right")), len(bounds) - 1)])
        hard = int(np.searchsorted(ends, before + LARGE_BATCH_BYTES, side="right"))
        hard = min(max(hard, start + 1), start + LARGE_BATCH_PIECES)
        batches.append((start, min(soft, hard, total)))
        start = batches[-1][1]
    return batches


def footer(batches: Table) -> bytes:
    """Return what comes after the batches."""
    packed = container.pack(_KIND, {}, {"batches": batches})
    head = struct.pack("<I4s", len(packed), _MAGIC)
    return packed + head + struct.pack("<I", crc.extend(0, head))


def footer_bytes(batches: int) -> int:
    """Return a bound of the size of a footer."""
    return batches * BATCH.itemsize + 256


def directory(tail: BytesLike, *, where: str) -> Table:
    """Return the `BATCH`es of a segment whose last bytes these are.

    Raises:
        ObjectDamaged: it is damaged, or the footer is longer than `tail`.
    """
    view = memoryview(tail)
    if len(view) < _TRAILER.size:
        raise ObjectDamaged(f"{where} is cut short")
    size, magic, checksum = _TRAILER.unpack(view[-_TRAILER.size :])
    if magic != _MAGIC or crc.extend(0, view[-_TRAILER.size : -4]) != checksum:
        raise ObjectDamaged(f"{where} ends as no segment does")
    if size + _TRAILER.size > len(view):
        raise ObjectDamaged(f"the footer of {where} has {size} bytes")
    packed = view[-_TRAILER.size - size : -_TRAILER.size]
    return container.unpack(_KIND, packed, {"batches": BATCH}, where=where).tables["batches"]


def overlapping(
    batches: Table, partitions: tuple[int, int], maps: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Return which batches may have pieces of these partitions and maps, both half open."""
    return np.asarray(
        (batches["last_partition"] >= partitions[0])
        & (batches["first_partition"] < partitions[1])
        & (batches["last_map"] >= maps[0])
        & (batches["first_map"] < maps[1])
    )
