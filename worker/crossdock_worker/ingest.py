"""Taking a frame: from the socket to the log, then one journal record, then the ack."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack
from functools import partial

from aiohttp import web

from crossdock.errors import CrossdockError, FrameError, PeerGone, Unavailable
from crossdock.wire import crc
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader
from crossdock_worker import pump
from crossdock_worker.patience import Patience
from crossdock_worker.rows import Reservation
from crossdock_worker.shuffle_log import ShuffleLog

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FEED_BYTES = 256 * 1024

Place = Callable[[FrameHeader], AbstractContextManager[ShuffleLog]]
"""Finds or makes the log for a frame, and holds it; or raises why the frame is not taken."""


class FrameSink:
    """Takes the bytes of one frame in any cut; nothing is visible before `finish`.

    The index is kept until the end (16 bytes a piece); the payload goes straight to the log.
    """

    def __init__(self, frame_bytes: int, place: Place) -> None:
        """Args: `frame_bytes` is the announced length of the whole frame."""
        self._frame_bytes = frame_bytes
        self._place = place
        self._head = bytearray()
        self._head_bytes = HEADER_BYTES
        self._header: FrameHeader | None = None
        self._columns: Columns | None = None
        self._log: ShuffleLog | None = None
        self._reservation: Reservation | None = None
        self._held = ExitStack()
        self._crc = 0
        self._written = 0

    def feed(self, data: memoryview) -> None:
        """Take the next bytes; raises a 4xx error as soon as they cannot be a good frame."""
        while self._columns is None and len(data):
            need = self._head_bytes - len(self._head)
            self._head += data[:need]
            data = data[need:]
            if len(self._head) == self._head_bytes:
                self._advance()
        if len(data):
            self._write(data)

    def _advance(self) -> None:
        if self._header is None:
            self._header = header = FrameHeader.decode(self._head)
            if header.frame_bytes != self._frame_bytes:
                raise FrameError(
                    f"the frame says it has {header.frame_bytes} bytes, the request "
                    f"{self._frame_bytes}"
                )
            self._head_bytes += header.columns_bytes
            if header.columns_bytes:
                return
        with memoryview(self._head) as head:  # a slice of a bytearray would be a copy more
            index = bytes(head[HEADER_BYTES:])
        self._head.clear()
        self._columns = Columns.decode(self._header, index)
        self._log = self._held.enter_context(self._place(self._header))
        if not self._log.find(self._header):
            self._reservation = self._held.enter_context(self._log.reserve(self._header))

    def _write(self, data: memoryview) -> None:
        self._crc = crc.extend(self._crc, data)
        if self._reservation is not None and self._log is not None:
            if self._written + len(data) > self._reservation.payload_bytes:
                raise FrameError("the frame is longer than it says")
            self._log.payload.write(self._reservation.payload_at + self._written, data)
        self._written += len(data)

    def finish(self) -> bool:
        """Check the payload and make the frame visible; False when it was there already."""
        header = self._header
        if header is None or self._columns is None or self._log is None:
            raise FrameError(f"the frame ends after {len(self._head)} bytes, inside its head")
        if self._written != header.payload_bytes:
            raise FrameError(f"the frame ends after {self._written} bytes of its payload")
        if self._crc != header.payload_crc:
            raise FrameError("the frame's payload fails its checksum")
        if self._reservation is None:
            if self._log.find(header):  # again: an ack is a promise of now
                return False
            raise Unavailable("the frame went away while it came again")
        return self._log.commit(header, self._columns, self._reservation)

    @property
    def header(self) -> FrameHeader | None:
        """What the frame says of itself, once its head has come."""
        return self._header

    def close(self) -> None:
        """Give back what was reserved and not committed. Idempotent; not for the event loop."""
        self._held.close()


class FrameReceiver:
    """Moves one request's body into a `FrameSink`, by the quickest way the connection allows."""

    def __init__(self, sink: FrameSink, *, pool: Executor, patience: Patience) -> None:
        self._sink = sink
        self._pool = pool
        self._patience = patience
        self._problem: CrossdockError | None = None
        self._stored = False
        self.ended = False
        """Whether the whole body has been read, so that the connection can go on."""

    def _feed(self, data: memoryview) -> None:
        # After a problem the rest is read and dropped: a client that is still sending would
        # otherwise see a reset connection, not the answer.
        if self._problem is None:
            try:
                self._sink.feed(data)
            except CrossdockError as error:
                self._problem = error
                self._sink.close()

    def _finish(self) -> None:
        """Make the frame visible; runs in the thread that had the last bytes."""
        if self._problem is None:
            try:
                self._stored = self._sink.finish()
            except CrossdockError as error:
                self._problem = error
        self._sink.close()

    def result(self) -> bool:
        """Return whether the frame is new, or raise what was wrong with it."""
        if self._problem is not None:
            raise self._problem
        return self._stored

    async def receive(self, request: web.Request, waiting: int | None) -> None:
        """Read the whole body and finish.

        Args:
            request: of which aiohttp has the body, unless
            waiting: bytes of it wait in the socket.
        """
        if waiting is not None:
            await self._take_from_socket(request, waiting)
        else:
            if "Expect" in request.headers and request.transport is not None:
                request.transport.write(CONTINUE)
            await self._stream(request)
        self.ended = True

    async def _take_from_socket(self, request: web.Request, waiting: int) -> None:
        transport = request.transport
        if transport is None:
            raise PeerGone("the connection closed before its frame came")
        try:
            with pump.duplicate(transport) as sock:
                transport.write(CONTINUE)  # a body is only asked for once it can be taken
                await pump.receive(
                    sock,
                    waiting,
                    self._feed,
                    self._finish,
                    pool=self._pool,
                    patience=self._patience,
                )
        except PeerGone:
            await self._in_thread(self._sink.close)  # when the peer sees the end, nothing is left
            transport.abort()
            raise
        transport.resume_reading()

    async def _stream(self, request: web.Request) -> None:
        """Read through aiohttp: TLS, and clients that do not wait for 100 Continue."""
        waiting = bytearray()
        while True:
            try:
                with self._patience.waiting():
                    async with asyncio.timeout(self._patience.seconds):
                        data = await request.content.readany()
            except (ConnectionError, web.RequestPayloadError) as error:
                raise PeerGone(f"connection failed: {error}") from error
            self._patience.moved(len(data))
            waiting += data
            ended = not data and request.content.at_eof()
            if len(waiting) >= _FEED_BYTES or ended:
                await self._in_thread(partial(self._feed, memoryview(waiting)))
                waiting = bytearray()
            if ended:
                await self._in_thread(self._finish)
                return

    async def close(self) -> None:
        """Give back what a body that broke off held."""
        if not self.ended:
            await self._in_thread(self._sink.close)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Run `work` in the pool, to its end also when this is cancelled: it writes to the log."""
        loop = asyncio.get_running_loop()
        await pump.to_the_end(loop.run_in_executor(self._pool, work))
