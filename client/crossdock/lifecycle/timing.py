"""What is assumed of stores and clocks, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Assumptions that everybody in a cluster shares. What breaks them is the sweep's to find."""

    settle_seconds: float = 30.0
    """A request to the store takes effect within this time of being sent, or never."""
    clock_margin: float = 0.01
    """Of two clocks neither runs faster than the other by more than this share. Only rates
    matter: no reading of one clock is ever compared with one of another."""
    relist_seconds: float = 1.0
    """An object or upload is in every listing that begins this long after it came into being."""

    @property
    def settled_after(self) -> float:
        """How long to wait on this clock, in seconds, until a request took effect or never does.

        The settle time on every clock. Whoever waits for the store to settle waits so long.
        """
        return self.outlast(self.settle_seconds)

    def outlast(self, seconds: float) -> float:
        """Return how long to wait on this clock until `seconds` have passed on every clock."""
        return seconds * (1 + self.clock_margin)

    def at_least(self, seconds: float) -> float:
        """Return how much has passed on this clock at least, when `seconds` have on another."""
        return seconds / (1 + self.clock_margin)
