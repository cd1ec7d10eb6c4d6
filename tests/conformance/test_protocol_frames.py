"""Frames: acks, duplicates, conflicts, completeness, aborts, releases; and every damaged frame."""

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from test_protocol_jobs import check_error

from crossdock.wire import crc
from crossdock.wire.frame import HEADER_BYTES
from raw import Reply, Target, join, make_frame, split

both_ways = pytest.mark.parametrize("expect", [False, True], ids=["plain", "expect"])


def check_ack(reply: Reply, *, duplicate: bool = False) -> None:
    assert reply.status == 200, reply
    answer = reply.json()
    assert answer["duplicate"] is duplicate
    assert answer["worker"]
    assert answer["incarnation"] >= 1


@both_ways
def test_a_frame_is_acked_and_listed(target: Target, *, expect: bool) -> None:
    pieces = [(0, b"", 0), (1, b"abc", 3), (1, b"de", 2), (7, b"f" * 1000, 1)]
    data = target.frame(pieces, map_id=2**32 - 1, attempt=2**64 - 1)
    check_ack(target.push(data, expect=expect))
    (row,) = target.frames()
    header = split(data)[0]
    assert (row["map"], row["attempt"], row["seq"], row["count"]) == (2**32 - 1, 2**64 - 1, 0, 1)
    assert (row["pieces"], row["payload_bytes"], row["rows"]) == (4, 1005, 6)
    assert (row["columns_crc"], row["payload_crc"]) == (header.columns_crc, header.payload_crc)
    assert row["writer"].tobytes() == header.writer


@both_ways
def test_an_attempt_without_data_is_one_empty_frame(target: Target, *, expect: bool) -> None:
    check_ack(target.push(target.frame([]), expect=expect))
    check_ack(target.push(target.frame([]), expect=expect), duplicate=True)
    (row,) = target.frames()
    assert (row["count"], row["pieces"], row["payload_bytes"]) == (1, 0, 0)


@both_ways
def test_the_same_frame_again_is_a_duplicate(target: Target, *, expect: bool) -> None:
    data = target.frame([(1, b"x" * 100_000, 1)])
    check_ack(target.push(data, expect=expect))
    before = target.disk_bytes()
    for again in (expect, not expect):
        check_ack(target.push(data, expect=again), duplicate=True)
    assert len(target.frames()) == 1
    assert target.disk_bytes() == before


@both_ways
@pytest.mark.parametrize(
    "change",
    [
        {"writer": b"another writer!!"},
        {"pieces": [(1, b"abd", 1)]},
        {"pieces": [(2, b"abc", 1)]},
        {"pieces": [(1, b"abc", 2)]},
        {"count": 0},
        {"pieces": []},
    ],
    ids=str,
)
def test_the_same_number_with_other_contents_is_a_conflict(
    target: Target, change: dict[str, object], *, expect: bool
) -> None:
    check_ack(target.push(target.frame()))
    before, disk = target.frames(), target.disk_bytes()
    other = target.frame(**{"pieces": [(1, b"abc", 1)], **change})
    check_error(target.push(other, expect=expect), 409, "attempt_conflict")
    assert target.frames().tobytes() == before.tobytes()
    assert target.disk_bytes() == disk


def test_frames_of_one_attempt_come_in_any_order(target: Target) -> None:
    for seq in (2, 0, 1):
        data = target.frame([(seq, bytes([seq]), 1)], seq=seq, count=3 if seq == 2 else 0)
        check_ack(target.push(data))
    assert sorted(target.frames()["seq"].tolist()) == [0, 1, 2]
    assert sorted(target.frames()["count"].tolist()) == [0, 0, 3]


def test_listing_chooses_attempts(target: Target) -> None:
    for map_id, attempt in ((0, 0), (0, 1), (1, 0), (1, 2**63)):
        check_ack(target.push(target.frame(map_id=map_id, attempt=attempt)))
    assert len(target.frames()) == 4
    found = target.frames([(0, 1), (1, 2**63), (9, 9)])
    assert sorted(zip(found["map"].tolist(), found["attempt"].tolist(), strict=True)) == [
        (0, 1),
        (1, 2**63),
    ]
    reply = target.peer.ask("POST", f"{target.path}/frames/list", b"12345")
    check_error(reply, 400, "protocol")
    reply = target.peer.ask("POST", f"{target.path}/frames/list")
    assert reply.headers["crossdock-partitions"] == "8"
    assert reply.headers["crossdock-worker"]


