"""When the front of a connection keeps a frame's body from aiohttp."""

import asyncio
from typing import cast

import pytest

from crossdock_worker.front import ConnectionCount, Front
from crossdock_worker.settings import Limits

HEAD = (
    b"PUT /v1/jobs/j/shuffles/s/0/frames HTTP/1.1\r\nContent-Length: 9\r\n"
    b"Expect: 100-continue\r\n\r\n"
)
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Below:
    """The transport: remembers whether it reads."""

    reading = True

    def get_extra_info(self, _name: str) -> None:
        return None

    def pause_reading(self) -> None:
        self.reading = False

    def abort(self) -> None:
        raise AssertionError("the connection was closed")


class Above(asyncio.Protocol):
    """What aiohttp is elsewhere: remembers what it was given."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.got.append(data)


async def _connect() -> tuple[Front, Below, Above]:
    below, above = Below(), Above()
    front = Front(lambda: above, ConnectionCount(9), Limits())
    front.connection_made(cast("asyncio.Transport", below))
    return front, below, above


async def _check_kept(*before: bytes, answered: bool) -> bool:
    front, below, above = await _connect()
    for data in before:
        front.data_received(data)
    front.request_began()
    if answered:
        for _ in before:
            front.request_ended()
    front.data_received(HEAD)
    kept = front.take_waiting() == 9
    assert front.take_waiting() is None
    assert below.reading is not kept
    assert (b"Content-Length" in above.got[-1]) is not kept
    front.connection_lost(None)
    return kept


@pytest.mark.parametrize("before", [(), (GET,), (HEAD + bytes(9),), (GET, GET)])
def test_a_body_is_kept_when_every_request_before_it_is_answered(before: tuple[bytes, ...]) -> None:
    assert asyncio.run(_check_kept(*before, answered=True))


def test_a_body_is_not_kept_while_a_request_is_under_way() -> None:
    assert not asyncio.run(_check_kept(GET, answered=False))


def test_a_body_is_not_kept_behind_half_a_head() -> None:
    assert not asyncio.run(_check_kept(GET[:9], answered=True))
