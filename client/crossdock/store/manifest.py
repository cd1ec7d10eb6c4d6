"""The manifest of a view: all that a reader needs to read it from the store alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from crossdock import views
from crossdock.errors import BlocksLost, Missing, ProtocolError
from crossdock.store import container
from crossdock.store.errors import ObjectDamaged
from crossdock.store.records import (
    BITS,
    Members,
    Record,
    SegmentInfo,
    pack_members,
    segments_from_json,
    segments_to_json,
    shuffle_from_json,
    shuffle_to_json,
    unpack_members,
)
from crossdock.store.segment import BATCH
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock.wire.crc import U32, BytesLike
from crossdock.wire.tables import Table

_KIND: Final = "manifest"
RUN: Final = np.dtype([("run", "<u4")])
_DTYPES: Final = {
    "frames": tables.FRAME,
    "sources": RUN,
    "runs": RUN,
    "batches": BATCH,
    "members": BITS,
    "statistics": tables.STATISTICS,
}


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """A view, and which segments serve it."""

    shuffle: ShuffleKey
    partitions: int
    view: str
    frames: Table
    """The view's `tables.FRAME`s, sorted."""
    sources: U32
    """Per frame the run that serves it; other runs may have it too."""
    segments: Sequence[SegmentInfo]
    runs: U32
    """Per segment the run that it belongs to."""
    batches: Table
    """`segment.BATCH`es by run, in the order of pieces within a run."""
    members: Members
    """bool[segments, frames]: which of the view's frames are read from which segment."""
    statistics: Table
    """`tables.STATISTICS`[P] of the view."""

    @property
    def winners(self) -> dict[int, int]:
        """Map → attempt."""
        return dict(zip(self.frames["map"].tolist(), self.frames["attempt"].tolist(), strict=True))

    def encode(self) -> bytes:
        """Return the bytes of the object."""
        meta = {
            **shuffle_to_json(self.shuffle),
            "partitions": self.partitions,
            "view": self.view,
            "segments": segments_to_json(self.segments),
        }
        return container.pack(
            _KIND,
            meta,
            {
                "frames": self.frames,
                "sources": self.sources.astype("<u4").view(RUN),
                "runs": self.runs.astype("<u4").view(RUN),
                "batches": self.batches,
                "members": pack_members(self.members),
                "statistics": self.statistics,
            },
        )

    @classmethod
    def decode(cls, data: BytesLike, *, where: str) -> "Manifest":
        """Read a manifest; raises `ObjectDamaged`, also when its frames are not its view's."""
        found = container.unpack(_KIND, data, _DTYPES, where=where)
        meta: Any = found.meta
        frames = found.tables["frames"]
        try:
            segments = segments_from_json(meta["segments"])
            made = cls(
                shuffle_from_json(meta),
                int(meta["partitions"]),
                str(meta["view"]),
                frames,
                found.tables["sources"]["run"],
                segments,
                found.tables["runs"]["run"],
                found.tables["batches"],
                unpack_members(found.tables["members"], len(segments), len(frames)),
                found.tables["statistics"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ObjectDamaged(f"{where} lacks {error}") from error
        if views.view_id(made.shuffle, made.partitions, made.frames) != made.view:
            raise ObjectDamaged(f"{where} has other frames than view {made.view}")
        return made


def assemble(
    shuffle: ShuffleKey, frames: Table, statistics: Table, records: Sequence[Record]
) -> Manifest:
    """Make the manifest of a view of what runs have persisted.

    Args:
        shuffle: whose view.
        frames: the view's `tables.FRAME`s, sorted.
        statistics: `tables.STATISTICS`[P] of the view.
        records: of the runs; together they have all the frames.

    Raises:
        BlocksLost: some frame is in none of them; `missing` says which attempts.
        ProtocolError: a record is of another shuffle.
    """
    for record in records:
        if (record.shuffle, record.partitions) != (shuffle, len(statistics)):
            raise ProtocolError(f"run {record.run} persisted another shuffle: {record.shuffle}")
    sources = _sources(frames, records)
    used = np.unique(sources)
    segments: list[SegmentInfo] = []
    runs: list[int] = []
    batches = [np.empty(0, BATCH)]
    members = [np.zeros((0, len(frames)), bool)]
    for new, old in enumerate(used.tolist()):
        part = records[old].batches.copy()
        part["segment"] += len(segments)
        batches.append(part)
        members.append(_members_of(frames, sources == old, records[old]))
        segments += records[old].segments
        runs += [new] * len(records[old].segments)
    return Manifest(
        shuffle,
        len(statistics),
        views.view_id(shuffle, len(statistics), frames),
        frames,
        np.searchsorted(used, sources).astype(np.uint32),
        segments,
        np.array(runs, np.uint32),
        np.concatenate(batches),
        np.concatenate(members),
        statistics,
    )


def _members_of(frames: Table, mine: Members, record: Record) -> Members:
    """Return bool[segments of the record, frames of the view], of the frames that it serves."""
    known = identities(record.frames)
    order = np.argsort(known)
    known = known[order]
    members = np.zeros((len(record.segments), len(frames)), bool)
    at = order[np.searchsorted(known, identities(frames[mine]))]
    members[:, mine] = record.members[:, at]
    return members


def _sources(frames: Table, records: Sequence[Record]) -> U32:
    """Choose a run for each frame: what has most of them first, so that few segments serve."""
    wanted = identities(frames)
    masks = [np.isin(wanted, identities(r.frames)) for r in records]
    sources = np.zeros(len(frames), np.uint32)
    open_ = np.ones(len(frames), bool)
    left: Mapping[int, object] = dict.fromkeys(range(len(records)))
    while open_.any() and left:
        best = max(left, key=lambda i: int((masks[i] & open_).sum()))
        sources[masks[best] & open_] = best
        open_ &= ~masks[best]
        left = {i: None for i in left if i != best}
    if open_.any():
        lost = sorted({(int(f["map"]), int(f["attempt"])) for f in frames[open_]})
        raise BlocksLost([Missing(m, a, "it was not persisted") for m, a in lost])
    return sources


def identities(frames: Table) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Return key and contents of frames as one comparable field: equal means the same frame."""
    fields = ["map", "attempt", "seq", "payload_bytes", "columns_crc", "payload_crc"]
    packed = np.empty(len(frames), np.dtype([(f, tables.FRAME[f]) for f in fields]))
    for field in fields:
        packed[field] = frames[field]
    return packed.view(f"V{packed.dtype.itemsize}")
