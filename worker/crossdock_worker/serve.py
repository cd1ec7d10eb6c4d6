"""Sending one batch: sendfile for long runs of the log, a native gather for short ones."""

import asyncio
import os
import socket
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
from aiohttp import web

from crossdock.errors import CrossdockError
from crossdock.wire import blocks
from crossdock_worker import pump
from crossdock_worker.front import Front
from crossdock_worker.gather import gather
from crossdock_worker.selection import Selection
from crossdock_worker.shuffle_log import ShuffleLog

SENDFILE_RUN_BYTES: Final = 64 * 1024
"""Mean run from which a system call per run costs less than copying the runs together."""

_WRITE_BYTES: Final = 256 * 1024


class Batch:
    """A batch that is ready to be sent: its head, and either runs of the log or gathered bytes."""

    def __init__(
        self, selection: Selection, log: npt.NDArray[np.uint8], *, skip: int, sendfile: bool
    ) -> None:
        """Args: `skip` bytes are left out; `sendfile` False copies always (TLS has none)."""
        self.head = blocks.encode_head(selection.columns, end=selection.end, skip=skip)
        self.offsets, self.lengths = selection.runs(skip)
        self.payload_bytes = int(self.lengths.sum())
        self.pieces = len(selection.columns.length)
        long = self.payload_bytes >= SENDFILE_RUN_BYTES * max(1, len(self.lengths))
        self.gathered: memoryview | None = None
        if self.payload_bytes and not (sendfile and long):
            self.gathered = gather(log, self.offsets, self.lengths)

    @property
    def total_bytes(self) -> int:
        return len(self.head) + self.payload_bytes


class _Runs:
    """Sends runs of a file; keeps its place over calls."""

    def __init__(self, fd: int, batch: Batch) -> None:
        self._fd = fd
        self._runs = iter(zip(batch.offsets.tolist(), batch.lengths.tolist(), strict=True))
        self._offset = 0
        self._left = 0

    def __call__(self, sock: socket.socket) -> bool:
        sendfile, out, log = os.sendfile, sock.fileno(), self._fd
        offset, left = self._offset, self._left
        try:
            while True:
                while left:
                    sent = sendfile(out, log, offset, left)
                    if not sent:
                        raise OSError(5, "the log is shorter than its index says")
                    offset += sent
                    left -= sent
                offset, left = next(self._runs, (0, 0))
                if not left:
                    return True
        finally:
            self._offset, self._left = offset, left


class _Buffer:
    """Sends a buffer; keeps its place over calls."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def __call__(self, sock: socket.socket) -> bool:
        while self._data:
            self._data = self._data[sock.send(self._data) :]
        return True


async def send_batch(
    request: web.Request,
    front: Front | None,
    log: ShuffleLog,
    batch: Batch,
    *,
    pool: Executor,
    stall_seconds: float,
) -> web.StreamResponse:
    """Answer a request with a batch."""
    response = web.StreamResponse()
    response.content_type = "application/octet-stream"
    response.content_length = batch.total_bytes
    await response.prepare(request)
    transport = request.transport
    try:
        if front is None or transport is None:
            await _write(response, batch, stall_seconds)
        else:
            async with asyncio.timeout(stall_seconds):
                await response.write(batch.head)
                await front.flush()
            if batch.payload_bytes:
                with _step(log, batch) as step, pump.duplicate(transport) as sock:
                    await pump.send(sock, step, pool=pool, stall_seconds=stall_seconds)
        await response.write_eof()
    except (CrossdockError, OSError, TimeoutError):
        # The head is out: only a broken connection can tell the reader now. It resumes.
        if transport is not None:
            transport.abort()
    return response


async def _write(response: web.StreamResponse, batch: Batch, stall_seconds: float) -> None:
    """Send through aiohttp, where the socket cannot be taken."""
    parts = [memoryview(batch.head)]
    if batch.gathered is not None:
        parts.append(batch.gathered)
    for part in parts:
        for at in range(0, len(part), _WRITE_BYTES):
            async with asyncio.timeout(stall_seconds):
                await response.write(bytes(part[at : at + _WRITE_BYTES]))


@contextmanager
def _step(log: ShuffleLog, batch: Batch) -> Iterator[_Runs | _Buffer]:
    if batch.gathered is not None:
        yield _Buffer(batch.gathered)
        return
    fd = log.payload_fd()
    try:
        yield _Runs(fd, batch)
    finally:
        os.close(fd)
