"""Somebody else who sets the same number. Pure: it is told, and not fought for ever.

Who sets another number once is followed. Who does it again and again, each time after a step of
ours, has the number for a while.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

CONTESTED_TIMES: Final = 3
"""So many changes by somebody else, each after one of ours, are a contest."""
CONTEST_SECONDS: Final = 600.0
"""So long a change by somebody else counts: no more than those are undone in this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What this operator set, and how often somebody else set another number since."""

    wanted: int | None = None
    """What it set last; None: nothing, or somebody else set another number since."""
    overruled: tuple[float, ...] = ()
    """When somebody else had set another number; monotonic."""

    def watched(self, replicas: int, now: float) -> Self:
        """Return the contest with what somebody else did since, by the number that is there."""
        recent = tuple(at for at in self.overruled if now - at < CONTEST_SECONDS)
        if self.wanted is None or self.wanted == replicas:
            return replace(self, overruled=recent)
        return replace(self, wanted=None, overruled=(*recent, now)[-CONTESTED_TIMES:])

    def stepped(self, replicas: int) -> Self:
        """Return the contest after this operator has set a number."""
        return replace(self, wanted=replicas)

    @property
    def lost(self) -> bool:
        """Whether the number is left to somebody else."""
        return len(self.overruled) >= CONTESTED_TIMES

    def left_seconds(self, now: float) -> float:
        """Return for how long it is."""
        return self.overruled[0] + CONTEST_SECONDS - now if self.lost else 0.0
