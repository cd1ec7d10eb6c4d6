"""The plan of a stage: which task reads which partitions of its inputs. Pure and deterministic.

A plan is decided when the earlier stages have finished, from the sizes of what they wrote, so
that a stage has neither thousands of tiny tasks nor one that runs for hours. All sizes are bytes
as stored, thus compressed. An input that every task reads whole takes no part in it.

- Neighbouring partitions are **coalesced** until a task has about the target. A task has at most
  6/5 of the target, so that no small rest becomes a task, and shares are even. A partition that
  is larger than the target is a task, with neighbours of at most a fifth of the target.
- A **skewed** partition of an input that may be split is cut into map ranges of about the target.
  Cuts are between blocks: what one map wrote for one partition is never divided. So a partition
  with all of its bytes in one block stays whole. Each of these tasks reads the partition's other
  inputs whole; they count nothing here. Where several inputs are skewed in one partition, the
  largest is split.
- **Empty** partitions belong to the task beside them.
- At most `max_tasks` tasks: when there would be more, the target is raised.
- With a **given number** of tasks there is no target and no maximum: the largest share is made
  as small as can be, and then all tasks are used, as far as there is something to cut.

Cost: numpy over partitions and blocks, Python over slices and skewed partitions only.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from crossdock.errors import ConfigError
from crossdock.jobfile.model import PlanSettings
from crossdock.stages.ranges import I64, Line, eased

BlockSizes: TypeAlias = tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]
"""Of one partition: the maps that have a block there, rising, and the blocks' bytes."""

_MAX_TOTAL_BYTES: Final = 2**62
_TARGET_PRECISION: Final = 256
"""A raised target is right to one part in this many: nobody sees more, and it takes few rounds."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class InputStatistics:
    """What the plan knows of one partitioned input: a part of its view's statistics."""

    bytes: npt.NDArray[np.uint64]
    """u64[P], bytes per partition."""
    may_split: bool = False
    """Whether tasks may read map ranges of one partition."""
    maps: int = 0
    """M of the shuffle: map ids are below it."""
    blocks: Mapping[int, BlockSizes] = field(default_factory=dict)
    """By partition: block sizes of at least those that `skewed` names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One task's share of all partitioned inputs of its stage."""

    partitions: range
    """Contiguous. Empty for a task that has nothing to do."""
    maps: range | None = None
    """Only these maps of `split_input`; then `partitions` has one partition with data, and with
    it only such as are empty in all inputs."""
    split_input: str | None = None
    """The input of which only `maps` are read. The others are read whole."""