@both_ways
def test_wrong_generation_epoch_and_partitions_are_refused(target: Target, *, expect: bool) -> None:
    assert target.register(epoch=5).status == 200
    wrong = target.frame(epoch=5, generation=1)
    check_error(target.push(wrong, expect=expect), 400, "protocol")
    check_error(target.push(target.frame(epoch=4), expect=expect), 409, "stale_epoch")
    assert not len(target.frames())
    check_ack(target.push(target.frame(epoch=5), expect=expect))
    wrong = target.frame(epoch=5, map_id=1, partitions=9)
    check_error(target.push(wrong, expect=expect), 409, "shuffle_mismatch")
    assert len(target.frames()) == 1


@both_ways
def test_an_aborted_attempt_is_gone_and_stays_out(target: Target, *, expect: bool) -> None:
    check_ack(target.push(target.frame(map_id=9)))
    before = target.disk_bytes()
    for seq in range(3):
        data = target.frame([(1, b"x" * 50_000, 1)], seq=seq, count=0, attempt=7)
        check_ack(target.push(data, expect=expect))
    path = f"{target.path}/attempts/0/7"
    assert target.disk_bytes() > before + 150_000
    reply = target.peer.ask("DELETE", path)
    assert (reply.status, reply.json()["frames"]) == (200, 3)
    assert target.disk_bytes() < before + 1000
    reply = target.peer.ask("DELETE", path)
    assert (reply.status, reply.json()["frames"]) == (200, 0)
    late = target.frame([(1, b"x" * 50_000, 1)], seq=3, attempt=7)
    check_error(target.push(late, expect=expect), 409, "attempt_conflict")
    check_ack(target.push(target.frame(attempt=8), expect=expect))
    assert target.frames()["attempt"].tolist() == [0, 8]


def test_an_abort_of_what_never_came_changes_nothing(target: Target) -> None:
    check_ack(target.push(target.frame(attempt=3)))
    before = target.disk_bytes()
    for query in ("", f"?writer={bytes(16).hex()}"):
        reply = target.peer.ask("DELETE", f"{target.path}/attempts/1/7{query}")
        assert (reply.status, reply.json()["frames"]) == (200, 0)
    assert target.disk_bytes() == before
    check_ack(target.push(target.frame(map_id=1, attempt=7)))


def test_a_committed_attempt_cannot_be_aborted(target: Target) -> None:
    check_ack(target.push(target.frame(attempt=3)))
    reply = target.peer.ask("DELETE", f"{target.path}/attempts/0/3")
    check_error(reply, 409, "attempt_conflict")
    assert len(target.frames()) == 1
    for path in ("-1/0", "4294967296/0", "0/18446744073709551616", "x/0", "0/%2e"):
        reply = target.peer.ask("DELETE", f"{target.path}/attempts/{path}")
        assert 400 <= reply.status < 500


def test_a_released_generation_is_gone_and_the_next_one_works(target: Target) -> None:
    peer = target.peer
    check_ack(target.push(target.frame([(1, b"x" * 50_000, 1)])))
    path, _ = target.register_places(target.keys(target.frames()))
    for _ in range(2):  # idempotent
        assert peer.ask("DELETE", target.path).status == 200
    assert target.disk_bytes() == 0
    check_error(target.push(target.frame()), 410, "shuffle_released")
    check_error(target.push(target.frame(), expect=False), 410, "shuffle_released")
    for method, url in (
        ("POST", f"{target.path}/frames/list"),
        ("GET", f"{path}/blocks"),
        ("GET", f"{path}/sizes?partitions=0-1"),
        ("POST", f"{target.path}/blocks"),
        ("GET", f"{target.path}/seal"),
        ("PUT", f"{target.path}/seal"),
    ):
        check_error(peer.ask(method, url), 410, "shuffle_released")
    following = replace(target, generation=1)
    check_ack(following.push(following.frame()))
    assert len(following.frames()) == 1
    assert peer.ask("DELETE", target.path).status == 200  # an old release again
    assert len(following.frames()) == 1
    beyond = replace(target, generation=5)
    check_ack(beyond.push(beyond.frame()))
    assert peer.ask("DELETE", replace(target, generation=3).path).status == 200
    check_error(following.push(following.frame(map_id=1)), 410, "shuffle_released")
    assert len(beyond.frames()) == 1


