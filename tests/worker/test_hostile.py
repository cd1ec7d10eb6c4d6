"""Hostile bytes against one real worker: always a clear answer, never a trace of them."""

import json
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Self

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from crossdock.errors import FrameError
from crossdock.wire import crc, tables
from crossdock.wire.frame import HEADER_BYTES, Columns, FrameHeader
from harness import WorkerProcess
from raw import WRITER, Index, Line, Peer, Reply, Target, join, make_frame, split

MIB = 2**20
_MEMORY_BYTES = 96 * MIB
_PARTITIONS = 16

u32 = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31, 2**32 - 1]))
u64 = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 2**32, 2**63, 2**64 - 1]))


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    """A worker with small limits, which must live through everything and stay small."""
    options = {"max_frame_bytes": 8 * MIB, "max_inflight_bytes": 32 * MIB}
    with WorkerProcess(options=options) as process:
        process.start()
        pid, before = process.pid, process.anonymous_bytes
        yield process
        assert process.running
        assert process.pid == pid
        assert process.anonymous_bytes - before < _MEMORY_BYTES
        problems = [x for x in process.log_text().splitlines() if "Traceback" in x or "failed" in x]
        assert not problems


@pytest.fixture(scope="module")
def victim(worker: WorkerProcess) -> Target:
    """A shuffle with one sound frame, beside which nothing may appear."""
    target = Target(Peer(worker.url, ""), "victim", partitions=_PARTITIONS)
    assert target.register().status == 201
    assert target.push(target.frame([(3, b"sound" * 100, 7)], map_id=77)).status == 200
    return target


def check_untouched(victim: Target) -> None:
    frames = victim.frames()
    assert frames["map"].tolist() == [77]
    (shuffle,) = victim.peer.ask("GET", victim.job_path).json()["shuffles"]
    assert shuffle["frames"] == shuffle["pieces"] == 1
    assert shuffle["disk_bytes"] < 2000


def check_refused(reply: Reply, *codes: str) -> None:
    assert 400 <= reply.status < 500, reply
    assert set(reply.json()) >= {"code", "message", "hint"}
    assert not codes or reply.code in codes


@pytest.fixture(scope="module")
def line(worker: WorkerProcess) -> Iterator["Steady"]:
    with Steady(worker.url) as found:
        yield found


