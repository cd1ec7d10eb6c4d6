"""Where a writer sends what first: pure, and only a preference. Any worker takes any block."""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

_RANGES_PER_WORKER: Final = 8
"""Enough to keep shares even when a worker comes or goes, few enough to keep runs long."""


def weight(key: str, worker: str) -> int:
    """Return the rendezvous weight of a worker for a key (Thaler and Ravishankar, 1998)."""
    return int.from_bytes(hashlib.blake2b(f"{key}\0{worker}".encode(), digest_size=8).digest())


def ranked(key: str, workers: Sequence[str]) -> list[str]:
    """Return the workers in the order in which this key prefers them."""
    return sorted(workers, key=lambda worker: (-weight(key, worker), worker))


def assign(key: str, partitions: int, workers: Sequence[str]) -> npt.NDArray[np.intp]:
    """Return, per partition, the index in `workers` of the one it is placed on.

    Contiguous ranges of partitions go to workers by rendezvous hashing with a bound on each
    worker's share, so that shares differ by one range at most.
    """
    names = list(workers)
    ranges = max(1, min(partitions, len(names) * _RANGES_PER_WORKER))
    bound = -(-ranges // len(names))
    load = dict.fromkeys(names, 0)
    owner = np.empty(ranges, np.intp)
    for r in range(ranges):
        chosen = next(w for w in ranked(f"{key}\0{r}", names) if load[w] < bound)
        load[chosen] += 1
        owner[r] = names.index(chosen)
    return owner[np.arange(partitions) * ranges // max(1, partitions)]
