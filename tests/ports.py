"""Ports for processes that are told of each other before they run."""

import itertools
import os
import random
import socket
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Final

_FIRST: Final = 10_000


def unused_ports(count: int) -> list[int]:
    """Return ports that nobody has now, and that no connection gets for its own end.

    They are bound some time later. Until then no other process of these tests gets one of them:
    each has a part of the ports, and goes round in it.
    """
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = next(_round())
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
        return found


@cache
def _round() -> "itertools.cycle[int]":
    """Return this process's part, from a random one on: other tests may run on the machine."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    width = (end - _FIRST) // processes
    part = range(_FIRST + number * width, _FIRST + (number + 1) * width)
    begin = random.randrange(width)
    return itertools.cycle([*part[begin:], *part[:begin]])