def test_shuffles_of_one_job_are_apart(target: Target) -> None:
    other = replace(target, name="other", partitions=3)
    check_ack(target.push(target.frame()))
    check_ack(other.push(other.frame()))
    assert target.peer.ask("DELETE", target.path).status == 200
    assert len(other.frames()) == 1


# -- damaged frames ------------------------------------------------------------------------

_PIECES = [(1, b"abc" * 100, 3), (2, b"de" * 1000, 2), (5, b"f" * 5000, 1)]


def _sound() -> bytes:
    return make_frame(_PIECES, partitions=8)


def _flip(at: int) -> bytes:
    data = bytearray(_sound())
    data[at] ^= 0x40
    return bytes(data)


def _columns(**change: np.ndarray) -> bytes:
    header, columns, payload = split(_sound())
    return join(header, replace(columns, **change), payload)


def _header(**change: int) -> bytes:
    header, columns, payload = split(_sound())
    return join(header, columns, payload, **change)


def _raw_header(offset: int, value: bytes) -> bytes:
    """Return a frame whose header has other bytes at `offset`, under a sound checksum."""
    data = bytearray(_sound())
    data[offset : offset + len(value)] = value
    data[HEADER_BYTES - 4 : HEADER_BYTES] = struct.pack(
        "<I", crc.extend(0, data[: HEADER_BYTES - 4])
    )
    return bytes(data)


def _array(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


def _wrong_piece_crc() -> bytes:
    columns = split(_sound())[1]
    return _columns(crc=columns.crc ^ _array(1, 0, 0))


def _swapped_piece_crcs() -> bytes:
    columns = split(_sound())[1]
    return _columns(crc=columns.crc[[1, 0, 2]])


_COLUMNS_END = HEADER_BYTES + 3 * 16

DAMAGED: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "one byte": lambda: b"X",
    "no frame at all": lambda: b"<html>" * 100,
    "bad magic": lambda: _raw_header(0, b"XDF2"),
    "header bit flipped": lambda: _flip(20),
    "header checksum flipped": lambda: _flip(HEADER_BYTES - 1),
    "unknown flag": lambda: _raw_header(4, struct.pack("<I", 3)),
    "reserved bits": lambda: _raw_header(HEADER_BYTES - 8, b"\1\0\0\0"),
    "count without last": lambda: _raw_header(4, struct.pack("<I", 0)),
    "last without count": lambda: _raw_header(20, struct.pack("<I", 0)),
    "count is not seq + 1": lambda: _header(count=2),
    "no partitions": lambda: _header(partitions=0),
    "columns bit flipped": lambda: _flip(HEADER_BYTES + 3),
    "columns checksum wrong": lambda: _header(columns_crc=1),
    "payload bit flipped": lambda: _flip(_COLUMNS_END + 10),
    "last payload byte flipped": lambda: _flip(-1),
    "payload checksum wrong": lambda: _header(payload_crc=1),
    "piece checksum wrong": _wrong_piece_crc,
    "piece checksums swapped": _swapped_piece_crcs,
    "falling partitions": lambda: _columns(partition=_array(2, 1, 5)),
    "partition is P": lambda: _columns(partition=_array(1, 2, 8)),
    "partition is far over P": lambda: _columns(partition=_array(1, 2, 2**32 - 1)),
    "lengths add up to less": lambda: _columns(length=_array(300, 2000, 4999)),
    "lengths add up to more": lambda: _columns(length=_array(300, 2000, 5001)),
    "lengths wrap around": lambda: _columns(length=_array(2**32 - 1, 2**32 - 1, 7302)),
    "header cut": lambda: _sound()[: HEADER_BYTES - 1],
    "only a header": lambda: _sound()[:HEADER_BYTES],
    "columns cut": lambda: _sound()[: _COLUMNS_END - 1],
    "only header and columns": lambda: _sound()[:_COLUMNS_END],
    "payload cut": lambda: _sound()[:-1],
    "payload cut early": lambda: _sound()[: _COLUMNS_END + 1],
    "a byte more": lambda: _sound() + b"x",
    "a frame twice": lambda: _sound() * 2,
    "more pieces said": lambda: _header(pieces=4),
    "fewer pieces said": lambda: _header(pieces=2),
    "4 Gi pieces said": lambda: _header(pieces=2**32 - 1),
    "payload said to be 2**63": lambda: _header(payload_bytes=2**63),
    "payload said to be longer": lambda: _header(payload_bytes=7301),
    "all zeros": lambda: bytes(4096),
}  # fmt: skip


