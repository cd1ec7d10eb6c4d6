"""What a job's engine said of its need for executors: in memory alone, and for a while."""

import time
from typing import Final

from crossdock.demand import Demand, Reported
from crossdock.errors import Overloaded

MOST_REPORTERS: Final = 10_000
"""Of one job."""


class Demands:
    """The newest word of each reporter of a job. Of the event loop alone."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[Demand, float]] = {}

    def take(self, demand: Demand) -> None:
        """Take a word in; it replaces the one before.

        Raises:
            Overloaded: there are too many reporters whose words still hold.
        """
        now = time.monotonic()
        if demand.reporter not in self._said and len(self._said) >= MOST_REPORTERS:
            self._forget(now)
            if len(self._said) >= MOST_REPORTERS:
                raise Overloaded(
                    f"{MOST_REPORTERS} reporters of demand are here already",
                    hint="let the engine's driver report for all executors",
                )
        self._said[demand.reporter] = demand, now

    def reports(self) -> list[Reported]:
        """Return the words that still hold."""
        now = time.monotonic()
        self._forget(now)
        return [Reported(demand, now - came) for demand, came in self._said.values()]

    def _forget(self, now: float) -> None:
        self._said = {
            name: said
            for name, said in self._said.items()
            if now - said[1] <= said[0].valid_seconds
        }
