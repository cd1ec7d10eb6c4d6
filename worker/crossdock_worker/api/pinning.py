"""Reads that keep what they read in its place."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from crossdock_worker.front import front_of
from crossdock_worker.shuffle_log import ShuffleLog


@dataclass(slots=True)
class Read:
    """One read that is being answered."""

    from_file: bool = False
    """Whether the kernel sends from the log: it may go on when the last byte has left for it."""


@contextmanager
def pinned(request: web.Request, shuffle: ShuffleLog) -> Iterator[Read]:
    """Let no space of a shuffle be used again until the peer has the answer.

    Look up what is read within the block: what was found before may be gone.
    """
    pin = shuffle.space.pins.take()
    shuffle.last_read = time.monotonic()
    read = Read()
    try:
        yield read
    finally:
        front = front_of(request)
        if read.from_file and front is not None:
            front.when_taken(pin.release)
        else:
            pin.release()