class Steady:
    """A connection that is opened again when the worker has closed it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._line: Line | None = None

    def ask(self, method: str, target: str, body: bytes | None, *, expect: bool = False) -> Reply:
        for attempt in (0, 1):
            fresh = self._line is None
            line = self._line = self._line or Line(self._url, "")
            try:
                reply = line.ask(method, target, body, expect=expect)
            except ConnectionError:
                self.close()
                if fresh or attempt:
                    raise
                continue
            if reply.closes:
                self.close()
            return reply
        raise AssertionError

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- frames --------------------------------------------------------------------------------


@st.composite
def sound_frames(draw: st.DrawFn) -> bytes:
    """Sound frames of maps below 77."""
    partitions = sorted(draw(st.lists(st.integers(0, _PARTITIONS - 1), max_size=6)))
    pieces = [(p, draw(st.binary(max_size=200)), draw(u32)) for p in partitions]
    return make_frame(
        pieces,
        partitions=_PARTITIONS,
        map_id=draw(st.integers(0, 76)),
        attempt=draw(u64),
        seq=(seq := draw(st.integers(0, 3))),
        count=draw(st.sampled_from([0, seq + 1])),
    )


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    """Frames cut, stretched, with bits flipped or parts exchanged."""
    data = bytearray(draw(sound_frames()))
    whole = bytes(data)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["flip", "cut", "grow", "splice", "zero", "swap"]))
        at = draw(st.integers(0, max(0, len(data) - 1)))
        n = draw(st.integers(1, 40))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at : at + n]
        elif kind == "grow":
            data[at:at] = draw(st.binary(min_size=n, max_size=n))
        elif kind == "splice":
            data[at : at + n] = draw(st.binary(min_size=n, max_size=n))
        elif kind == "zero":
            data[at : at + n] = bytes(len(data[at : at + n]))
        elif data:
            data = data[at:] + data[:at]
    return bytes(data) if bytes(data) != whole else whole + b"\0"


@given(data=mutated_frames(), expect=st.booleans())
@settings(max_examples=300)
def test_mutated_frames(victim: Target, line: Steady, data: bytes, *, expect: bool) -> None:
    reply = line.ask("PUT", f"{victim.path}/frames", data, expect=expect)
    check_refused(reply, "frame")


@given(data=st.binary(max_size=5000), expect=st.booleans())
@settings(max_examples=100)
def test_random_bytes(victim: Target, line: Steady, data: bytes, *, expect: bool) -> None:
    check_refused(line.ask("PUT", f"{victim.path}/frames", data, expect=expect), "frame")


_HEADERS = st.builds(
    FrameHeader,
    generation=st.one_of(st.just(0), u32), map_id=u32, attempt=u64, seq=u32, count=u32, pieces=u32,
    partitions=st.one_of(st.just(_PARTITIONS), u32), epoch=st.one_of(st.just(0), u64),
    payload_bytes=u64, writer=st.binary(min_size=16, max_size=16), columns_crc=u32, payload_crc=u32,
)  # fmt: skip


@given(header=_HEADERS, body=st.binary(max_size=400), expect=st.booleans())
@settings(max_examples=200)
def test_sound_headers_that_lie(
    victim: Target, line: Steady, header: FrameHeader, body: bytes, *, expect: bool
) -> None:
    data = header.encode() + body
    assume(not is_sound(data))
    reply = line.ask("PUT", f"{victim.path}/frames", data, expect=expect)
    check_refused(reply, "frame", "protocol", "shuffle_mismatch", "stale_epoch")


@st.composite
def lying_columns(draw: st.DrawFn) -> bytes:
    """Frames whose checksums of header and columns are sound, and whose columns lie."""
    header, columns, payload = split(draw(sound_frames()))
    n = header.pieces
    change = {
        name: np.array(draw(st.lists(u32, min_size=n, max_size=n)), np.uint32)
        for name in draw(st.sets(st.sampled_from(["partition", "length", "crc"]), min_size=1))
    }
    wrong = draw(
        st.fixed_dictionaries({}, optional={"payload_crc": u32, "payload_bytes": u64, "seq": u32})
    )
    return join(header, replace(columns, **change), payload, **wrong)


@given(data=lying_columns(), expect=st.booleans())
@settings(max_examples=200)
def test_sound_columns_that_lie(victim: Target, line: Steady, data: bytes, *, expect: bool) -> None:
    assume(not is_sound(data))
    reply = line.ask("PUT", f"{victim.path}/frames", data, expect=expect)
    check_refused(reply, "frame")


def is_sound(data: bytes) -> bool:
    """Whether a frame is one after all (nothing was changed, or for the same)."""
    try:
        header = FrameHeader.decode(data)
        Columns.decode(header, data[HEADER_BYTES : HEADER_BYTES + header.columns_bytes])
    except FrameError:
        return False
    payload = data[HEADER_BYTES + header.columns_bytes :]
    return len(data) == header.frame_bytes and crc.extend(0, payload) == header.payload_crc


@pytest.mark.parametrize("expect", [False, True], ids=["plain", "expect"])
def test_many_small_pieces_take_bounded_memory(
    worker: WorkerProcess, victim: Target, *, expect: bool
) -> None:
    """As many pieces as fit into the largest frame, all of nothing, with a checksum that lies."""
    n = (8 * MIB - HEADER_BYTES) // 16
    none = np.zeros(n, np.uint32)
    attempt = int(expect)
    for last_crc in (1, 0):
        checksums = none.copy()
        checksums[-1] = last_crc
        header = FrameHeader(
            generation=0, map_id=1, attempt=attempt, seq=0, count=0, pieces=n, epoch=0,
            partitions=_PARTITIONS, payload_bytes=0, writer=WRITER, columns_crc=0, payload_crc=0,
        )  # fmt: skip
        data = join(header, Index(none, none, none, checksums), b"")
        reply = victim.push(data, expect=expect)
        if last_crc:
            check_refused(reply, "frame")
        else:
            assert reply.status == 200, reply
            path = f"{victim.path}/attempts/1/{attempt}"
            assert victim.peer.ask("DELETE", path).json()["frames"] == 1
    assert worker.running


def test_refused_frames_left_nothing(victim: Target) -> None:
    check_untouched(victim)


# -- reads and JSON ------------------------------------------------------------------------

_texts = st.one_of(
    st.text(alphabet="0123456789-.,x%&=+_ eE", max_size=24),
    st.builds("{}-{}".format, st.integers(0, 20), st.integers(0, 2**33)),
    st.builds(lambda *n: ".".join(map(str, n)), *[st.integers(0, 2**66)] * 5),
    st.integers(-(2**70), 2**70).map(str),
)


@given(
    query=st.dictionaries(
        st.sampled_from(["partitions", "maps", "cursor", "max_bytes", "skip", "partial"]),
        _texts, max_size=4,
    ),
    body=st.one_of(
        st.binary(max_size=60),
        st.lists(st.tuples(st.sampled_from([0, 77, 78]), st.sampled_from([0, 1])), max_size=4).map(
            lambda pairs: tables.encode(tables.attempts(pairs))
        ),
    ),
)  # fmt: skip
@settings(max_examples=200)
@example(query={"cursor": "3.77.0.0.99999999999999999999"}, body=b"")
@example(query={"skip": "501"}, body=tables.encode(tables.attempts([(77, 0)])))
def test_hostile_reads(victim: Target, line: Steady, query: dict[str, str], body: bytes) -> None:
    text = "&".join(f"{k}={v.replace(' ', '%20').replace('&', '')}" for k, v in query.items())
    reply = line.ask("POST", f"{victim.path}/blocks?{text}", body)
    assert reply.status in {200, 400, 409}, reply
    if reply.status == 200:
        assert reply.body.startswith(b"XDB1")
    else:
        check_refused(reply)


_json = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
        st.sampled_from(["cluster", "runner"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                ["owner", "epoch", "lease_seconds", "grace_seconds", "homes", "quota_bytes",
                 "partitions", "winners", "maps", "0", "x"]
            ),
            inner, max_size=5,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@given(value=_json)
@settings(max_examples=200)
@example(value={"owner": "cluster", "epoch": 2**64})
@example(value={"owner": "cluster", "homes": [[]]})
@example(value={"owner": "cluster", "lease_seconds": float("nan")})
def test_hostile_records(victim: Target, line: Steady, value: object) -> None:
    reply = line.ask("PUT", "/v1/jobs/hostile", json.dumps(value).encode())
    if reply.status in {200, 201}:
        assert isinstance(value, dict)
        assert reply.json()["record"]["owner"] == value["owner"]
    else:
        assert 400 <= reply.status < 500, reply
        check_refused(reply, "protocol", "stale_epoch")


@given(value=_json)
@settings(max_examples=150)
@example(value={"partitions": 16, "winners": [[77, 0], [77, 0]]})
@example(value={"partitions": 16, "winners": {"77": 2**64}})
@example(value={"partitions": 2**32 - 1, "winners": []})
@example(value={"partitions": 16, "winners": [[]]})
def test_hostile_wishes_for_views(victim: Target, line: Steady, value: object) -> None:
    if isinstance(value, dict) and value.get("maps") is not None and not value.get("winners"):
        value = {k: v for k, v in value.items() if k != "maps"}  # the victim's job has no homes
    reply = line.ask("POST", f"{victim.path}/views", json.dumps(value).encode())
    if reply.status == 200:
        assert set(reply.json()) >= {"id", "missing"}
    else:
        check_refused(reply)


# -- HTTP ----------------------------------------------------------------------------------

HEADS = [
    b"\r\n\r\n", b"GET\r\n\r\n", b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00",
    b"GET /healthz HTTP/1.1\r\n" + b"A: " + b"b" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    b"POST /v1/jobs/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ",
    b"PUT /v1/jobs/a HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS, ids=lambda h: repr(h[:40]))
def test_hostile_heads(worker: WorkerProcess, head: bytes) -> None:
    with Line(worker.url, "", timeout=10) as line, suppress(ConnectionError):
        line.send(head)
        line.socket.shutdown(1)
        while data := line.socket.recv(65536):
            assert b" 200 " not in data[:20]
    assert worker.request("GET", "/healthz").status == 200


def test_a_large_body_where_none_is_wanted(worker: WorkerProcess, victim: Target) -> None:
    """Bodies of other calls are bounded too."""
    before = worker.anonymous_bytes
    for path in (f"{victim.path}/frames/list", f"{victim.path}/views", f"{victim.path}/blocks"):
        with Line(worker.url, "", timeout=20) as line, suppress(ConnectionError):
            line.send(line.head("POST", path, length=2**33))
            for _ in range(128):
                line.send(bytes(MIB))
            reply = line.reply()
            assert reply.status == 413
    assert worker.anonymous_bytes - before < _MEMORY_BYTES + 64 * MIB


def test_the_victim_is_as_it_was(victim: Target) -> None:
    check_untouched(victim)
    keys = victim.keys(victim.frames())
    path, _ = victim.register_places(keys)
    reply = victim.peer.ask("GET", f"{path}/blocks")
    assert reply.body.endswith(b"sound" * 100)
    assert struct.unpack_from("<4sI", reply.body)[0] == b"XDB1"
