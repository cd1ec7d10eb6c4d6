"""Bytes of one object: received by one request, or by a second one where that stalls.

A request that breaks off goes on from the byte reached. One that is silent for too long is joined
by another from the byte reached; the first that is through wins, and the other one is cancelled.
Each receives into memory of its own, which it lets go when it ends.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Final

from crossdock.cancel import Cancel
from crossdock.retry import Patience
from crossdock.store.access import Access
from crossdock.store.errors import ObjectDamaged, StoreUnavailable
from crossdock.threads import result_of

_LOOK_SECONDS: Final = 0.3


def receive(access: Access, key: str, start: int, nbytes: int, *, etag: str) -> memoryview:
    """Return bytes of an object, lent until the last view is gone.

    Args:
        access: the store.
        key: of the object.
        start: the first byte.
        nbytes: how many; at least one.
        etag: what the object must be; "": any.

    Raises:
        ObjectMissing: there is none.
        ObjectDamaged: it is another one, or too short.
        StoreUnavailable: the store is, until the deadline.
        Closed: the store was closed.
    """
    first = _Try(access, key, (start, start + nbytes), etag)
    under_way = {access.receivers.submit(first.run): first}
    second: _Try | None = None
    hedging, asked_at = access.hedging, -math.inf
    try:
        while True:
            after = hedging.after_seconds
            stalls_at = max(first.moved_at, asked_at) + after
            left = math.inf if second else max(0.0, stalls_at - time.monotonic())
            left = min(left, _LOOK_SECONDS)  # it may begin to stall, or the store be closed
            done, _ = wait(under_way, timeout=left, return_when=FIRST_COMPLETED)
            access.cancel.check()
            for future in done:
                ended = under_way.pop(future)
                if not under_way or _is_through(future):
                    data = result_of(future)
                    hedging.note(ended.longest_silence)
                    return data
            if not done and second is None and time.monotonic() >= stalls_at:
                asked_at = time.monotonic()
                if hedging.begin():
                    second = first.again()
                    under_way[access.receivers.submit(second.run)] = second
    finally:
        for future, loser in under_way.items():
            loser.cancel.set()
            future.cancel()
        if second is not None:
            _when_ended(list(under_way), hedging.end)


def _is_through(future: Future[memoryview]) -> bool:
    return not future.cancelled() and future.exception() is None


def _when_ended(futures: list[Future[memoryview]], call: Callable[[], None]) -> None:
    """Call when the futures, of which there is one at most but for interrupts, have ended."""
    if futures:
        futures[-1].add_done_callback(lambda _: call())
    else:
        call()


class _Try:
    """One request for a range, and those that go on where it breaks off."""

    def __init__(self, access: Access, key: str, span: tuple[int, int], etag: str) -> None:
        self.cancel = Cancel("another request was quicker", parent=access.cancel)
        self.moved_at = time.monotonic()
        """When the last byte came; in the future while nothing is asked."""
        self.longest_silence = 0.0
        self._access = access
        self._key = key
        self._start, self._stop = span
        self._etag = etag
        self._data = access.buffers.take(self._stop - self._start)
        self._done = 0

    def again(self) -> "_Try":
        """Return another one, which begins where this one is."""
        other = _Try(self._access, self._key, (self._start, self._stop), self._etag)
        done = self._done
        other._data[:done] = self._data[:done]
        other._done = done
        return other

    def run(self) -> memoryview:
        """Receive all there is to receive."""
        patience = Patience(self._access.options.deadline_seconds, self.cancel)
        while self._done < len(self._data):
            self.cancel.check()
            try:
                self._receive()
            except StoreUnavailable as error:
                self.moved_at = math.inf
                patience.wait_after(error)
                self.moved_at = time.monotonic()
        return self._data

    def _receive(self) -> None:
        """Receive until the answer ends or breaks off."""
        begin = self._start + self._done
        with self._access.store.get(
            self._key, begin, self._stop, etag=self._etag or None, cancel=self.cancel
        ) as reading:
            while n := reading.read_into(self._data[self._done :]):
                self.cancel.check()
                self._done += n
                now = time.monotonic()
                self.longest_silence = max(self.longest_silence, now - self.moved_at)
                self.moved_at = now
        if self._done < len(self._data):
            raise ObjectDamaged(f"{self._key} ends before offset {self._stop}")
