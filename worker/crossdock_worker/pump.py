"""Moves bytes between a socket and somewhere else, in threads, without ever waiting in one.

A thread works while the socket is ready, and for a moment longer; then the event loop watches the
socket until it is ready again. So few threads serve any number of slow peers, and a peer that
stalls costs a file descriptor, not a thread.
"""

import asyncio
import errno
import os
import select
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from functools import partial
from threading import local
from typing import Final, TypeVar

from crossdock.errors import PeerGone
from crossdock_worker.files import disk_error
from crossdock_worker.patience import Patience
from crossdock_worker.settings import MIB

T = TypeVar("T")

CHUNK_BYTES: Final = MIB
_LINGER_MS: Final = 10
"""How long a thread waits on a dry socket: cheaper than handing it over for a short gap."""
_BROKEN: Final = {
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
}
"""What the system says of a broken connection, beside the classes that Python has for it."""

_scratch = local()


def scratch() -> memoryview:
    """Return this thread's own buffer of `CHUNK_BYTES`."""
    try:
        return memoryview(_scratch.buffer)
    except AttributeError:
        _scratch.buffer = bytearray(CHUNK_BYTES)
        return memoryview(_scratch.buffer)


@contextmanager
def duplicate(transport: asyncio.BaseTransport) -> Iterator[socket.socket]:
    """Yield a non-blocking duplicate of the transport's socket, closed afterwards.

    Raises:
        Overloaded: no file descriptor is left.
    """
    original = transport.get_extra_info("socket")
    try:
        fd = os.dup(original.fileno())
    except OSError as error:
        raise disk_error(error, "a connection") from error
    own = socket.socket(fileno=fd)
    own.settimeout(0)
    try:
        yield own
    finally:
        own.close()


async def receive(
    sock: socket.socket,
    total: int,
    feed: Callable[[memoryview], None],
    finish: Callable[[], None],
    *,
    pool: Executor,
    patience: Patience,
) -> None:
    """Pass the next `total` bytes of the socket to `feed`, in a thread, then call `finish`."""
    done = 0

    def work() -> bool:
        nonlocal done
        buffer = scratch()
        while done < total:
            try:
                n = sock.recv_into(buffer[: min(CHUNK_BYTES, total - done)])
            except BlockingIOError:
                with patience.waiting():
                    ready = _ready(sock, select.POLLIN)
                if not ready:
                    return False
                continue
            if not n:
                raise PeerGone(f"peer closed the connection after {done} of {total} bytes")
            patience.moved(n)
            feed(buffer[:n])
            done += n
        finish()
        return True

    await _alternate(work, sock, pool, patience, reading=True)


async def send(
    sock: socket.socket,
    step: Callable[[socket.socket], bool],
    *,
    pool: Executor,
    patience: Patience,
    on_wait: Callable[[], Awaitable[None]],
) -> None:
    """Call `step` in a thread until it returns True; it raises BlockingIOError when not ready.

    `step` tells `patience` what it moved. `on_wait` is called each time the event loop begins to
    wait for the socket.
    """
    poll = select.poll()
    poll.register(sock, select.POLLOUT)

    def work() -> bool:
        while True:
            try:
                if step(sock):
                    return True
            except BlockingIOError:
                with patience.waiting():
                    ready = poll.poll(_LINGER_MS)
                if not ready:
                    return False

    await _alternate(work, sock, pool, patience, reading=False, on_wait=on_wait)


def _ready(sock: socket.socket, event: int) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(_LINGER_MS))


async def _alternate(
    work: Callable[[], bool],
    sock: socket.socket,
    pool: Executor,
    patience: Patience,
    *,
    reading: bool,
    on_wait: Callable[[], Awaitable[None]] | None = None,
) -> None:
    loop = asyncio.get_running_loop()
    watch = loop.add_reader if reading else loop.add_writer
    unwatch = loop.remove_reader if reading else loop.remove_writer
    while True:
        job = loop.run_in_executor(pool, work)
        try:
            # When cancelled, the thread still uses the socket and the buffers: end it first.
            finished = await to_the_end(job, hurry=partial(_hang_up, sock))
        except OSError as error:
            if not _is_of_connection(error):  # a disk's, say: not the peer's fault
                raise
            raise PeerGone(f"connection failed: {error}") from error
        if finished:
            return
        if on_wait is not None:
            await on_wait()
        ready = loop.create_future()
        watch(sock.fileno(), _set, ready)
        try:
            with patience.waiting():
                async with asyncio.timeout(patience.seconds):
                    await ready
        finally:
            unwatch(sock.fileno())


def _is_of_connection(error: OSError) -> bool:
    return isinstance(error, ConnectionError | TimeoutError) or error.errno in _BROKEN


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


async def to_the_end(job: "asyncio.Future[T]", *, hurry: Callable[[], None] | None = None) -> T:
    """Return what a thread's work returns; when cancelled meanwhile, wait for its end all the same.

    What the thread uses must outlive it, however often this task is cancelled. Its own errors
    then do not count.

    Args:
        job: what `run_in_executor` returned.
        hurry: called when cancelled, to make the thread end soon.
    """
    cancelled: asyncio.CancelledError | None = None
    while not job.done():
        try:
            await asyncio.wait([job])
        except asyncio.CancelledError as error:
            cancelled = error
            if hurry is not None:
                hurry()
    if cancelled is not None:
        job.exception()  # nobody else asks for it
        raise cancelled
    return job.result()


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
