"""Releases of a job of which it is not proved yet that nothing is left of them in the store.

Indexed, so that what a long job has released and is proved costs nothing any more: work grows with
what is not proved, and a look takes a bounded part of that.
"""

from collections import OrderedDict
from itertools import islice
from typing import NamedTuple


class _Release(NamedTuple):
    stop: int
    """The first generation that it does not release."""
    known: float
    """When this process learnt of it."""


class Unproved:
    """Of one job, by shuffle. Not thread-safe. Times are of the caller's monotonic clock."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, list[_Release]] = OrderedDict()
        """Those looked at longest ago first, and new ones before them; of each, rising releases."""

    def __len__(self) -> int:
        return len(self._waiting)

    def released(self, name: str, stop: int, now: float) -> None:
        """Note that generations below `stop` of a shuffle are released; older news are ignored."""
        waiting = self._waiting.get(name)
        if waiting is None:
            self._waiting[name] = [_Release(stop, now)]
            self._waiting.move_to_end(name, last=False)
        elif waiting[-1].stop < stop:
            waiting.append(_Release(stop, now))

    def proved(self, name: str, stop: int) -> None:
        """Note that nothing is left of the generations below `stop` of a shuffle."""
        left = [each for each in self._waiting.get(name, ()) if each.stop > stop]
        if left:
            self._waiting[name] = left
        else:
            self._waiting.pop(name, None)

    def since(self, name: str) -> float | None:
        """Return since when the oldest release of a shuffle that is not proved is known here."""
        waiting = self._waiting.get(name)
        return waiting[0].known if waiting else None

    def look(self, most: int) -> list[str]:
        """Return up to `most` shuffles to look at now; the others come with the next looks."""
        names = list(islice(self._waiting, most))
        for name in names:
            self._waiting.move_to_end(name)
        return names
