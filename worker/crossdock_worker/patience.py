"""How long a peer may keep us waiting, for one body."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from crossdock.errors import PeerGone


class Patience:
    """Sets the time that a peer made us wait against the bytes that it moved.

    A wait ends after `stall_seconds`. All waits together end `stall_seconds` after those that the
    bytes moved so far take at the lowest rate, so that a body of n bytes makes us wait for
    `stall_seconds + n / min_bytes_per_second` at most. Our own work is not counted: a slow disk
    or a lack of threads is not the peer's fault.
    """

    __slots__ = ("_min_bytes_per_second", "_moved_bytes", "_waited_seconds", "stall_seconds")

    def __init__(self, stall_seconds: float, min_bytes_per_second: float) -> None:
        """Args: `min_bytes_per_second` 0 sets no lowest rate."""
        self.stall_seconds = stall_seconds
        self._min_bytes_per_second = min_bytes_per_second
        self._moved_bytes = 0
        self._waited_seconds = 0.0

    def moved(self, size: int) -> None:
        """Note bytes that the peer sent or took."""
        self._moved_bytes += size

    @property
    def seconds(self) -> float:
        """How long the next wait may be."""
        return min(self.stall_seconds, self._left())

    def _left(self) -> float:
        if not self._min_bytes_per_second:
            return self.stall_seconds
        earned = self._moved_bytes / self._min_bytes_per_second
        return max(0.0, self.stall_seconds + earned - self._waited_seconds)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block.

        Raises:
            PeerGone: the block timed out, or the peer is too slow on the whole.
        """
        started = time.monotonic()
        try:
            yield
        except TimeoutError:
            self._waited_seconds += time.monotonic() - started
            raise self._gone() from None
        self._waited_seconds += time.monotonic() - started
        if not self._left():
            raise self._gone()

    def _gone(self) -> PeerGone:
        if self._left():
            return PeerGone(f"peer moved no byte for {self.stall_seconds} s")
        return PeerGone(
            f"peer moved {self._moved_bytes} bytes while it was waited for "
            f"{self._waited_seconds:.1f} s, less than {self._min_bytes_per_second} bytes a second"
        )
