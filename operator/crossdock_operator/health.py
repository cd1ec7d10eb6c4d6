"""Whether the operator does its work, and not only runs."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from crossdock_operator.watches import DEAD_SECONDS

LAG_SECONDS: Final = 5.0
"""An event loop that is so late does not renew a Lease."""
STALLED_SECONDS: Final = 120.0
"""For so long no work began or ended, though there is some."""
_BEAT_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What is judged."""

    lag_seconds: float
    """How late the event loop is."""
    stalled_seconds: float
    """For how long a leader has had work to do, and none began or ended."""
    watch_ages: Mapping[str, float]
    """Seconds since a watch asked, by resource."""


def problems(signs: Signs) -> list[str]:
    """Return why the process is to be started anew; nothing: it works."""
    found = []
    if signs.lag_seconds > LAG_SECONDS:
        found.append(f"the event loop is {signs.lag_seconds:.1f} s late")
    if signs.stalled_seconds > STALLED_SECONDS:
        found.append(f"no work began or ended for {signs.stalled_seconds:.0f} s, and there is some")
    found += [
        f"the watch of {resource} did not ask for {age:.0f} s"
        for resource, age in sorted(signs.watch_ages.items())
        if age > DEAD_SECONDS
    ]
    return found


class Pulse:
    """Measures how late the event loop is."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin at once; `beat` keeps it going."""
        self._clock = clock
        self._due = clock() + _BEAT_SECONDS
        self._late = 0.0

    async def beat(self) -> None:
        """Measure for ever."""
        while True:
            self._due = self._clock() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self._late = self._clock() - self._due

    @property
    def lag_seconds(self) -> float:
        """How late it was at the last beat, or is now."""
        return max(self._late, self._clock() - self._due, 0.0)
