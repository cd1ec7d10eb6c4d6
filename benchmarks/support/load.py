"""The load generator: prebuilt frames over plain sockets, the same way to both servers."""

import dataclasses
import os
import socket
import struct
from collections.abc import Callable
from urllib.parse import urlsplit

import numpy as np

from crossdock.wire import frame
from crossdock.wire.frame import HEADER_BYTES, FrameHeader


class PrebuiltFrame:
    """A frame whose payload and index stay; only its number changes from push to push."""

    def __init__(
        self,
        *,
        payload_bytes: int,
        piece_bytes: int,
        partitions: int,
        partition: np.ndarray | None = None,
    ) -> None:
        pieces = payload_bytes // piece_bytes
        if partition is None:
            partition = np.sort(np.arange(pieces) % partitions)
        self.payload = os.urandom(payload_bytes)
        head, _ = frame.build(
            payload=self.payload,
            partition=partition,
            length=np.full(pieces, piece_bytes),
            rows=np.ones(pieces, np.uint32),
            partitions=partitions,
            map_id=0,
            attempt=0,
            seq=0,
            writer=os.urandom(16),
            count=1,
        )
        self._header = FrameHeader.decode(head)
        self._columns = head[HEADER_BYTES:]

    @property
    def size(self) -> int:
        return self._header.frame_bytes

    def numbered(self, map_id: int) -> bytes:
        """Return header and columns as the whole attempt 0 of a map."""
        return dataclasses.replace(self._header, map_id=map_id).encode() + self._columns


def push_to_worker(
    url: str, token: str, path: str, prebuilt: PrebuiltFrame, maps: range
) -> Callable[[], int]:
    """Return what pushes one frame per map over one connection."""
    where = urlsplit(url)
    starts = [prebuilt.numbered(map_id) for map_id in maps]

    def push() -> int:
        head = (
            f"PUT {path} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {prebuilt.size}\r\nExpect: 100-continue\r\n\r\n"
        ).encode()
        with socket.create_connection((where.hostname, where.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in starts:
                sock.sendall(head)
                if not sock.recv(4096).startswith(b"HTTP/1.1 100"):
                    raise RuntimeError("refused")
                sock.sendall(start)
                sock.sendall(prebuilt.payload)
                answer = sock.recv(4096)
                if not answer.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(answer.decode())
        return len(maps) * prebuilt.size

    return push


def push_to_bare(port: int, prebuilt: PrebuiltFrame, maps: range) -> Callable[[], int]:
    """Return what pushes the same bytes to the bare server."""
    starts = [prebuilt.numbered(map_id) for map_id in maps]

    def push() -> int:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in starts:
                sock.sendall(b"P" + struct.pack("<Q", prebuilt.size))
                sock.sendall(start)
                sock.sendall(prebuilt.payload)
                sock.recv(1)
        return len(maps) * prebuilt.size

    return push


def read_from_bare(port: int, total: int) -> Callable[[], int]:
    """Return what reads `total` bytes from the bare server and drops them."""

    def read() -> int:
        buffer = bytearray(1024 * 1024)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"R" + struct.pack("<Q", total))
            left = total
            while left:
                left -= sock.recv_into(buffer, min(left, len(buffer)))
        return total

    return read


def clear_bare(port: int) -> None:
    """Empty the bare server's file."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"C")
        sock.recv(1)
