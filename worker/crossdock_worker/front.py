"""Stands between the transport and aiohttp, so that a frame's body can go around the event loop.

aiohttp parses requests and writes responses; but bytes that pass through an event loop are copied
and scheduled several times. For the bulk of a frame a thread moves the body from (a duplicate of)
the socket to disk instead. aiohttp must then not wait for that body. So when the head of a frame
comes whole, with `Expect: 100-continue` and nothing behind it, `Front` stops reading, and hands
aiohttp the same head without the body's length; the handler asks `Front` for that, takes the body
off the socket, and the connection goes on. Anything else passes through untouched, bodies too: a
head counts as one only where a request must begin, when every request before it is answered.

Only the public interfaces of asyncio and aiohttp are used.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from aiohttp import web

from crossdock_worker.heads import Bounds, frame_head
from crossdock_worker.settings import Limits

_TLS_WRITE_BYTES: Final = 64 * 1024
"""Encrypted bytes of a connection that may wait in memory before its answers have to wait."""

_REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 70\r\n\r\n"
    b'{"code": "overloaded", "message": "too many connections", "hint": ""}\n'
)


class ConnectionCount:
    """How many connections are open, and how many may be."""

    __slots__ = ("limit", "open")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0

    def enter(self) -> bool:
        """Count a connection until `leave`; False when there is no room for it."""
        self.open += 1
        return self.open <= self.limit

    def leave(self) -> None:
        """Count a connection no more."""
        self.open -= 1


class Front(asyncio.Protocol):
    """One connection: the transport below, an aiohttp protocol above."""

    def __init__(
        self,
        make_protocol: Callable[[], asyncio.Protocol],
        connections: ConnectionCount,
        limits: Limits,
        *,
        counted: bool = False,
    ) -> None:
        """Prepare a connection.

        Args:
            make_protocol: makes an aiohttp protocol.
            connections: counts this one.
            limits: how long a new connection may take to ask for something, and how slowly it
                may take what is written to it.
            counted: whether this connection was counted already.
        """
        self._make_protocol = make_protocol
        self._connections = connections
        self._limits = limits
        self._counted = counted
        self._silence: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._inner: asyncio.Protocol | None = None
        self.direct = False
        """Whether the socket may be read and written to beside the transport: plain TCP."""
        self._bounds = Bounds()
        self._answered = 0
        self._handling = False
        self._waiting_bytes: int | None = None
        self._paused = False
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._when_taken: list[tuple[Callable[[], None], asyncio.TimerHandle]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface and not the base class.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        if not self._counted and not self._connections.enter():
            transport.write(_REFUSAL)
            transport.close()
            return
        self.direct = transport.get_extra_info("ssl_object") is None
        if not self.direct:
            transport.set_write_buffer_limits(high=_TLS_WRITE_BYTES)
        self._await_head(transport)
        self._inner = self._make_protocol()
        self._inner.connection_made(transport)

    @property
    def connected(self) -> bool:
        """Whether there has been a connection, so that its end is told here."""
        return self._transport is not None

    def data_received(self, data: bytes) -> None:
        if self._inner is None or self._transport is None:
            return
        if self.direct and self._bounds.between and self._bounds.requests == self._answered:
            head = frame_head(data)
            if head is not None:
                self._transport.pause_reading()
                self._waiting_bytes = head.body_bytes
                data = head.without_length
        self._bounds.passed(data)
        if not (self._bounds.certain or self._handling or self._silence):
            self._await_head(self._transport)  # perhaps only a part of one has come
        self._inner.data_received(data)

    def _await_head(self, transport: asyncio.Transport) -> None:
        """Give the peer some time to send the rest of a request's head."""
        loop = asyncio.get_running_loop()
        self._silence = loop.call_later(self._limits.stall_seconds, transport.abort)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def request_began(self) -> None:
        """Note that a request has come: its handler has time-outs of its own."""
        self._handling = True
        self._heard()
        taken, self._when_taken = self._when_taken, []
        for call, timer in taken:
            timer.cancel()
            call()

    def _heard(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def when_taken(self, call: Callable[[], None]) -> None:
        """Call `call` once the peer has all of the answers that were sent, or should have.

        Who asks for something else has read them. Until then the kernel may be sending, or hold
        for a peer on this machine, what `sendfile` gave it: pages of the file, not copies.
        """
        loop = asyncio.get_running_loop()
        self._when_taken.append((call, loop.call_later(self._limits.stall_seconds, call)))

    def request_ended(self) -> None:
        """Note that a request's handler is done."""
        self._handling = False
        self._answered += 1

    def take_waiting(self) -> int | None:
        """Return the length of the body that waits in the socket, if one does: once."""
        waiting, self._waiting_bytes = self._waiting_bytes, None
        return waiting

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.leave()
        self._heard()
        self._taken()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._paused = True
        self._flushed.clear()
        if self._transport is not None and self._stuck is None:
            # Also what aiohttp writes must be taken some day: it waits for ever.
            limits, waiting_bytes = self._limits, self._transport.get_write_buffer_size()
            seconds = limits.stall_seconds + waiting_bytes / limits.min_bytes_per_second
            loop = asyncio.get_running_loop()
            self._stuck = loop.call_later(seconds, self._transport.abort)
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._paused = False
        self._taken()
        if self._inner is not None:
            self._inner.resume_writing()

    def _taken(self) -> None:
        self._flushed.set()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    async def writable(self) -> None:
        """Wait until the peer has taken most of what was written, or is cut off."""
        await self._flushed.wait()

    async def flush(self) -> None:
        """Wait until all that was written has left for the kernel."""
        transport = self._transport
        if transport is None or not transport.get_write_buffer_size():
            return
        low_high = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(high=0)
        try:
            self._flushed.clear()
            transport.write(b"")  # lets the transport notice the new limit
            if not self._paused and not transport.get_write_buffer_size():
                self._flushed.set()
            await self._flushed.wait()
        finally:
            if not transport.is_closing():
                transport.set_write_buffer_limits(low=low_high[0], high=low_high[1])


def front_of(request: web.BaseRequest) -> Front | None:
    """Return the front of the request's connection; None when that is lost."""
    transport = request.transport
    front = transport.get_protocol() if transport is not None else None
    return front if isinstance(front, Front) else None
