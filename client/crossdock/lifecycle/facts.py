"""What is known of a job and only grows, so that it can be told by anybody, in any order."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final, NamedTuple


class Stage(IntEnum):
    """How far a job's end is."""

    LIVE = 0
    FENCED = 1
    """It has ended: nothing is taken, written or served for it, and all of it is to go."""
    CLEAN = 2
    """Nothing of it is left in the store: somebody has proved it."""


class Facts(NamedTuple):
    """What only grows. Kept on a worker's disk, and told with every word about the job."""

    epoch: int = 0
    """The highest that was heard of; who comes with a lower one is refused."""
    stage: Stage = Stage.LIVE
    released: Mapping[str, int] = {}
    """By shuffle, the first generation that is not released."""
    cleared: Mapping[str, int] = {}
    """By shuffle, the first generation that may have something in the store: those before are
    proved to have nothing there. Never more than what is released."""
    stored: bool = False
    """Whether a worker may have written something of it to the store."""

    def is_released(self, name: str, generation: int) -> bool:
        """Whether this generation of a shuffle is gone for good."""
        return generation < self.released.get(name, 0)


NOTHING_KNOWN: Final = Facts()


def joined(one: Facts, other: Facts) -> Facts:
    """Return what is known to who knows both."""
    if one is other or one == other:
        return one
    return Facts(
        max(one.epoch, other.epoch),
        max(one.stage, other.stage),
        most(one.released, other.released),
        most(one.cleared, other.cleared),
        one.stored or other.stored,
    )


def most(one: Mapping[str, int], other: Mapping[str, int]) -> Mapping[str, int]:
    """Return by shuffle the higher of two generations."""
    if one == other:
        return one
    return {n: max(one.get(n, 0), other.get(n, 0)) for n in one.keys() | other.keys()}


def to_clear(facts: Facts, among: Iterable[str] | None = None) -> dict[str, range]:
    """Return by shuffle the released generations that may have something in the store.

    None comes back: a shuffle that is computed again uses the next generation, under whatever
    epoch. So what lies below their prefixes may go at any time, whoever wrote it.

    Args:
        facts: of the job.
        among: the shuffles that are asked for; None for all, which takes time for each.
    """
    if facts.stage is not Stage.LIVE or not facts.stored:
        return {}
    released, cleared = facts.released, facts.cleared
    names = released if among is None else among
    spans = {name: range(cleared.get(name, 0), released.get(name, 0)) for name in names}
    return {name: generations for name, generations in spans.items() if generations}


def is_known(generations: Mapping[str, int], more: Mapping[str, int]) -> bool:
    """Whether all that `more` says of shuffles' generations follows from `generations` too."""
    return all(generations.get(name, 0) >= first for name, first in more.items())


def is_stale(facts: Facts, epoch: int) -> bool:
    """Whether a frame or command of this epoch comes from somebody whose job was taken over."""
    return epoch < facts.epoch
