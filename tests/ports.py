"""Ports for processes that are told of each other before they run."""

import random
import socket
from contextlib import ExitStack, suppress
from pathlib import Path


def unused_ports(count: int) -> list[int]:
    """Return ports that nobody has now, and that no connection gets for its own end."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = random.randrange(10_000, first)
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
        return found
