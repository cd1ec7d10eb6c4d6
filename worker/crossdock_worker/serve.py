"""Sending answers of any size: planned and sent by one thread, straight to the socket.

A batch of blocks is a head in memory and runs of the log that go by sendfile, or, where the runs
are short, one native gather of them. An answer passes neither aiohttp nor the event loop, unless
the connection is encrypted: on a busy machine each hop between threads costs as much as a
megabyte.
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from crossdock.errors import CrossdockError, DataCorrupt, PeerGone
from crossdock.wire import blocks
from crossdock.wire.crc import I64, BytesLike
from crossdock_worker import pump, stripes
from crossdock_worker.front import Front, front_of
from crossdock_worker.gather import gather
from crossdock_worker.patience import Patience
from crossdock_worker.selection import Selection

log = structlog.get_logger()

SENDFILE_RUN_BYTES: Final = 64 * 1024
"""Mean run from which a system call per run costs less than copying the runs together."""

_WRITE_BYTES: Final = 256 * 1024
BINARY: Final = "application/octet-stream"


Damaged = Callable[[int, int], CrossdockError]
"""Notes that a file of the log cannot be read at an offset; returns the error."""


class FileRuns:
    """Runs of files that are sent as they lie there; keeps its place over calls."""

    def __init__(
        self, descriptors: list[int], addresses: I64, lengths: I64, damaged: Damaged
    ) -> None:
        """Args: `descriptors` are now this object's to close."""
        self._damaged = damaged
        self.total_bytes = int(lengths.sum())
        self._descriptors = descriptors
        addresses, lengths = stripes.split(addresses, lengths)
        files, offsets = stripes.place(addresses)
        self._runs = iter(zip(files.tolist(), offsets.tolist(), lengths.tolist(), strict=True))
        self._at = 0, 0, 0
        """File, offset and length of what is left of the run that is being sent."""

    def send(self, sock: socket.socket, moved: Callable[[int], None]) -> None:
        """Send what is left, and tell `moved`; raises BlockingIOError when the socket is full."""
        sendfile, out, descriptors = os.sendfile, sock.fileno(), self._descriptors
        file, offset, left = self._at
        total = 0
        try:
            while True:
                while left:
                    sent = sendfile(out, descriptors[file], offset, left)
                    if not sent:  # the log is shorter than its index says
                        raise self._damaged(file, offset)
                    offset += sent
                    left -= sent
                    total += sent
                file, offset, left = next(self._runs, (0, 0, 0))
                if not left:
                    return
        except OSError as error:
            if error.errno == errno.EIO:  # the disk's: a socket has none
                raise self._damaged(file, offset) from error
            raise
        finally:
            self._at = file, offset, left
            moved(total)

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent: bytes in memory, then runs of a file."""

    memory: list[BytesLike]
    status: HTTPStatus = HTTPStatus.OK
    runs: FileRuns | None = None
    content_type: str = BINARY
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        return sum(map(len, self.memory))

    @property
    def total_bytes(self) -> int:
        return self.memory_bytes + (self.runs.total_bytes if self.runs is not None else 0)


def batch(
    selection: Selection,
    log: npt.NDArray[np.uint8],
    *,
    skip: int,
    descriptors: Callable[[], list[int]] | None,
    damaged: Damaged,
) -> Answer:
    """Return the answer to a read: the head of a batch, and its payload from byte `skip` on.

    Args:
        selection: the pieces.
        log: the mapped log they lie in.
        skip: bytes of the payload to leave out.
        descriptors: makes descriptors of the log's files to send from; None: copy always.
        damaged: called when a file cannot be read while it is sent.
    """
    head = blocks.encode_head(selection.columns, end=selection.end, skip=skip)
    offsets, lengths = selection.runs(skip)
    payload_bytes = int(lengths.sum())
    if not payload_bytes:
        return Answer([head])
    if descriptors is not None and payload_bytes >= SENDFILE_RUN_BYTES * len(lengths):
        return Answer([head], runs=FileRuns(descriptors(), offsets, lengths, damaged))
    return Answer([head, gather(log, offsets, lengths)])


class SentResponse(web.StreamResponse):
    """Tells aiohttp of an answer that is on its way already, head and all."""

    def __init__(self, request: web.BaseRequest, status: HTTPStatus) -> None:
        super().__init__(status=status)
        self._keep = request.keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._keep

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the last byte is out."""


