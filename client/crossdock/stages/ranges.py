"""Cutting a row of things with bytes into contiguous ranges near a target. Pure."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

I64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Things with bytes in a row, to be cut into ranges: partitions, or maps of one partition.

    Ranges are over ids, which have gaps where there are no bytes: a gap belongs to the range
    before it, the first to the range behind it.
    """

    ids: I64
    sizes: I64
    """All > 0."""
    first: int
    end: int

    @classmethod
    def of(cls, ids: I64, sizes: I64, end: int) -> "Line":
        """Return the line of those that have bytes, over ids from 0 to `end`."""
        data = np.flatnonzero(sizes)
        return cls(ids[data], sizes[data], 0, end)

    def part(self, begin: int, end: int, ids: range) -> "Line":
        """Return things `begin` to `end` as a line of their own, over the given ids."""
        return Line(self.ids[begin:end], self.sizes[begin:end], ids.start, ids.stop)

    def span(self, begin: int, end: int) -> range:
        """Return the ids of things `begin` to `end`."""
        return range(
            int(self.ids[begin]) if begin else self.first,
            int(self.ids[end]) if end < len(self.ids) else self.end,
        )

    def middle(self, begin: int, end: int) -> int:
        """Return where to cut a range of two or more in two, as evenly as can be."""
        sums = np.cumsum(self.sizes[begin:end])
        return begin + 1 + _nearest(sums, int(sums[-1]) // 2)

    def count(self, target: int, bound: int, limit: int) -> int:
        """Return into how many ranges to cut; counting stops beyond `limit`.

        It is the number whose average is nearest to the target, or the fewest that hold the
        bound if those are more. Never more for a higher target, so targets can be searched.
        """
        sums = _sums(self.sizes, target)
        return max(_fewest(sums, bound, limit), (2 * int(sums[-1]) + target) // (2 * target))

    def cuts(self, target: int, bound: int, count: int) -> list[int]:
        """Cut into so many ranges that hold the bound, each near the average of what is left."""
        sums = _sums(self.sizes, target)
        # earliest[n]: where n ranges to the end can begin.
        earliest = [len(self.ids)]
        while earliest[-1]:
            earliest.append(int(sums.searchsorted(sums[earliest[-1]] - bound)))
        cuts = [0]
        for left in range(count - 1, 0, -1):
            low = max(cuts[-1] + 1, earliest[left] if left < len(earliest) else 0)
            high = _furthest(sums, cuts[-1], bound)
            wanted = int(sums[cuts[-1]]) + int(sums[-1] - sums[cuts[-1]]) // (left + 1)
            nearest = _nearest(sums, wanted)
            cuts.append(max(low, min(nearest, high, len(self.ids) - left)))
        return [*cuts, len(self.ids)]


def eased(target: int) -> int:
    """Return how many bytes a task may have so that a small rest makes no task of its own."""
    return target + target // 5


def _sums(sizes: I64, target: int) -> I64:
    """Return sums up to each thing, from 0; one above the target counts as the target.

    So it fits into one range, with little beside it, and never with another of its kind.
    """
    sums = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(np.minimum(sizes, target), out=sums[1:])
    return sums


def _furthest(sums: I64, begin: int, bound: int) -> int:
    return int(sums.searchsorted(sums[begin] + bound, "right")) - 1


def _nearest(sums: I64, wanted: int) -> int:
    above = int(sums.searchsorted(wanted))
    return above - 1 if above and wanted - sums[above - 1] <= sums[above] - wanted else above


def _fewest(sums: I64, bound: int, limit: int) -> int:
    """Return how many ranges hold the bound when each takes all it can, which is the fewest."""
    count = at = 0
    while at < len(sums) - 1 and count <= limit:
        at = _furthest(sums, at, bound)
        count += 1
    return count
