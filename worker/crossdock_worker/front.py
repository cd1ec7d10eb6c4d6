"""Takes the socket away from aiohttp for the length of one request body.

aiohttp parses requests and writes responses; but bytes that pass through an event loop are copied
and scheduled several times. For the bulk of a frame the worker therefore stops reading, answers
`100 Continue` itself, and lets a thread move the body from (a duplicate of) the socket to disk.
aiohttp's parser would then wait for a body that has already been read, so when the response is
out, the connection gets a fresh aiohttp protocol, and the old one is told that it was closed.

Only the public interfaces of asyncio and aiohttp are used: `Front` is the transport's protocol
and passes events on; `_Facade` is the transport that aiohttp sees.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web

Protocol = asyncio.Protocol


class ConnectionCount:
    """How many connections are open, and how many may be."""

    __slots__ = ("limit", "open", "refused")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0
        self.refused = 0


_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 70\r\n\r\n"
    b'{"code": "overloaded", "message": "too many connections", "hint": ""}\n'
)


class Front(asyncio.Protocol):
    """One connection: the real transport below, an aiohttp protocol above."""

    def __init__(
        self,
        make_protocol: Callable[[], Protocol],
        connections: ConnectionCount,
        *,
        first_seconds: float,
        idle_seconds: float,
    ) -> None:
        """Prepare a connection.

        Args:
            make_protocol: makes an aiohttp protocol.
            connections: counts this one.
            first_seconds: how long a new connection may take to ask for something.
            idle_seconds: how long one may rest after a frame; aiohttp counts the other rests.
        """
        self._make_protocol = make_protocol
        self._connections = connections
        self._first_seconds = first_seconds
        self._idle_seconds = idle_seconds
        self._silence: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._inner: Protocol | None = None
        self._facade: _Facade | None = None
        self._paused = False
        self._flushed = asyncio.Event()
        self._flushed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface and not the base class.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        self._connections.open += 1
        if self._connections.open > self._connections.limit:
            self._connections.refused += 1
            transport.write(_REFUSAL)
            transport.close()
            return
        self._attach(self._first_seconds)

    def _attach(self, seconds: float) -> None:
        """Put a fresh aiohttp protocol on top; it sets no bound on its first request's coming."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self._silence = loop.call_later(seconds, self._transport.abort)
        self._facade = _Facade(self._transport, self)
        self._inner = self._make_protocol()
        self._inner.connection_made(self._facade)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def request_began(self) -> None:
        """Note that a request has come: its handler has time-outs of its own."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.open -= 1
        self.request_began()
        self._flushed.set()
        inner, self._inner = self._inner, None
        if self._facade is not None:
            self._facade.detached = True
        if inner is not None:
            inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._paused = True
        self._flushed.clear()
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._paused = False
        self._flushed.set()
        if self._inner is not None:
            self._inner.resume_writing()

    async def flush(self) -> None:
        """Wait until all that was written has left for the kernel."""
        transport = self._transport
        if transport is None:
            return
        low_high = transport.get_write_buffer_limits()
        transport.set_write_buffer_limits(high=0)
        try:
            if transport.get_write_buffer_size():
                self._flushed.clear()
                transport.write(b"")  # lets the transport notice the new limit
                if not self._paused and not transport.get_write_buffer_size():
                    self._flushed.set()
                await self._flushed.wait()
        finally:
            if not transport.is_closing():
                transport.set_write_buffer_limits(low=low_high[0], high=low_high[1])

    def renew(self) -> None:
        """Give the connection a fresh aiohttp protocol and go on reading."""
        old, facade, transport = self._inner, self._facade, self._transport
        if old is None or facade is None or transport is None or transport.is_closing():
            return
        facade.detached = True
        old.connection_lost(None)
        self._attach(self._idle_seconds)
        transport.resume_reading()


class _Facade(asyncio.Transport):
    """The transport that aiohttp sees: the real one, until it is detached."""

    def __init__(self, real: asyncio.Transport, front: Front) -> None:
        super().__init__()
        self._real = real
        self.front = front
        self.detached = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._real.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self.detached or self._real.is_closing()

    def close(self) -> None:
        if not self.detached:
            self._real.close()

    def abort(self) -> None:
        if not self.detached:
            self._real.abort()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        raise NotImplementedError("the front keeps this connection")

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.front

    def is_reading(self) -> bool:
        return self._real.is_reading()

    def pause_reading(self) -> None:
        if not self.detached:
            self._real.pause_reading()

    def resume_reading(self) -> None:
        if not self.detached:
            self._real.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._real.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._real.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._real.get_write_buffer_limits()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.detached:
            self._real.write(data)

    def writelines(self, list_of_data: Any) -> None:
        if not self.detached:
            self._real.writelines(list_of_data)

    def write_eof(self) -> None:
        self._real.write_eof()

    def can_write_eof(self) -> bool:
        return self._real.can_write_eof()


def request_began(request: web.BaseRequest) -> None:
    """Tell the request's connection that it does not rest any more."""
    if isinstance(request.transport, _Facade):
        request.transport.front.request_began()


def front_of(request: web.BaseRequest) -> Front | None:
    """Return the connection's front when its socket can be taken: plain TCP, still open."""
    transport = request.transport
    if not isinstance(transport, _Facade) or transport.is_closing():
        return None
    if transport.get_extra_info("ssl_object") is not None:
        return None
    if transport.get_extra_info("socket") is None:
        return None
    return transport.front
