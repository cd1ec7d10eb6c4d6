"""What is known of a job and only grows, so that it can be told by anybody, in any order."""

from collections.abc import Mapping
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

    def is_released(self, name: str, generation: int) -> bool:
        """Whether this generation of a shuffle is gone for good."""
        return generation < self.released.get(name, 0)


NOTHING_KNOWN: Final = Facts()


def joined(one: Facts, other: Facts) -> Facts:
    """Return what is known to who knows both."""
    if one is other or one == other:
        return one
    released = one.released
    if other.released != released:
        names = released.keys() | other.released.keys()
        released = {n: max(released.get(n, 0), other.released.get(n, 0)) for n in names}
    return Facts(max(one.epoch, other.epoch), max(one.stage, other.stage), released)


def is_known(released: Mapping[str, int], more: Mapping[str, int]) -> bool:
    """Whether all that `more` says was released is said by `released` too."""
    return all(released.get(name, 0) >= generation for name, generation in more.items())


def is_stale(facts: Facts, epoch: int) -> bool:
    """Whether a frame or command of this epoch comes from somebody whose job was taken over."""
    return epoch < facts.epoch