def check_nothing_happened(target: Target) -> None:
    """Nothing is visible or takes space, and the number is free for the sound frame."""
    assert not len(target.frames())
    described = target.peer.ask("GET", target.job_path).json()
    assert described["disk_bytes"] < 64
    assert all(s["frames"] == s["pieces"] == 0 for s in described["shuffles"])
    check_ack(target.push(_sound()))


@both_ways
@pytest.mark.parametrize("kind", list(DAMAGED))
def test_a_damaged_frame_leaves_nothing(target: Target, kind: str, *, expect: bool) -> None:
    with target.peer.line() as line:
        path = f"{target.path}/frames"
        reply = line.ask("PUT", path, DAMAGED[kind](), expect=expect)
        check_error(reply, 400, "frame")
        if not reply.closes:
            assert line.ask("GET", target.job_path).status == 200
    check_nothing_happened(target)


@both_ways
def test_a_damaged_frame_harms_no_frame_beside_it(target: Target, *, expect: bool) -> None:
    check_ack(target.push(target.frame(map_id=7)))
    before, disk = target.frames(), target.disk_bytes()
    for kind, make in DAMAGED.items():
        assert target.push(make(), expect=expect).status == 400, kind
    assert target.frames().tobytes() == before.tobytes()
    assert target.disk_bytes() == disk


@both_ways
@pytest.mark.parametrize("sent", [0, 1, HEADER_BYTES, _COLUMNS_END, _COLUMNS_END + 100, -1])
def test_a_body_that_ends_early_leaves_nothing(target: Target, sent: int, *, expect: bool) -> None:
    data = _sound()
    with target.peer.line() as line:
        headers = {"Expect": "100-continue"} if expect else {}
        line.send(line.head("PUT", f"{target.path}/frames", length=len(data), headers=headers))
        if expect:
            assert line.reply().status == 100
        line.send(data[:sent])
        line.socket.shutdown(1)
        with suppress(ConnectionError):  # hanging up says it too
            assert line.reply().status >= 400
    check_nothing_happened(target)


def test_the_body_may_come_in_any_cut(target: Target) -> None:
    data = _sound()
    with target.peer.line() as line:
        for seq, cut in enumerate(
            (1, 95, 96, 97, HEADER_BYTES + 5, _COLUMNS_END, _COLUMNS_END + 1)
        ):
            piece = make_frame(_PIECES, partitions=8, map_id=seq)
            for expect in (False, True):
                headers = {"Expect": "100-continue"} if expect else {}
                head = line.head("PUT", f"{target.path}/frames", length=len(data), headers=headers)
                line.send(head)
                if expect:
                    assert line.reply().status == 100
                for part in (piece[:cut], piece[cut : cut + 1], piece[cut + 1 :]):
                    line.send(part)
                check_ack(line.reply(), duplicate=expect)


def test_the_body_may_come_without_waiting_for_100_continue(target: Target) -> None:
    with target.peer.line() as line:
        for map_id in range(5):
            data = make_frame(_PIECES, partitions=8, map_id=map_id)
            headers = {"Expect": "100-continue"}
            head = line.head("PUT", f"{target.path}/frames", length=len(data), headers=headers)
            line.send(head + data)
            reply = line.reply()
            check_ack(line.reply() if reply.status == 100 else reply)
            assert line.ask("GET", target.job_path).status == 200
    assert len(target.frames()) == 5


