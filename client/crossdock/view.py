"""A view: what readers see of a shuffle. Immutable; places may change beneath it."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from crossdock import views
from crossdock.blocks import Block, BlockBatch
from crossdock.errors import (
    NOT_HERE,
    BlocksLost,
    CorruptBlock,
    DataCorrupt,
    Missing,
    ProtocolError,
    Unavailable,
)
from crossdock.persisting import Progress, Published, persist, try_persist
from crossdock.reader import Reader
from crossdock.retry import patiently
from crossdock.statistics import Tier
from crossdock.store.stream import SegmentLost
from crossdock.sums import Delivered, Promise
from crossdock.views import Resolution
from crossdock.wire import tables
from crossdock.wire.names import U32_MAX
from crossdock.wire.tables import Table

if TYPE_CHECKING:
    from crossdock.shuffle import Shuffle
    from crossdock.store.frames import StoredFrames

T = TypeVar("T")
U64 = npt.NDArray[np.uint64]

Damaged = Mapping[str, Mapping[tuple[int, int, int], str]]
"""By worker id, the frames (map, attempt, seq) that came damaged from it, and what was wrong."""

_BLOCKS_AT_ONCE = 1_000_000
_RUN_BYTES = 2**20
_RUN_PARTITIONS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The part of a view that one worker serves, or one persist run in the store."""

    worker: str
    target: str
    """URL path of its registered places."""
    keys: Table
    """`tables.FRAME_KEY`s, sorted."""
    statistics: Table
    """`tables.STATISTICS`[P] of these frames."""
    stored: "StoredFrames | None" = None
    """How they are read, where a persist run in the store serves them."""
    tier: Tier = Tier.WORKER
    """As what its reads count, where a worker serves them."""

    def check_totals(self, frames: Table) -> None:
        """Raise `ProtocolError` unless the statistics are those of its frames, of `frames`."""
        mine = np.isin(tables.frame_keys(frames).view("V16"), self.keys.view("V16"))
        for what, field in (("bytes", "payload_bytes"), ("rows", "rows")):
            expected, got = int(frames[field][mine].sum()), int(self.statistics[what].sum())
            if expected != got:
                raise ProtocolError(
                    f"worker {self.worker} lists frames of {expected} {what}, and answers totals "
                    f"of {got} for them"
                )
        pieces, blocks = int(frames["pieces"][mine].sum()), int(self.statistics["blocks"].sum())
        if blocks > pieces or (pieces and not blocks):
            raise ProtocolError(
                f"worker {self.worker} lists frames of {pieces} pieces, and answers totals of "
                f"{blocks} blocks for them"
            )


