"""Fixed-width tables that cross the wire: attempts, frames, statistics. docs/protocol.md.

Each is an array of packed little-endian records, so numpy reads it without a copy and any
language reads it with a struct.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from crossdock.errors import ProtocolError
from crossdock.wire.crc import BytesLike

Table = npt.NDArray[np.void]
"""A structured array of one of the dtypes below."""

ATTEMPT: Final = np.dtype([("map", "<u4"), ("attempt", "<u8")])
"""One (map, attempt), 12 bytes."""

FRAME_KEY: Final = np.dtype([("map", "<u4"), ("attempt", "<u8"), ("seq", "<u4")])
"""What names a frame within its shuffle, 16 bytes."""

FRAME: Final = np.dtype(
    [
        ("map", "<u4"),
        ("attempt", "<u8"),
        ("seq", "<u4"),
        ("count", "<u4"),
        ("pieces", "<u4"),
        ("payload_bytes", "<u8"),
        ("rows", "<u8"),
        ("columns_crc", "<u4"),
        ("payload_crc", "<u4"),
        ("writer", "V16"),
    ]
)
"""What a worker says of a frame that it holds, 64 bytes."""

STATISTICS: Final = np.dtype([("bytes", "<u8"), ("rows", "<u8"), ("blocks", "<u4")])
"""One partition of a view, or of the part of it that one worker serves, 20 bytes."""

BLOCK: Final = np.dtype([("partition", "<u4"), ("map", "<u4"), ("bytes", "<u8"), ("rows", "<u8")])
"""The size of one block, or of the part of it that one worker serves, 24 bytes."""


def encode(table: Table) -> bytes:
    """Return the records back to back."""
    return table.tobytes()


def decode(dtype: np.dtype[np.void], data: BytesLike, *, what: str) -> Table:
    """Read records, or raise `ProtocolError` when the length does not fit."""
    if len(data) % dtype.itemsize:
        raise ProtocolError(f"{what}: {len(data)} bytes are no multiple of {dtype.itemsize}")
    return np.frombuffer(data, dtype)


def attempts(pairs: Mapping[int, int] | Iterable[tuple[int, int]]) -> Table:
    """Return the sorted attempt table of {map: attempt} or of (map, attempt) pairs."""
    rows = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    try:
        table = np.array(rows, ATTEMPT)
    except (OverflowError, ValueError, TypeError) as error:
        raise ProtocolError(f"a map is no u32 or an attempt no u64: {error}") from error
    table.sort(order=("map", "attempt"))
    return table


def frame_keys(frames: Table) -> Table:
    """Return the keys of a table of frames, in its order."""
    keys = np.empty(len(frames), FRAME_KEY)
    for field in ("map", "attempt", "seq"):
        keys[field] = frames[field]
    return keys


def sort_order(table: Table) -> npt.NDArray[np.intp]:
    """Return the order of frames, or frame keys, by (map, attempt, seq)."""
    return np.lexsort((table["seq"], table["attempt"], table["map"]))


def joined_blocks(sizes: Table) -> Table:
    """Return `BLOCK`s by (partition, map), those of one block added up."""
    ordered = sizes[np.lexsort((sizes["map"], sizes["partition"]))]
    new = np.ones(len(ordered), bool)
    new[1:] = (ordered["map"][1:] != ordered["map"][:-1]) | (
        ordered["partition"][1:] != ordered["partition"][:-1]
    )
    starts = np.flatnonzero(new)
    joined = ordered[starts]
    if len(starts):
        joined["bytes"] = np.add.reduceat(ordered["bytes"], starts)
        joined["rows"] = np.add.reduceat(ordered["rows"], starts)
    return joined
