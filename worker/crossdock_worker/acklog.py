"""`BeforeAck`: frames are in the store before they are acked, many of them in one log object.

Frames of one shuffle that come within an interval are a group, and share a write (log_writer.py).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from crossdock.views import ShuffleKey
from crossdock.wire.frame import FrameHeader
from crossdock_worker.rows import FrameId
from crossdock_worker.shuffle_log import ShuffleLog


@dataclass(slots=True)
class _Group:
    """Frames of one shuffle that share a log object."""

    done: "asyncio.Future[None]"
    shuffle: ShuffleLog
    frames: list[FrameId] = field(default_factory=list)
    nbytes: int = 0
    waiting: int = 0
    """Pushes that wait for it; one whose pushers have all left is not written."""


class AckLog:
    """Brings frames into the store before they are acked. Lives on the event loop."""

    def __init__(
        self,
        write: Callable[[ShuffleLog, list[FrameId]], None],
        *,
        threads: Executor,
        interval_seconds: float,
        group_bytes: int,
    ) -> None:
        """Make one.

        Args:
            write: brings frames into the store; blocks.
            threads: where that is done.
            interval_seconds: how long a frame waits for others.
            group_bytes: frames of so many bytes wait for no more.
        """
        self._write = write
        self._threads = threads
        self._interval_seconds = interval_seconds
        self._group_bytes = group_bytes
        self._groups: dict[ShuffleKey, _Group] = {}
        self._writing: set[asyncio.Future[None]] = set()

    async def durable(self, shuffle: ShuffleLog, header: FrameHeader) -> None:
        """Return once a visible frame is in the store.

        Raises:
            StoreUnavailable: the store does not take it now.
            Unavailable: the frame went away meanwhile.
        """
        group = self._groups.get(shuffle.key)
        if group is None or group.nbytes + header.frame_bytes > self._group_bytes:
            if group is not None:
                self._flush(group)
            group = self._open(shuffle)
        group.frames.append((header.map_id, header.attempt, header.seq))
        group.nbytes += header.frame_bytes
        if group.nbytes >= self._group_bytes:
            self._flush(group)
        group.waiting += 1
        try:
            await asyncio.shield(group.done)  # one that leaves does not take the others with it
        finally:
            group.waiting -= 1

    def _open(self, shuffle: ShuffleLog) -> _Group:
        loop = asyncio.get_running_loop()
        group = self._groups[shuffle.key] = _Group(loop.create_future(), shuffle)
        loop.call_later(self._interval_seconds, self._flush, group)
        return group

    def _flush(self, group: _Group) -> None:
        if self._groups.get(group.shuffle.key) is not group:
            return  # it was written already
        del self._groups[group.shuffle.key]
        if not group.waiting and group.nbytes < self._group_bytes:
            group.done.cancel()
            return
        loop = asyncio.get_running_loop()
        work = partial(self._write, group.shuffle, group.frames)
        writing = loop.run_in_executor(self._threads, work)
        self._writing.add(writing)
        writing.add_done_callback(partial(self._written, group))

    def _written(self, group: _Group, writing: "asyncio.Future[None]") -> None:
        self._writing.discard(writing)
        if group.done.cancelled():
            return
        if writing.cancelled():
            group.done.cancel()
        elif (error := writing.exception()) is not None:
            group.done.set_exception(error)
            group.done.exception()  # its waiters may all have left
        else:
            group.done.set_result(None)
