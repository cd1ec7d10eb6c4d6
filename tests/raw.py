"""Speaks the protocol byte by byte: what docs/protocol.md says, and nothing of the client.

Only `crossdock.wire` is used, to build frames and to parse answers.
"""

import hashlib
import json
import os
import socket
import ssl
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from crossdock.wire import crc, frame, tables
from crossdock.wire.blocks import HEADER_BYTES, BatchHeader, PieceColumns
from crossdock.wire.frame import FrameHeader

Piece = tuple[int, bytes, int]
"""(partition, data, rows)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    continued: bool
    """Whether `100 Continue` came before it."""

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["code"])

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class Line:
    """One connection, on which requests go out and answers come in."""

    def __init__(self, url: str, token: str, *, timeout: float = 20.0) -> None:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        self.socket = socket.create_connection((host, port), timeout)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=os.environ.get("CROSSDOCK_CA_FILE"))
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        self._host = parts.netloc
        self._token = token
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def head(
        self,
        method: str,
        target: str,
        *,
        length: int | None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the head of a request."""
        lines = {"Host": self._host}
        if self._token:
            lines["Authorization"] = f"Bearer {self._token}"
        if length is not None:
            lines["Content-Length"] = str(length)
        lines |= headers or {}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("latin-1")

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        expect: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request, with `expect` only after `100 Continue`; return its answer."""
        lines = {**(headers or {}), **({"Expect": "100-continue"} if expect else {})}
        sized = body is not None or method in {"PUT", "POST"}
        length = len(body or b"") if sized else None
        head = self.head(method, target, length=length, headers=lines)
        if not expect:
            self.send(head + (body or b""))
            return self.reply()
        self.send(head)
        first = self.reply()
        if first.status != 100:
            return first
        self.send(body or b"")
        return replace(self.reply(), continued=True)

    def reply(self) -> Reply:
        """Read one answer; an interim `100 Continue` is one of its own."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = 0 if status in {100, 204} else int(headers["content-length"])
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Reply(status, headers, body, continued=False)

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError(f"closed after {self._buffer[:200]!r}")
        self._buffer += data

    def is_closed(self) -> bool:
        """Wait for the other side to close; False when it sends something instead."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Peer:
    """The worker under test."""

    url: str
    token: str

    def line(self, *, token: str | None = None, timeout: float = 20.0) -> Line:
        return Line(self.url, self.token if token is None else token, timeout=timeout)

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        expect: bool = False,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> Reply:
        """Send one request on a connection of its own."""
        with self.line(token=token) as line:
            return line.ask(method, target, body, expect=expect, headers=headers)

    def ask_json(self, method: str, target: str, value: object) -> Reply:
        return self.ask(method, target, json.dumps(value).encode())


@dataclass(frozen=True, slots=True)
class Target:
    """A shuffle of a registered job, on the worker under test."""

    peer: Peer
    job: str
    name: str = "words"
    generation: int = 0
    partitions: int = 8

    @property
    def job_path(self) -> str:
        return f"/v1/jobs/{self.job}"

    @property
    def path(self) -> str:
        return f"{self.job_path}/shuffles/{self.name}/{self.generation}"

    def register(self, **record: object) -> Reply:
        return self.peer.ask_json("PUT", self.job_path, {"owner": "cluster", **record})

    def push(self, data: bytes, *, expect: bool = True) -> Reply:
        return self.peer.ask("PUT", f"{self.path}/frames", data, expect=expect)

    def frame(self, pieces: Sequence[Piece] = ((1, b"abc", 1),), **fields: Any) -> bytes:
        """Return a sound frame for this shuffle; map 0, attempt 0, seq 0, last of one."""
        return make_frame(
            pieces, **{"partitions": self.partitions, "generation": self.generation} | fields
        )

    def frames(self, attempts: Iterable[tuple[int, int]] | None = None) -> np.ndarray:
        """List the frames; none for a shuffle that has none."""
        body = None if attempts is None else tables.encode(tables.attempts(attempts))
        reply = self.peer.ask("POST", f"{self.path}/frames/list", body)
        if reply.status == 404 and reply.code == "shuffle_unknown":
            return np.empty(0, tables.FRAME)
        assert reply.status == 200, reply
        return tables.decode(tables.FRAME, reply.body, what="frames")

    def disk_bytes(self) -> int:
        return int(self.peer.ask("GET", self.job_path).json()["disk_bytes"])

    def keys(self, frames: np.ndarray) -> np.ndarray:
        keys = tables.frame_keys(frames)
        return keys[tables.sort_order(keys)]

    def register_places(self, keys: np.ndarray) -> tuple[str, Reply]:
        """Register places; return their path and the answer."""
        path = f"{self.path}/places/{self.places_digest(keys)}"
        return path, self.peer.ask("PUT", path, tables.encode(keys))

    def _domain(self, domain: bytes) -> bytes:
        key = f"{self.job}\0{self.name}\0".encode() + struct.pack("<I", self.generation)
        return domain + b"\0" + key

    def places_digest(self, keys: np.ndarray) -> str:
        return hashlib.sha256(self._domain(b"crossdock places 1") + keys.tobytes()).hexdigest()

    def view_id(self, frames: np.ndarray) -> str:
        """Return the id of the view of these frames, as docs/protocol.md defines it."""
        digest = hashlib.sha256(self._domain(b"crossdock view 1"))
        digest.update(struct.pack("<I", self.partitions))
        for row in sorted(frames, key=lambda r: (r["map"], r["attempt"], r["seq"])):
            digest.update(
                struct.pack(
                    "<IQIIIQII",
                    *(int(row[f]) for f in ("map", "attempt", "seq", "count", "pieces")),
                    *(int(row[f]) for f in ("payload_bytes", "columns_crc", "payload_crc")),
                )
            )
        return digest.hexdigest()


WRITER = b"writer-of-tests!"


def make_frame(
    pieces: Sequence[Piece],
    *,
    partitions: int,
    map_id: int = 0,
    attempt: int = 0,
    seq: int = 0,
    count: int | None = None,
    writer: bytes = WRITER,
    generation: int = 0,
    epoch: int = 0,
) -> bytes:
    """Return a sound frame; `count` None makes it the last of its attempt."""
    parts = frame.build(
        payload=b"".join(p[1] for p in pieces),
        partition=np.array([p[0] for p in pieces], np.uint32),
        length=np.array([len(p[1]) for p in pieces], np.uint32),
        rows=np.array([p[2] for p in pieces], np.uint32),
        partitions=partitions, map_id=map_id, attempt=attempt, seq=seq,
        count=seq + 1 if count is None else count,
        writer=writer, generation=generation, epoch=epoch,
    )  # fmt: skip
    return b"".join(bytes(p) for p in parts)


@dataclass(frozen=True, slots=True)
class Index:
    """The columns of a frame, right or wrong."""

    partition: np.ndarray
    length: np.ndarray
    rows: np.ndarray
    crc: np.ndarray

    def encode(self) -> bytes:
        columns = (self.partition, self.length, self.rows, self.crc)
        return b"".join(c.astype("<u4").tobytes() for c in columns)


def split(data: bytes) -> tuple[FrameHeader, Index, bytes]:
    """Take a sound frame apart, to put it together wrongly."""
    header = FrameHeader.decode(data)
    end = frame.HEADER_BYTES + 16 * header.pieces
    table = np.frombuffer(data[frame.HEADER_BYTES : end], "<u4").reshape(4, header.pieces)
    return header, Index(*table), data[end:]


def join(header: FrameHeader, index: Index, payload: bytes, **wrong: Any) -> bytes:
    """Put a frame together with sound checksums of header and columns, whatever they say."""
    body = index.encode()
    header = replace(header, **{"columns_crc": crc.extend(0, body)} | wrong)
    return header.encode() + body + payload


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of a read, taken apart."""

    end: bool
    skip: int
    columns: PieceColumns
    payload: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        header = BatchHeader.decode(data[:HEADER_BYTES])
        at = HEADER_BYTES + 36 * header.pieces
        body, payload = data[HEADER_BYTES:at], data[at:]
        assert crc.extend(0, body) == header.columns_crc
        columns = PieceColumns.decode(header.pieces, body)
        assert int(columns.length.sum(dtype=np.int64)) == header.payload_bytes
        assert len(payload) == header.payload_bytes - header.skip
        if not header.skip:
            assert crc.of_pieces(payload, columns.length).tolist() == columns.crc.tolist()
        return cls(header.end, header.skip, columns, payload)

    def pieces(self) -> list[tuple[tuple[int, ...], bytes]]:
        """Return ((partition, map, attempt, seq, position), data) in the order of reads."""
        c = self.columns
        columns = (c.partition, c.map_id, c.attempt, c.seq, c.position)
        places = list(zip(*(a.tolist() for a in columns), strict=True))
        assert [p[1:] for p in places] == sorted(p[1:] for p in places)  # by frame
        ends = c.ends.tolist()
        data = [self.payload[e - n : e] for e, n in zip(ends, c.length.tolist(), strict=True)]
        return sorted(zip(places, data, strict=True))


def cursor_behind(place: tuple[int, ...]) -> str:
    """Return the cursor of what comes after a piece."""
    return ".".join(map(str, (*place[:4], place[4] + 1)))
