"""Takes connections: plain ones as they come; encrypted ones are counted before their handshake."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from crossdock_worker import tls
from crossdock_worker.front import ConnectionCount, Front
from crossdock_worker.settings import Settings

_BACKLOG: Final = 1024
_PAUSE_SECONDS: Final = 0.2
"""Before the next try when the system has no connection to give: no descriptor is left."""


class Listener(Protocol):
    """What listens."""

    @property
    def sockets(self) -> Sequence[socket.socket]: ...

    def close(self) -> None: ...


class _TlsListener:
    """Accepts by itself: a server of asyncio tells of a connection when its handshake is done."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        connect: Callable[[], Front],
        connections: ConnectionCount,
        shake: Callable[[Front, socket.socket], Awaitable[object]],
    ) -> None:
        self.sockets = sockets
        self._connect = connect
        self._connections = connections
        self._shake = shake
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting = [asyncio.create_task(self._accept(sock)) for sock in sockets]

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if self._connections.enter():
                task = loop.create_task(self._shake_hands(sock))
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)
            else:
                self._connections.leave()
                sock.close()  # an answer would cost the handshake

    async def _shake_hands(self, sock: socket.socket) -> None:
        front = self._connect()
        try:
            await self._shake(front, sock)
        except OSError:  # no TLS, another authority, too slow, gone: anybody can do that
            pass
        finally:
            if not front.connected:
                self._connections.leave()

    def close(self) -> None:
        for task in (*self._accepting, *self._handshakes):
            task.cancel()
        for sock in self.sockets:
            sock.close()


async def listen(
    settings: Settings, make_protocol: Callable[[], asyncio.Protocol], connections: ConnectionCount
) -> Listener:
    """Listen as the settings say; raises OSError when that cannot be."""
    loop = asyncio.get_running_loop()
    shown, limits = tls.serving(settings), settings.limits
    inherited = settings.listen_fd
    if shown is None:

        def connect() -> Front:
            return Front(make_protocol, connections, limits)

        if inherited is not None:
            own = socket.socket(fileno=inherited)
            return await loop.create_server(connect, sock=own, backlog=_BACKLOG)
        return await loop.create_server(
            connect, settings.host, settings.port, reuse_address=True, backlog=_BACKLOG
        )

    async def shake(front: Front, sock: socket.socket) -> object:
        return await loop.connect_accepted_socket(
            lambda: front, sock, ssl=shown.context(), ssl_handshake_timeout=limits.stall_seconds
        )

    sockets = await _bound(settings) if inherited is None else [socket.socket(fileno=inherited)]
    for sock in sockets:
        sock.settimeout(0)

    def connect_counted() -> Front:
        return Front(make_protocol, connections, limits, counted=True)

    return _TlsListener(sockets, connect_counted, connections, shake)


async def _bound(settings: Settings) -> list[socket.socket]:
    found = await asyncio.get_running_loop().getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(
                socket.create_server(tuple(address[:2]), family=family, backlog=_BACKLOG)
            )
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets
