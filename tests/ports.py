"""Ports for processes that are told of each other before they run, or start again on theirs."""

import os
import random
import re
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

_FIRST: Final = 10_000
_SHARES: Final = 16
_LEAST: Final = 256
"""Ports of a share."""
_LINUX: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ELSEWHERE: Final = 49_152
"""Where those of connections begin by RFC 6335."""
_GIVEN: Final[set[int]] = set()


def unused_ports(count: int, *, adjacent: bool = False) -> list[int]:
    """Return ports that nobody has now, and that no connection gets for its own end.

    Nobody gets them twice, and test processes that run at the same time choose from shares of
    their own: between the choice and the use nobody else takes them.

    Args:
        count: how many.
        adjacent: whether they are to follow each other.
    """
    while True:
        first = random.choice(_share())
        found = [first + i if adjacent else random.choice(_share()) for i in range(count)]
        if len(set(found)) == count and not _GIVEN & set(found) and _free(found):
            _GIVEN.update(found)
            return found


def _share() -> range:
    """Return the ports of this test process, all below those that connections get."""
    end = int(_LINUX.read_text().split()[0]) if _LINUX.exists() else _ELSEWHERE
    if end < _FIRST + _SHARES * _LEAST:  # connections may get all: it is chance then
        end = 2**16
    number = re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", ""))
    size = (end - _FIRST) // _SHARES
    first = _FIRST + int(number or _SHARES - 1) % _SHARES * size
    return range(first, first + size)


def _free(ports: list[int]) -> bool:
    with ExitStack() as stack, suppress(OSError):
        for port in ports:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        return True
    return False