def skewed(
    inputs: Mapping[str, InputStatistics], settings: PlanSettings, *, tasks: int | None = None
) -> dict[str, list[int]]:
    """Return, by input, the partitions that may be split: `plan` needs their block sizes.

    A partition is named when its bytes in an input that may be split are more than `skew_factor`
    × the median of that input's partitions with data, more than `skew_floor_bytes`, and more
    than 6/5 of a task's share (the target, or an even share of a given number of tasks).
    With more tasks than partitions with data, only the last of these counts: a part of them
    would have nothing to do otherwise.

    Args:
        inputs: the partitioned inputs by name; `blocks` are not looked at.
        settings: the stage's.
        tasks: the same as for `plan`.

    Raises:
        ConfigError: inputs that do not fit together, or settings out of range.
    """
    sizes = _total(inputs, settings, tasks)
    share = settings.target_task_bytes if tasks is None else -(-int(sizes.sum()) // tasks)
    spare = tasks is not None and tasks > np.count_nonzero(sizes)
    largest, owner = np.zeros(len(sizes), np.int64), np.full(len(sizes), -1)
    for number, statistics in enumerate(inputs.values()):
        own = statistics.bytes.astype(np.int64)
        if not statistics.may_split or statistics.maps < 2 or not own.any():
            continue
        least = min(eased(share), _MAX_TOTAL_BYTES)
        if not spare:
            median = float(np.median(own[own > 0]))
            skew = min(settings.skew_factor * median, _MAX_TOTAL_BYTES)
            least = max(least, settings.skew_floor_bytes, int(skew))
        chosen = (own > least) & (own > largest)
        largest[chosen], owner[chosen] = own[chosen], number
    found = {name: np.flatnonzero(owner == i).tolist() for i, name in enumerate(inputs)}
    return {name: partitions for name, partitions in found.items() if partitions}


def plan(
    inputs: Mapping[str, InputStatistics], settings: PlanSettings, *, tasks: int | None = None
) -> list[Slice]:
    """Return what each task of a stage reads, by partition and map.

    Each partition is in the range of one slice, or of a group of slices whose map ranges follow
    one another from 0 to M. Where nothing has data there is one slice.

    With `tasks` there are exactly so many slices. The largest is as small as it can be (of a
    split partition, the split input counts); while there are fewer slices than tasks, the largest
    that can be cut is cut in two. Tasks that are left then get empty partitions, one each, so
    that as many tasks as partitions are one each where nothing is split; and the last of them
    get empty ranges.

    Args:
        inputs: the partitioned inputs by name, all with the same P, with the block sizes of
            what `skewed` names for the same arguments.
        settings: the stage's.
        tasks: the number of tasks, or None to have it decided here.

    Raises:
        ConfigError: inputs that do not fit together, block sizes that are missing or out of
            order, or settings out of range.
    """
    sizes = _total(inputs, settings, tasks)
    splits = {
        p: _Split(name, _maps_line(name, inputs[name], p))
        for name, partitions in skewed(inputs, settings, tasks=tasks).items()
        for p in partitions
    }
    work = _Work(Line.of(np.arange(len(sizes)), sizes, len(sizes)), dict(sorted(splits.items())))
    if tasks is None:
        target = _raised_target(work, settings)
        return [p.as_slice() for p in work.pieces(target, eased(target))]
    target = _least_target(work, tasks)
    pieces = _cut_largest(work, work.pieces(target, target), tasks)
    return _filled([p.as_slice() for p in pieces], len(sizes), tasks)


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """A partition that may be cut into map ranges of one input."""

    input: str
    maps: Line


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A slice while it is made: a range of a line."""

    line: Line
    begin: int
    end: int
    partitions: range | None = None
    """For a range of maps: the partition, with empty ones beside it."""
    input: str | None = None

    @property
    def things(self) -> int:
        return self.end - self.begin

    def bytes(self) -> int:
        return int(self.line.sizes[self.begin : self.end].sum())

    def ids(self) -> range:
        return self.line.span(self.begin, self.end)

    def order(self) -> tuple[int, int]:
        if self.partitions is None:
            return self.ids().start, 0
        return self.partitions.start, self.ids().start

    def as_slice(self) -> Slice:
        if self.partitions is None:
            return Slice(partitions=self.ids())
        return Slice(partitions=self.partitions, maps=self.ids(), split_input=self.input)

    def halves(self) -> "tuple[_Piece, _Piece]":
        middle = self.line.middle(self.begin, self.end)
        return replace(self, end=middle), replace(self, begin=middle)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A line that is cut on its own: partitions between two split ones, or a split one's maps."""

    line: Line
    count: int
    partitions: range | None = None
    input: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """All that is to be shared out."""

    line: Line
    """The partitions."""
    splits: Mapping[int, _Split]
    """By partition, rising."""

    def fits(self, target: int, bound: int, limit: int) -> bool:
        """Say whether there are at most so many slices. Stays true for higher targets."""
        count = 0
        for part in self._parts(target, bound, limit):
            count += part.count
            if count > limit:
                return False
        return True

    def pieces(self, target: int, bound: int) -> list[_Piece]:
        if not len(self.line.ids):
            return [_Piece(self.line, 0, 0)]
        return [
            _Piece(part.line, begin, end, part.partitions, part.input)
            for part in self._parts(target, bound, _MAX_TOTAL_BYTES)
            for begin, end in pairwise(part.line.cuts(target, bound, part.count))
        ]

    def by_maps(self, piece: _Piece) -> _Piece:
        """Return a piece of one partition that may be split as a range of its maps."""
        if piece.partitions is not None or piece.things != 1:
            return piece
        split = self.splits.get(int(piece.line.ids[piece.begin]))
        if split is None:
            return piece
        return _Piece(split.maps, 0, len(split.maps.ids), piece.ids(), split.input)

    def _parts(self, target: int, bound: int, limit: int) -> Iterator[_Part]:
        """Yield the parts in order.

        Empty partitions with no neighbour but a split one go with it, not into a task.
        """
        done, low = 0, 0
        held: _Part | None = None
        for partition, split in self.splits.items():
            count = split.maps.count(target, bound, limit)
            if count < 2:
                continue
            if held:
                yield held
            at = int(self.line.ids.searchsorted(partition))
            if done < at:
                before = self.line.part(done, at, range(low, partition))
                yield _Part(before, before.count(target, bound, limit))
                low = partition
            held = _Part(split.maps, count, range(low, partition + 1), split.input)
            done, low = at + 1, partition + 1
        if done < len(self.line.ids):
            if held:
                yield held
            rest = self.line.part(done, len(self.line.ids), range(low, self.line.end))
            yield _Part(rest, rest.count(target, bound, limit))
        elif held and held.partitions:
            yield replace(held, partitions=range(held.partitions.start, self.line.end))


def _raised_target(work: _Work, settings: PlanSettings) -> int:
    """Return the settings' target, or the lowest above it that makes few enough slices."""
    total = int(work.line.sizes.sum())

    def fits(target: int) -> bool:
        return work.fits(target, eased(target), settings.max_tasks)

    low = max(1, min(settings.target_task_bytes, total))
    if fits(low):
        return low
    high = 2 * low
    while not fits(high):
        low, high = high, 2 * high
    while high - low > low // _TARGET_PRECISION + 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _least_target(work: _Work, tasks: int) -> int:
    """Return the least target that so many tasks can hold.

    Whatever cannot be cut and is larger is a task of its own. So this is at most the least
    maximum, and where one giant sets the maximum, the others are still shared out well.
    """
    sizes = work.line.sizes
    low, high = 0, int(sizes.sum()) // tasks + 1 + int(sizes.max(initial=0))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if work.fits(middle, middle, tasks) else (middle, high)
    return high


def _cut_largest(work: _Work, pieces: list[_Piece], tasks: int) -> list[_Piece]:
    """Cut the largest piece in two until there are as many as tasks, or none can be cut."""
    heap: list[tuple[int, tuple[int, int], _Piece]] = []
    done: list[_Piece] = []

    def put(piece: _Piece) -> None:
        if work.by_maps(piece).things < 2:
            done.append(piece)
        else:
            heapq.heappush(heap, (-piece.bytes(), piece.order(), piece))

    for piece in pieces:
        put(piece)
    while heap and len(heap) + len(done) < tasks:
        for half in work.by_maps(heapq.heappop(heap)[2]).halves():
            put(half)
    return sorted([*done, *(piece for _, _, piece in heap)], key=_Piece.order)


def _filled(slices: list[Slice], partitions: int, tasks: int) -> list[Slice]:
    """Give tasks without work an empty partition each, as long as there are any."""
    found = []
    spare = tasks - len(slices)
    for piece in slices:
        singles = 0 if piece.maps else min(spare, len(piece.partitions) - 1)
        spare -= singles
        end = piece.partitions.stop
        found.append(replace(piece, partitions=range(piece.partitions.start, end - singles)))
        found += [Slice(partitions=range(p, p + 1)) for p in range(end - singles, end)]
    return [*found, *[Slice(partitions=range(partitions, partitions))] * spare]


def _total(inputs: Mapping[str, InputStatistics], settings: PlanSettings, tasks: int | None) -> I64:
    """Check the arguments and return i64[P], the bytes of all inputs per partition."""
    if not inputs or not all(len(statistics.bytes) for statistics in inputs.values()):
        raise ConfigError("a plan needs a partitioned input")
    if len({len(statistics.bytes) for statistics in inputs.values()}) > 1:
        counts = ", ".join(f"{name} has {len(i.bytes)}" for name, i in inputs.items())
        raise ConfigError(f"inputs with different numbers of partitions: {counts}")
    if tasks is not None and tasks < 1:
        raise ConfigError(f"{tasks} tasks")
    if settings.target_task_bytes < 1 or settings.max_tasks < 1:
        raise ConfigError(f"the target and the number of tasks must be positive: {settings}")
    if sum(float(statistics.bytes.sum(dtype=float)) for statistics in inputs.values()) > 2**61:
        raise ConfigError("the inputs have more than 2 EiB")
    total = np.zeros(len(next(iter(inputs.values())).bytes), np.int64)
    for statistics in inputs.values():
        total += statistics.bytes.astype(np.int64)
    return total


def _maps_line(name: str, statistics: InputStatistics, partition: int) -> Line:
    blocks = statistics.blocks.get(partition)
    if blocks is None:
        hint = "fetch those of all that skewed() names"
        raise ConfigError(f"no block sizes of partition {partition} of {name}", hint=hint)
    maps, sizes = blocks[0].astype(np.int64), blocks[1].astype(np.int64)
    rising = len(maps) == len(sizes) and bool((maps[1:] > maps[:-1]).all())
    if not rising or (len(maps) and maps[-1] >= statistics.maps):
        hint = f"one per map, rising, of {statistics.maps} maps"
        raise ConfigError(f"bad block sizes of partition {partition} of {name}", hint=hint)
    return Line.of(maps, sizes, statistics.maps)