class View:
    """Winning attempts of a shuffle, ready to be read. Thread-safe."""

    def __init__(
        self,
        shuffle: "Shuffle",
        view_id: str,
        winners: Table,
        resolution: Resolution,
        shares: Sequence[Share],
    ) -> None:
        """Use `Shuffle.view`."""
        self.shuffle = shuffle
        self.id = view_id
        """Digest of the shuffle, P, and the winners' frames: the same for everybody."""
        self.winners: dict[int, int] = dict(winners.tolist())
        self.bytes: U64 = np.zeros(shuffle.partitions, np.uint64)
        """u64[P], bytes per partition."""
        self.rows: U64 = np.zeros(shuffle.partitions, np.uint64)
        """u64[P], rows per partition, as the writers said."""
        self._winner_table = winners
        self._resolution = resolution
        self._shares = tuple(shares)
        self._lock = threading.Lock()
        self._blocks: npt.NDArray[np.uint32] | None = None
        for share in shares:
            self.bytes += share.statistics["bytes"]
            self.rows += share.statistics["rows"]

    @property
    def shares(self) -> Sequence[Share]:
        """Who served what when it was made."""
        return self._shares

    @property
    def frames(self) -> Table:
        """The frames it consists of: `tables.FRAME`s, sorted."""
        return self._resolution.frames

    @property
    def partitions(self) -> int:
        """P of the shuffle."""
        return self.shuffle.partitions

    @property
    def blocks(self) -> npt.NDArray[np.uint32]:
        """u32[P], blocks per partition: how many maps have data there."""
        with self._lock:
            if self._blocks is None:
                self._blocks = self._count_blocks()
            return self._blocks

    def _count_blocks(self) -> npt.NDArray[np.uint32]:
        """Add the workers' counts; where several have a partition, count distinct maps."""
        counts = np.zeros(self.partitions, np.uint32)
        present = np.zeros(self.partitions, np.uint32)
        for share in self._shares:
            counts += share.statistics["blocks"]
            present += share.statistics["blocks"] > 0
        shared = np.flatnonzero(present > 1)
        if len(shared):
            weight = np.cumsum(counts[shared], dtype=np.int64) // _BLOCKS_AT_ONCE
            for part in np.split(shared, np.flatnonzero(weight[1:] != weight[:-1]) + 1):
                sizes = self.block_sizes(range(int(part[0]), int(part[-1]) + 1))
                of = np.bincount(sizes["partition"] - part[0], minlength=part[-1] - part[0] + 1)
                counts[part] = of[part - part[0]]
        return counts

    def block_sizes(self, partitions: range) -> Table:
        """Return the size of every block of a partition range.

        Returns:
            `tables.BLOCK`s (partition, map, bytes, rows) by (partition, map).
        """
        first, last = views.check_range("partitions", partitions, self.partitions)
        parts = [
            sizes
            for share in self._shares
            if share.statistics["blocks"][first:last].any()
            for sizes in self._sizes_of(share, first, last)
        ]
        if not parts:
            return np.empty(0, tables.BLOCK)
        return tables.joined_blocks(np.concatenate(parts))

    def _sizes_of(self, share: Share, first: int, last: int) -> list[Table]:
        return self.ask(share, lambda s: self.shuffle.fetch_block_sizes(s, first, last))

    def first_piece(self, partition: int, map_id: int) -> memoryview | None:
        """Return the first piece of a block without the rest of it; None if there is no piece.

        A piece is what one frame has of a block: at least what was first written at once.

        Raises:
            BlocksLost: confirmed loss, or every copy is damaged.
            Unavailable: workers are away until the deadline.
        """
        views.check_range("partitions", range(partition, partition + 1), self.partitions)
        found = [
            piece
            for share in self._shares
            if share.statistics["blocks"][partition]
            for piece in self.ask(
                share, lambda s: self.shuffle.fetch_first_piece(s, partition, map_id)
            )
            if piece is not None
        ]
        return min(found, key=itemgetter(0))[1] if found else None

    def ask(self, share: Share, call: Callable[[Share], T]) -> list[T]:
        """Ask the worker of a share, or others with the same frames when it does not answer."""

        def once() -> list[T]:
            damaged: Damaged = {}
            try:
                return [call(share)]
            except (CorruptBlock, SegmentLost) as error:
                damaged = {share.worker: error.frames}
            except (Unavailable, DataCorrupt, *NOT_HERE):
                pass  # others may have the same frames
            others = self.reassign(share, avoid=share.worker, damaged=damaged)
            return [call(other) for other in others]

        deadline = self.shuffle.job.cluster.options.deadline_seconds
        return patiently(once, deadline_seconds=deadline)

    def read(
        self, partitions: range | int | None = None, maps: range | None = None
    ) -> Iterator[Block]:
        """Yield the blocks of a partition range, by (partition, map), each whole and verified.

        Args:
            partitions: a contiguous range, one partition, or None for all.
            maps: a contiguous range of map ids, or None for all.

        Raises:
            BlocksLost: confirmed loss; what was yielded before is right.
            ProtocolError: other bytes, rows or blocks came than the view has.
            Unavailable: workers are away until the deadline.
        """
        for batch in self.read_batches(partitions, maps):
            yield from batch

    def read_batches(
        self, partitions: range | int | None = None, maps: range | None = None
    ) -> Iterator[BlockBatch]:
        """Yield the same blocks many at a time, as arrays over one buffer."""
        if isinstance(partitions, int):
            partitions = range(partitions, partitions + 1)
        wanted = (
            (0, self.partitions)
            if partitions is None
            else views.check_range("partitions", partitions, self.partitions)
        )
        chosen = None if maps is None else views.check_range("maps", maps, U32_MAX + 1)
        return self._read_runs(wanted, chosen)

    def _read_runs(
        self, wanted: tuple[int, int], maps: tuple[int, int] | None
    ) -> Iterator[BlockBatch]:
        """Read runs of partitions that the same workers serve, one after the other."""
        first, last = wanted
        promise = self._promise(first, last, maps)
        delivered = Delivered(promise)
        served = np.zeros((len(self._shares), last - first), bool)
        for i, share in enumerate(self._shares):
            served[i] = share.statistics["blocks"][first:last] > 0
        for begin, end in _runs(served, self.bytes[first:last]):
            here = np.flatnonzero(served[:, begin:end].any(axis=1)).tolist()
            shares = [self._shares[i] for i in here]
            if shares:
                for batch in Reader(self, shares, (first + begin, first + end), maps):
                    delivered.add(batch)
                    yield batch
            if promise.kind == "partition":
                delivered.check(f"view {self.id}", slice(begin, end))
        delivered.check(f"view {self.id}")

    def _promise(self, first: int, last: int, maps: tuple[int, int] | None) -> Promise:
        """Say what a read of partitions `first` to `last`, and of these maps, must deliver.

        The totals at hand know no single maps. All partitions of a map are its frames; else the
        workers are asked for the sizes of the blocks, some at a time.
        """
        table = self._winner_table["map"]
        if maps is not None:
            wanted = (table >= maps[0]) & (table < maps[1])
            if not wanted.all():
                return self._promise_of_maps(first, last, maps)
        return Promise.of_statistics([s.statistics for s in self._shares], first, last)

    def _promise_of_maps(self, first: int, last: int, maps: tuple[int, int]) -> Promise:
        if (first, last) == (0, self.partitions):
            frames = self._resolution.frames
            chosen = (frames["map"] >= maps[0]) & (frames["map"] < maps[1])
            return Promise.of_frames(frames[chosen])
        parts = [np.empty(0, tables.BLOCK)]
        for begin, end in self._some_blocks_at_once(first, last):
            sizes = self.block_sizes(range(begin, end))
            chosen = (sizes["map"] >= maps[0]) & (sizes["map"] < maps[1])
            parts.append(sizes[chosen])
        return Promise.of_blocks(np.concatenate(parts), first, last)

    def _some_blocks_at_once(self, first: int, last: int) -> list[tuple[int, int]]:
        """Cut a range of partitions into ranges of about a million blocks."""
        counts = sum((s.statistics["blocks"][first:last] for s in self._shares), np.zeros(1, int))
        weight = np.cumsum(counts, dtype=np.int64) // _BLOCKS_AT_ONCE
        cuts = (np.flatnonzero(weight[1:] != weight[:-1]) + 1 + first).tolist()
        return [(a, b) for a, b in pairwise([first, *cuts, last]) if a < b]

    def persist(self, on_progress: Callable[[Progress], None] | None = None) -> Published:
        """Bring the view into the workers' store, so that it can be read without any worker.

        Frames that are there already are not sent again. Returns when the view is published.

        Args:
            on_progress: called from time to time, from any thread, one call at a time.

        Raises:
            ConfigError: the workers have no store.
            BlocksLost: confirmed loss of frames that were not persisted.
            Unavailable: workers or the store are away, or get no further, until the deadline.
        """
        return persist(self, on_progress)

    def try_persist(self) -> Published | None:
        """Begin or go on with what `persist` does, and do not wait for it.

        Returns:
            None while workers have more to do: call again, some time later.

        Raises:
            ConfigError: the workers have no store.
            Unavailable: a worker or the store is away; make the view anew and call again.
        """
        return try_persist(self)

    def places(self) -> list[dict[str, object]]:
        """Describe who serves the view now: worker id, URL path of its places, frames."""
        return [
            {"worker": s.worker, "target": s.target, "frames": len(s.keys)} for s in self._shares
        ]

    def reassign(
        self, share: Share, *, avoid: str | None, damaged: Damaged | None = None
    ) -> list[Share]:
        """Find other places for a share's frames, or the same again; called by readers.

        Args:
            share: whose frames.
            avoid: a worker that serves only what has no copy elsewhere.
            damaged: what came damaged, and from where: it is not read there again.

        Raises:
            BlocksLost: confirmed loss, or every copy of something is damaged.
            Unavailable: not now.
        """
        damaged = damaged or {}
        resolution = self.shuffle.resolve(self._winner_table)
        if len(resolution.only(share.keys).without(damaged).nowhere()):
            resolution = self.shuffle.resolve(self._winner_table, in_store=True)
        found = views.view_id(self.shuffle.key, self.partitions, resolution.frames)
        if found != self.id:
            raise DataCorrupt(f"the winners of view {self.id} now have other contents: {found}")
        part = resolution.only(share.keys).without(damaged)
        lost = part.nowhere().tolist()
        if lost:
            why = {key: text for bad in damaged.values() for key, text in bad.items()}
            reasons = {(m, a): why.get((m, a, s), "") for m, a, s in lost}
            raise BlocksLost(
                [Missing(m, a, f"every copy is damaged: {r}") for (m, a), r in reasons.items()]
            )
        places = part.places(avoid=() if avoid is None else (avoid,))
        shares = self.shuffle.register(places, resolution.frames)
        return [s if s.worker == share.worker else replace(s, tier=Tier.REPLICA) for s in shares]

    def __repr__(self) -> str:
        key = self.shuffle.key
        return (
            f"<View {self.id[:12]} of {key.job}/{key.name}/{key.generation}: "
            f"{len(self.winners)} maps, {self.partitions} partitions, "
            f"{int(self.bytes.sum())} bytes>"
        )


def _runs(served: npt.NDArray[np.bool_], nbytes: U64) -> Iterator[tuple[int, int]]:
    """Cut partitions where other shares serve them, but not into runs too small to be worth it.

    Args:
        served: bool[shares, partitions].
        nbytes: of each partition.

    Asking a share that has nothing there costs one small answer, and a run costs one of each
    share that serves it: sparse data would take thousands.
    """
    total = served.shape[1]
    changes = np.flatnonzero((served[:, 1:] != served[:, :-1]).any(axis=0)) + 1
    before = np.concatenate((np.zeros(1, np.uint64), np.cumsum(nbytes)))
    begin = 0
    for change in changes.tolist():
        large = int(before[change] - before[begin]) >= _RUN_BYTES
        if large or change - begin >= _RUN_PARTITIONS:
            yield begin, change
            begin = change
    if begin < total:
        yield begin, total
