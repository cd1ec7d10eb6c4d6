"""What counts as the head of a frame, and where requests are taken to begin."""

import pytest

from crossdock_worker.heads import Bounds, FrameHead, frame_head

FRAME = (
    b"PUT /v1/jobs/j/shuffles/s/0/frames HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n"
)
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = b"PUT /v1/jobs/j HTTP/1.1\r\nContent-Length: 10\r\n\r\n"


def test_the_head_of_a_frame() -> None:
    head = b"PUT /v1/jobs/j/shuffles/s/0/frames HTTP/1.1\r\nExpect: 100-continue\r\n\r\n"
    assert frame_head(FRAME + b"\r\n") == FrameHead(head, 9)


@pytest.mark.parametrize(
    "data",
    [
        GET,
        PUT,
        FRAME,
        FRAME + b"\r\nx",
        FRAME + b"\r\n" + GET,
        FRAME + b"Content-Length: 9\r\n\r\n",
        FRAME + b"Content-Length : 8\r\n\r\n",
        FRAME + b"Transfer-Encoding: chunked\r\n\r\n",
        FRAME + b" folded\r\n\r\n",
        FRAME + b"A: b\nC: d\r\n\r\n",
        FRAME.replace(b": 9", b": 0") + b"\r\n",
        FRAME.replace(b": 9", b": 0x9") + b"\r\n",
        FRAME.replace(b"100-continue", b"nothing") + b"\r\n",
        b"\r\n" + FRAME + b"\r\n",
    ],
)
def test_what_is_no_head_of_a_frame(data: bytes) -> None:
    assert frame_head(data) is None


@pytest.mark.parametrize(
    ("parts", "requests"),
    [
        ([], 0),
        ([GET], 1),
        ([GET, GET], 2),
        ([PUT, bytes(10)], 1),
        ([PUT + bytes(10)], 1),
        ([PUT + bytes(3), bytes(3), bytes(4), GET], 2),
        ([FRAME + b"\r\n" + bytes(9), GET], 2),
    ],
)
def test_between_requests(parts: list[bytes], requests: int) -> None:
    bounds = Bounds()
    for part in parts:
        bounds.passed(part)
    assert bounds.between
    assert bounds.requests == requests


def test_inside_a_body_nothing_begins_and_its_end_is_seen() -> None:
    bounds = Bounds()
    bounds.passed(PUT + bytes(9))
    assert (bounds.between, bounds.certain) == (False, True)
    bounds.passed(b"x")
    assert bounds.between


@pytest.mark.parametrize(
    "parts",
    [
        [GET[:10]],
        [GET + GET],
        [GET + b"x"],
        [PUT + bytes(11)],
        [PUT, bytes(11)],
        [b"\r\n" + GET],
        [b"CONNECT / HTTP/1.1\r\n\r\n"],
        [b"GET / HTTP/1.0\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n"],
        [b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"],
        [b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"],
        [b"PUT / HTTP/1.1\r\nA: b\n\r\n\r\n"],
        [b"PUT / HTTP/1.1\r\nContent-Length: +1\r\n\r\n"],
    ],
)
def test_what_is_uncertain_stays_so(parts: list[bytes]) -> None:
    bounds = Bounds()
    for part in [*parts, GET]:
        bounds.passed(part)
    assert not bounds.certain
    assert not bounds.between