@pytest.mark.parametrize(
    "lines",
    [
        {},
        {"Transfer-Encoding": "chunked"},
        {"Content-Length": "abc"},
        {"Content-Length": "-5"},
        {"Content-Length": "+100"},
        {"Content-Length": "1e3"},
        {"Content-Length": "99999999999999999999999999"},
    ],
    ids=str,
)
@both_ways
def test_a_frame_needs_its_length(target: Target, lines: dict[str, str], *, expect: bool) -> None:
    with target.peer.line() as line:
        headers = {**lines, **({"Expect": "100-continue"} if expect else {})}
        line.send(line.head("PUT", f"{target.path}/frames", length=None, headers=headers))
        if "Transfer-Encoding" in lines and not expect:
            data = _sound()
            line.send(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")
        reply = line.reply()
        assert 400 <= reply.status < 500, reply
    check_nothing_happened(target)


def test_two_lengths_are_refused(target: Target) -> None:
    data = _sound()
    with target.peer.line() as line:
        head = line.head("PUT", f"{target.path}/frames", length=len(data))
        line.send(head[:-2] + b"Content-Length: 5\r\n\r\n" + data)
        assert 400 <= line.reply().status < 500
    check_nothing_happened(target)


# -- refused before the body travels -------------------------------------------------------


@pytest.mark.parametrize("job", ["known", "unknown"])
def test_a_frame_that_is_too_large_is_refused_before_its_body(target: Target, job: str) -> None:
    path = (
        f"{target.path}/frames"
        if job == "known"
        else f"/v1/jobs/{target.job}-x/shuffles/a/0/frames"
    )
    with target.peer.line() as line:
        headers = {"Expect": "100-continue"}
        line.send(line.head("PUT", path, length=2**40, headers=headers))
        reply = line.reply()
        if job == "known":
            check_error(reply, 413, "frame_too_large")
        else:
            check_error(reply, 404, "job_unknown")
        assert reply.closes  # so that nobody wonders whether the body still comes
    assert not len(target.frames())


def test_a_frame_without_a_good_token_is_refused_before_its_body(target: Target) -> None:
    if target.peer.ask("GET", "/v1/workers", token="").status == 200:
        pytest.skip("this worker takes every request")
    for token in ("", "garbage"):
        with target.peer.line(token=token) as line:
            reply = line.ask("PUT", f"{target.path}/frames", _sound(), expect=True)
            check_error(reply, 401, "unauthenticated")
            assert not reply.continued
            assert reply.headers["www-authenticate"] == "Bearer"
            assert reply.closes
    assert not len(target.frames())


def test_a_frame_of_an_ended_job_is_refused_before_its_body(target: Target) -> None:
    target.peer.ask("POST", f"{target.job_path}/fence")
    with target.peer.line() as line:
        reply = line.ask("PUT", f"{target.path}/frames", _sound(), expect=True)
        check_error(reply, 410, "job_fenced")
        assert not reply.continued


# -- many requests on one connection -------------------------------------------------------


def test_one_connection_serves_any_mix_of_requests(target: Target) -> None:
    frames, peer = f"{target.path}/frames", target.peer
    with peer.line() as line:
        for i in range(20):
            good = [target.frame([(1, b"x" * n, 1)], map_id=3 * i + k)
                    for k, n in enumerate((10, 100_000, 1_000_000))]  # fmt: skip
            assert line.ask("GET", "/healthz").status == 200
            check_ack(line.ask("PUT", frames, good[0], expect=True))
            check_ack(line.ask("PUT", frames, good[0], expect=False), duplicate=True)
            check_ack(line.ask("PUT", frames, good[1], expect=False))
            assert line.ask("PUT", frames, DAMAGED["a byte more"](), expect=True).status == 400
            check_ack(line.ask("PUT", frames, good[2], expect=True))
            assert line.ask("PUT", frames, DAMAGED["payload cut"](), expect=False).status == 400
            reply = line.ask("POST", f"{frames}/list")
            assert len(reply.body) == 64 * 3 * (i + 1)
            assert line.ask("GET", "/nowhere").status == 404
            assert line.ask("GET", f"{target.path}/seal").status == 204
            assert line.ask("PUT", f"{target.path}/seal", b"odd").status == 400


@pytest.mark.parametrize("expect", [False, True], ids=["plain", "expect"])
def test_requests_sent_without_waiting_are_all_answered(target: Target, *, expect: bool) -> None:
    """Pipelining (RFC 9112, section 9.3.2): the answers come, in order."""
    headers = {"Expect": "100-continue"} if expect else {}
    with target.peer.line() as line:
        data = b""
        for map_id in range(3):
            body = target.frame(map_id=map_id)
            head = line.head("PUT", f"{target.path}/frames", length=len(body), headers=headers)
            data += head + body + line.head("GET", target.job_path, length=None)
        line.send(data)
        for frames in range(1, 4):
            reply = line.reply()
            check_ack(line.reply() if reply.status == 100 else reply)
            reply = line.reply()
            assert reply.status == 200
            assert reply.json()["shuffles"][0]["frames"] == frames


def test_connection_close_is_honoured(target: Target) -> None:
    for expect in (False, True):
        with target.peer.line() as line:
            headers = {"Connection": "close"}
            path, data = f"{target.path}/frames", target.frame()
            reply = line.ask("PUT", path, data, expect=expect, headers=headers)
            check_ack(reply, duplicate=expect)
            assert line.is_closed()


def test_columns_helper_round_trips() -> None:
    """The tools of this suite are themselves sound."""
    assert join(*split(_sound())) == _sound()
