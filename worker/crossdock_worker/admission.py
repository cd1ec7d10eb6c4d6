"""How much a worker takes on: bytes in flight, disk, answers in memory. Says no early."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crossdock.errors import FrameTooLarge, Overloaded
from crossdock_worker.settings import Limits

_DISK_CHECK_SECONDS: Final = 0.5
_READ_WAIT_SECONDS: Final = 10.0
_VIEWS: Final = 2
_SMALL_BODY_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class DiskUse:
    """How full the disk is."""

    used_bytes: float
    capacity_bytes: float

    @property
    def share(self) -> float:
        """Of the capacity; 1 when there is none."""
        return self.used_bytes / self.capacity_bytes if self.capacity_bytes else 1.0


def disk_use(limits: Limits, data_dir: Path, own_bytes: Callable[[], int]) -> DiskUse:
    """Look at the disk: what this worker has of the capacity it was given, or of what all have."""
    if limits.disk_capacity_bytes:
        return DiskUse(own_bytes(), limits.disk_capacity_bytes)
    status = os.statvfs(data_dir)
    usable = status.f_blocks - status.f_bfree + status.f_bavail
    return DiskUse((usable - status.f_bavail) * status.f_frsize, usable * status.f_frsize)


class Admission:
    """The worker's limits and what is used of them. Lives on the event loop."""

    def __init__(self, limits: Limits, data_dir: Path, *, own_bytes: Callable[[], int]) -> None:
        """Args: `own_bytes` tells what this worker's shuffles take on disk."""
        self.limits = limits
        self.inflight_bytes = 0
        self.draining = False
        self.returning = False
        """Whether peers may still believe that this worker, which had drained, is gone."""
        self.disk_full = False
        self.disk_used = 0.0
        self.relieved = False
        """Whether somebody makes space on a full disk, so that it pays to come back soon."""
        self.pressed = asyncio.Event()
        """Set when the disk is seen to be as full as `disk_persist`; who waits for it clears it."""
        self._data_dir = data_dir
        self._own_bytes = own_bytes
        self._disk_checked = float("-inf")
        self._read_bytes = 0
        self._read_turn = asyncio.Condition()
        self._view_turn = asyncio.Semaphore(_VIEWS)

    @contextmanager
    def frame(self, frame_bytes: int) -> Iterator[None]:
        """Hold room for a frame while it is received, or raise."""
        if frame_bytes > self.limits.max_frame_bytes:
            raise FrameTooLarge(
                f"the frame has {frame_bytes} bytes, this worker takes "
                f"{self.limits.max_frame_bytes}"
            )
        if self.draining:
            raise Overloaded("this worker is draining", hint="push to another worker")
        if self.returning:
            raise Overloaded("this worker had drained, and its peers are yet to hear it is back")
        self.check_disk()
        if self.disk_full:
            raise Overloaded(
                f"this worker's disk is {self.disk_used:.0%} full",
                retry_after_seconds=1 if self.relieved else 5,
            )
        with self._receiving(frame_bytes):
            yield

    @contextmanager
    def body(self, size: int) -> Iterator[None]:
        """Hold room for another call's body while it is received, or raise.

        Small ones need none: at the limit, leases must still be renewed.
        """
        if size <= _SMALL_BODY_BYTES:
            yield
            return
        with self._receiving(size):
            yield

    @contextmanager
    def _receiving(self, size: int) -> Iterator[None]:
        if self.inflight_bytes + size > self.limits.max_inflight_bytes:
            raise Overloaded(
                f"{self.inflight_bytes} bytes of bodies are being received, the limit is "
                f"{self.limits.max_inflight_bytes}"
            )
        self.inflight_bytes += size
        try:
            yield
        finally:
            self.inflight_bytes -= size

    @asynccontextmanager
    async def answer(self, size: int) -> AsyncIterator[None]:
        """Hold room for an answer in memory; waits for its turn, then raises `Overloaded`."""
        size = min(size, self.limits.max_read_bytes)
        try:
            async with asyncio.timeout(_READ_WAIT_SECONDS), self._read_turn:
                await self._read_turn.wait_for(
                    lambda: self._read_bytes + size <= self.limits.max_read_bytes
                )
                self._read_bytes += size
        except TimeoutError:
            raise Overloaded("too many bytes of answers are being read") from None
        try:
            yield
        finally:
            async with self._read_turn:
                self._read_bytes -= size
                self._read_turn.notify_all()

    @asynccontextmanager
    async def view(self) -> AsyncIterator[None]:
        """Hold a turn to make a view and send it; waits for it, then raises `Overloaded`.

        Making one asks this worker too, for answers that take room of their own.
        """
        try:
            async with asyncio.timeout(_READ_WAIT_SECONDS):
                await self._view_turn.acquire()
        except TimeoutError:
            raise Overloaded("too many views are being made") from None
        try:
            yield
        finally:
            self._view_turn.release()

    def disk_use(self) -> DiskUse:
        """Look at the disk now; from any thread."""
        return disk_use(self.limits, self._data_dir, self._own_bytes)

    def check_disk(self) -> None:
        """Look at the disk if the last look is old; sets `disk_full` with hysteresis."""
        now = time.monotonic()
        if now - self._disk_checked < _DISK_CHECK_SECONDS and not self.limits.disk_capacity_bytes:
            return
        self._disk_checked = now
        self.disk_used = self.disk_use().share
        if self.disk_used >= self.limits.disk_persist:
            self.pressed.set()
        bound = self.limits.disk_low if self.disk_full else self.limits.disk_high
        self.disk_full = self.disk_used >= bound
