"""What was read, by tier: where bytes came from, how long they took, and what was asked in vain."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Tier(StrEnum):
    """Where blocks are read, in the order in which places are tried."""

    WORKER = "worker"
    """The place that the view chose first."""
    REPLICA = "replica"
    """A worker that took the place of another, which was away or had damage."""
    STORE = "store"
    """The store, directly or through a worker."""


@dataclass(frozen=True, slots=True)
class TierStatistics:
    """What was asked of one tier."""

    requests: int = 0
    """For a batch or a range; of a range that a store was asked for twice, one."""
    misses: int = 0
    """Requests that brought nothing: the place was away, had not what it should, or had damage."""
    bytes: int = 0
    """Of payload that came and is sound; of the store, with the index of pieces."""
    seconds: float = 0.0
    """Summed over requests, which may overlap, misses included."""

    @property
    def hit_rate(self) -> float:
        """Share of the requests that brought what they asked for; 1 where nothing was asked."""
        return 1.0 - self.misses / self.requests if self.requests else 1.0

    @property
    def mean_seconds(self) -> float:
        """Of a request; 0 where nothing was asked."""
        return self.seconds / self.requests if self.requests else 0.0


ReadStatistics = Mapping[Tier, TierStatistics]
"""Of all tiers."""


class ReadMeter:
    """Counts reads by tier. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tiers = dict.fromkeys(Tier, TierStatistics())

    def count(self, tier: Tier, *, seconds: float, nbytes: int | None) -> None:
        """Count a request; `nbytes` None: it brought nothing."""
        with self._lock:
            old = self._tiers[tier]
            self._tiers[tier] = replace(
                old,
                requests=old.requests + 1,
                misses=old.misses + (nbytes is None),
                bytes=old.bytes + (nbytes or 0),
                seconds=old.seconds + seconds,
            )

    def statistics(self) -> ReadStatistics:
        """Return what was counted so far."""
        with self._lock:
            return dict(self._tiers)
