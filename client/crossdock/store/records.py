"""The record of a persist run: which frames it has put into the store, and where.

A record is immutable, and written after all segments of its run. Every frame that it names lies
whole in them. Views that are made later find persisted frames by the records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from crossdock.store import container
from crossdock.store.errors import ObjectDamaged
from crossdock.store.layout import LOG_SUFFIX
from crossdock.store.segment import BATCH
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock.wire.crc import BytesLike
from crossdock.wire.tables import Table

Members = npt.NDArray[np.bool_]

_KIND: Final = "record"
BITS: Final = np.dtype([("bits", "u1")])
_DTYPES: Final = {
    "frames": tables.FRAME,
    "batches": BATCH,
    "members": BITS,
    "statistics": tables.STATISTICS,
}


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """One segment as the store has it."""

    key: str
    """Relative to the store's URL."""
    nbytes: int
    etag: str
    crc32c: int


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What one run has persisted."""

    run: str
    worker: str
    shuffle: ShuffleKey
    partitions: int
    segments: Sequence[SegmentInfo]
    frames: Table
    """`tables.FRAME`s, sorted."""
    batches: Table
    """`segment.BATCH`es in the order of segments and offsets."""
    members: Members
    """bool[segments, frames]: which frames have pieces in which segment."""
    statistics: Table
    """`tables.STATISTICS`[P] of all its frames."""

    def encode(self) -> bytes:
        """Return the bytes of the object."""
        meta = {
            "run": self.run,
            "worker": self.worker,
            **shuffle_to_json(self.shuffle),
            "partitions": self.partitions,
            "segments": segments_to_json(self.segments),
        }
        return container.pack(
            _KIND,
            meta,
            {
                "frames": self.frames,
                "batches": self.batches,
                "members": pack_members(self.members),
                "statistics": self.statistics,
            },
        )

    @classmethod
    def decode(cls, data: BytesLike, *, where: str) -> "Record":
        """Read a record; raises `ObjectDamaged`."""
        found = container.unpack(_KIND, data, _DTYPES, where=where)
        meta: Any = found.meta
        frames = found.tables["frames"]
        try:
            segments = segments_from_json(meta["segments"])
            return cls(
                str(meta["run"]),
                str(meta["worker"]),
                shuffle_from_json(meta),
                int(meta["partitions"]),
                segments,
                frames,
                found.tables["batches"],
                unpack_members(found.tables["members"], len(segments), len(frames)),
                found.tables["statistics"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ObjectDamaged(f"{where} lacks {error}") from error

    @property
    def memory_bytes(self) -> int:
        """About what it takes in memory."""
        parts = (self.frames, self.batches, self.members, self.statistics)
        return sum(part.nbytes for part in parts) + 300 * len(self.segments)

    @property
    def is_log(self) -> bool:
        """Whether it is of a log object, which goes once longer runs have its frames."""
        return any(segment.key.endswith(LOG_SUFFIX) for segment in self.segments)

    @property
    def payload_bytes(self) -> int:
        """Bytes of the frames."""
        return int(self.frames["payload_bytes"].sum(dtype=np.uint64))


def pack_members(members: Members) -> Table:
    """Return bool[segments, frames] as bits, each segment's from a byte of its own on."""
    return np.packbits(members, axis=1).reshape(-1).view(BITS)


def unpack_members(bits: Table, segments: int, frames: int) -> Members:
    """Return what `pack_members` was given."""
    rows = bits["bits"].reshape(segments, -(-frames // 8))
    return np.unpackbits(rows, axis=1, count=frames).astype(bool)


def shuffle_to_json(key: ShuffleKey) -> dict[str, object]:
    """Return the fields that name a shuffle."""
    return {"job": key.job, "shuffle": key.name, "generation": key.generation}


def shuffle_from_json(meta: Any) -> ShuffleKey:
    """Read what `shuffle_to_json` made."""
    return ShuffleKey(str(meta["job"]), str(meta["shuffle"]), int(meta["generation"]))


def segments_to_json(segments: Sequence[SegmentInfo]) -> list[list[object]]:
    """Return segments as lists [key, bytes, ETag, CRC32C]."""
    return [[s.key, s.nbytes, s.etag, s.crc32c] for s in segments]


def segments_from_json(rows: Any) -> tuple[SegmentInfo, ...]:
    """Read what `segments_to_json` made."""
    return tuple(SegmentInfo(str(k), int(n), str(e), int(c)) for k, n, e, c in rows)
