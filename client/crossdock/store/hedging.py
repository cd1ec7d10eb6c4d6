"""When a range that stalls is asked for a second time."""

import threading
from typing import Final

_FACTOR: Final = 4.0
"""A silence so many times as long as usual is a stall."""
_MEMORY: Final = 1 / 16
"""Weight of the last range in what is usual."""
_SHARE: Final = 1 / 20
"""Of ranges, that may be asked for twice; after a time without, all that are under way."""


class Hedging:
    """Decides, from what ranges took lately. Thread-safe.

    A store that is slow as a whole is not asked twice: what is usual grows with it, and no more
    than a small share of all ranges ever is.
    """

    def __init__(self, least_seconds: float, *, at_once: int) -> None:
        """Begin without experience.

        Args:
            least_seconds: no shorter silence is a stall.
            at_once: second requests, and first ones that were given up and have not ended yet.
        """
        self._least_seconds = least_seconds
        self._at_once = at_once
        self._lock = threading.Lock()
        self._usual_seconds = 0.0
        self._allowed = float(at_once)
        self.under_way = 0
        """Ranges that were asked for twice, of which a request has not ended."""

    @property
    def after_seconds(self) -> float:
        """How long a range may be silent."""
        return max(self._least_seconds, _FACTOR * self._usual_seconds)

    def note(self, silent_seconds: float) -> None:
        """Learn the longest silence of a range that is here."""
        with self._lock:
            self._usual_seconds += _MEMORY * (silent_seconds - self._usual_seconds)
            self._allowed = min(self._at_once, self._allowed + _SHARE)

    def begin(self) -> bool:
        """Return whether a range may be asked for once more now; then `end` is due."""
        with self._lock:
            if self._allowed < 1 or self.under_way >= self._at_once:
                return False
            self._allowed -= 1
            self.under_way += 1
            return True

    def end(self) -> None:
        """Note that of a range that was asked for twice no request is under way any more."""
        with self._lock:
            self.under_way -= 1
