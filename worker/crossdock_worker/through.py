"""The store, read for clients that have no credentials of it: pieces of bounded size, in turns."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeVar

import numpy as np

from crossdock.errors import Overloaded, ProtocolError
from crossdock.store.api import Meter, ObjectInfo, StoreOptions
from crossdock.store.errors import ObjectDamaged, StoreUnavailable
from crossdock.store.opening import open_store
from crossdock.wire.names import U64_MAX, parse_number
from crossdock_worker import pump

T = TypeVar("T")

PAGE_OBJECTS: Final = 1000
_RANGE_BYTES: Final = 16 * 2**20
_AT_ONCE: Final = 4
"""So that reads of this disk find room under `--max-read-bytes` however slow the store is."""
_TURN_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 10.0
"""How long the store may take: the client knows of other workers, and waits for itself."""
_ENOUGH_SECONDS: Final = 5.0
"""What came by then is answered, if anything did; the client asks for the rest."""
_RANGE: Final = re.compile(r"bytes=([0-9]+)-([0-9]*)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an object."""

    info: ObjectInfo
    start: int
    data: memoryview


def parse_range_header(text: str) -> tuple[int, int | None]:
    """Return (start, stop) of a Range header, `stop` exclusive; None: to the object's end."""
    match = _RANGE.fullmatch(text)
    if not match:
        raise ProtocolError(f"Range: {text!r} is not one", hint="bytes=FIRST-LAST, or bytes=FIRST-")
    start = parse_number("the range's first byte", match[1], U64_MAX)
    if not match[2]:
        return start, None
    last = parse_number("the range's last byte", match[2], U64_MAX)
    if last < start:
        raise ProtocolError(f"Range: {text!r} ends before it begins")
    return start, last + 1


class ReadThrough:
    """Reads one store for clients. Made and used on the event loop; its threads do the work."""

    def __init__(self, url: str, options: StoreOptions, *, meter: Meter, most_bytes: int) -> None:
        """Open the store once more, less patient than for writes; nothing is sent.

        Args:
            url: of the store.
            options: of the store.
            meter: is told of every request.
            most_bytes: of one answer.
        """
        self.most_bytes = min(_RANGE_BYTES, most_bytes)
        self._store = open_store(url, _hasty(options), meter=meter)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="through")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a turn to read the store; waits for it, then raises `Overloaded`."""
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise Overloaded("too many clients read the store through this worker") from None
        try:
            yield
        finally:
            self._turns.release()

    async def page(self, prefix: str, after: str) -> tuple[list[ObjectInfo], bool]:
        """Return some objects under a prefix, rising, and whether there are more."""

        def work() -> tuple[list[ObjectInfo], bool]:
            found = list(islice(self._store.list(prefix, after=after), PAGE_OBJECTS + 1))
            return found[:PAGE_OBJECTS], len(found) > PAGE_OBJECTS

        return await self._in_thread(work)

    async def piece(self, key: str, start: int, stop: int | None, etag: str | None) -> Piece:
        """Return the beginning of a range, at least a byte of it.

        Raises:
            ObjectMissing: there is none.
            ObjectDamaged: its ETag is another, or it is shorter than the range.
            StoreUnavailable: the store does not answer.
        """
        top = None if stop is None else min(stop, start + self.most_bytes)
        return await self._in_thread(lambda: self._read(key, start, top, etag))

    def _read(self, key: str, start: int, stop: int | None, etag: str | None) -> Piece:
        enough = time.monotonic() + _ENOUGH_SECONDS
        with self._store.get(key, start, stop, etag=etag) as reading:
            if not reading.nbytes:
                raise ObjectDamaged(f"{key} has {reading.info.size} bytes, and none at {start}")
            data = np.empty(min(reading.nbytes, self.most_bytes), np.uint8).data
            done = 0
            try:
                while done < len(data) and (not done or time.monotonic() < enough):
                    done += reading.read_into(data[done:])
            except StoreUnavailable:
                if not done:
                    raise
        return Piece(reading.info, start, data[:done])

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await pump.to_the_end(asyncio.get_running_loop().run_in_executor(self._pool, work))

    def close(self) -> None:
        """End what is under way soon, and wait for it."""
        self._store.close()
        self._pool.shutdown(cancel_futures=True)


def _hasty(options: StoreOptions) -> StoreOptions:
    return replace(
        options,
        deadline_seconds=min(options.deadline_seconds, _PATIENCE_SECONDS),
        stall_seconds=min(options.stall_seconds, _PATIENCE_SECONDS),
    )
