"""What happens to a job while a frame of it comes: the frame is refused, and leaves nothing."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from harness import WorkerProcess, eventually
from raw import Line, Peer, Target

MIB = 2**20

both_ways = pytest.mark.parametrize("expect", [False, True], ids=["plain", "expect"])


@pytest.fixture
def words(worker: WorkerProcess) -> Target:
    """A shuffle with one frame, of map 9."""
    target = Target(Peer(worker.url, ""), f"under-way-{secrets.token_hex(8)}")
    assert target.register().status == 201
    assert target.push(target.frame(map_id=9)).status == 200
    return target


@contextmanager
def half_sent(target: Target, data: bytes, *, expect: bool) -> Iterator[Line]:
    """Open a connection on which half of a new frame came, so that its head was checked."""
    before = target.disk_bytes()
    with target.peer.line() as line:
        headers = {"Expect": "100-continue"} if expect else {}
        line.send(line.head("PUT", f"{target.path}/frames", length=len(data), headers=headers))
        if expect:
            assert line.reply().status == 100
        line.send(data[: len(data) // 2])
        eventually(lambda: target.disk_bytes() > before, what="the reservation")
        yield line


def take_over(target: Target) -> None:
    assert target.register(epoch=1).status == 200


def fence(target: Target) -> None:
    assert target.peer.ask("POST", f"{target.job_path}/fence").status == 200


def delete(target: Target) -> None:
    assert target.peer.ask("DELETE", target.job_path).status == 200


def release(target: Target) -> None:
    assert target.peer.ask("DELETE", target.path).status == 200


def abort(target: Target) -> None:
    """Abort the attempt of map 1; its first frame must be here for that."""
    assert target.peer.ask("DELETE", f"{target.path}/attempts/1/0").json()["frames"] == 1


ENDS = [
    (take_over, 409, "stale_epoch"),
    (fence, 410, "job_fenced"),
    (delete, 410, "job_fenced"),
    (release, 410, "shuffle_released"),
    (abort, 409, "attempt_conflict"),
]


@both_ways
@pytest.mark.parametrize(("end", "status", "code"), ENDS, ids=[e[0].__name__ for e in ENDS])
def test_a_frame_whose_job_changed_while_it_came_is_refused(
    words: Target, end: Callable[[Target], None], status: int, code: str, *, expect: bool
) -> None:
    assert words.push(words.frame(map_id=1, seq=0, count=0)).status == 200
    data = words.frame([(1, bytes(MIB), 1)], map_id=1, seq=1, count=2)
    with half_sent(words, data, expect=expect) as line:
        end(words)
        line.send(data[len(data) // 2 :])
        reply = line.reply()
        assert (reply.status, reply.code) == (status, code)
    if end is take_over:
        assert sorted(words.frames()["map"].tolist()) == [1, 9]
    elif end is abort:
        assert words.frames()["map"].tolist() == [9]


@both_ways
@pytest.mark.parametrize(("end", "status", "code"), ENDS[:4], ids=[e[0].__name__ for e in ENDS[:4]])
def test_a_copy_of_a_frame_is_not_acked_either(
    words: Target, end: Callable[[Target], None], status: int, code: str, *, expect: bool
) -> None:
    """It was here when its head came: a late ack would promise what does not hold any more."""
    data = words.frame([(1, bytes(MIB), 1)], map_id=1)
    assert words.push(data).status == 200
    marker = words.frame([(1, bytes(MIB), 1)], map_id=2)
    with words.peer.line() as line:
        headers = {"Expect": "100-continue"} if expect else {}
        line.send(line.head("PUT", f"{words.path}/frames", length=len(data), headers=headers))
        if expect:
            assert line.reply().status == 100
        line.send(data[: len(data) // 2])
        with half_sent(words, marker, expect=expect):  # by then the copy's head was read too
            end(words)
            line.send(data[len(data) // 2 :])
            reply = line.reply()
        assert (reply.status, reply.code) == (status, code)