class _Outgoing:
    """One answer, planned when its first byte is to go."""

    def __init__(self, plan: Callable[[], Answer], *, keep_alive: bool, patience: Patience) -> None:
        self._plan = plan
        self._patience = patience
        self._keep_alive = keep_alive
        self._memory: deque[memoryview] = deque()
        self.answer: Answer | None = None
        self.begun = False
        """Whether bytes may have left, so that no other answer can take this one's place."""

    def __call__(self, sock: socket.socket) -> bool:
        """Send what is left; raises BlockingIOError when the socket is full."""
        if self.answer is None:
            self.answer = self._plan()
            head = _http_head(self.answer, keep_alive=self._keep_alive)
            self._memory.extend(memoryview(part).cast("B") for part in (head, *self.answer.memory))
            self.begun = True
        more = socket.MSG_MORE if self.answer.runs is not None else 0
        while self._memory:
            self._sent(sock.sendmsg(self._memory, (), more))
        if self.answer.runs is not None:
            self.answer.runs.send(sock, self._patience.moved)
        return True

    def _sent(self, count: int) -> None:
        self._patience.moved(count)
        while self._memory and count >= len(self._memory[0]):
            count -= len(self._memory.popleft())
        if count:
            self._memory[0] = self._memory[0][count:]

    def close(self) -> None:
        if self.answer is not None and self.answer.runs is not None:
            self.answer.runs.close()


def _http_head(answer: Answer, *, keep_alive: bool) -> bytes:
    body = {"Content-Type": answer.content_type, "Content-Length": str(answer.total_bytes)}
    headers = {
        **(body if answer.status is not HTTPStatus.NO_CONTENT else {}),
        "Date": formatdate(usegmt=True),
        "Connection": "keep-alive" if keep_alive else "close",
        **answer.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {answer.status:d} {answer.status.phrase}\r\n{lines}\r\n".encode("ascii")


async def send(
    request: web.Request,
    plan: Callable[[], Answer],
    *,
    pool: Executor,
    patience: Patience,
    on_wait: Callable[[Answer], Awaitable[None]],
) -> web.StreamResponse:
    """Answer a request with what `plan` returns; it is called in a thread of the pool.

    Args:
        request: to answer.
        plan: makes the answer, or raises why there is none.
        pool: its threads plan and send.
        patience: how long the peer may take.
        on_wait: called when the peer takes its time, as long as it does.
    """
    front, transport = front_of(request), request.transport
    if front is None or transport is None or transport.is_closing():
        raise PeerGone("the connection closed before its answer was made")
    if not front.direct:
        return await _send_by_aiohttp(request, front, plan, pool, patience)
    try:
        with patience.waiting():
            async with asyncio.timeout(patience.seconds):
                await front.flush()
    except PeerGone:
        transport.abort()
        raise
    outgoing = _Outgoing(plan, keep_alive=request.keep_alive, patience=patience)

    async def waiting() -> None:
        if outgoing.answer is not None:
            await on_wait(outgoing.answer)

    try:
        with pump.duplicate(transport) as sock:
            await pump.send(sock, outgoing, pool=pool, patience=patience, on_wait=waiting)
    except (CrossdockError, OSError) as error:
        if not outgoing.begun:
            raise
        if isinstance(error, DataCorrupt):
            log.exception("shuffle is damaged")
        # The head is out: only a broken connection can tell the reader now. It resumes.
        transport.abort()
    finally:
        outgoing.close()
    status = HTTPStatus.OK if outgoing.answer is None else outgoing.answer.status
    return SentResponse(request, status)


async def _send_by_aiohttp(
    request: web.Request,
    front: Front,
    plan: Callable[[], Answer],
    pool: Executor,
    patience: Patience,
) -> web.StreamResponse:
    """Send through aiohttp, where the socket cannot be taken; `plan` must copy."""
    answer = await asyncio.get_running_loop().run_in_executor(pool, plan)
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if answer.status is not HTTPStatus.NO_CONTENT:
        response.content_type = answer.content_type
        response.content_length = answer.total_bytes
    try:
        with patience.waiting():
            async with asyncio.timeout(patience.seconds):
                await response.prepare(request)
        for part in answer.memory:
            for at in range(0, len(part), _WRITE_BYTES):
                chunk = bytes(part[at : at + _WRITE_BYTES])
                with patience.waiting():
                    async with asyncio.timeout(patience.seconds):
                        await response.write(chunk)
                patience.moved(len(chunk))
        await response.write_eof()
        with patience.waiting():  # what is not taken yet takes the room that this answer holds
            async with asyncio.timeout(patience.seconds):
                await front.writable()
    except (OSError, CrossdockError):
        if request.transport is not None:
            request.transport.abort()
    finally:
        if answer.runs is not None:
            answer.runs.close()
    return response
