"""How long a peer is waited for: at once, and all in all for the bytes that it moved."""

import pytest

from crossdock.errors import PeerGone
from crossdock_worker import patience
from crossdock_worker.patience import Patience


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(patience, "time", found)
    return found


def wait(clock: Clock, whom: Patience, seconds: float) -> None:
    with whom.waiting():
        clock.now += seconds


def time_out(clock: Clock, whom: Patience, seconds: float) -> None:
    with whom.waiting():
        clock.now += seconds
        raise TimeoutError


def test_bytes_earn_time(clock: Clock) -> None:
    peer = Patience(10, 100)
    assert peer.seconds == 10
    wait(clock, peer, 4)
    assert peer.seconds == 6
    peer.moved(200)
    assert peer.seconds == 8
    peer.moved(10_000)
    assert peer.seconds == 10  # no single wait is longer
    wait(clock, peer, 10)
    wait(clock, peer, 97)
    assert peer.seconds == 1
    with pytest.raises(PeerGone, match="moved 10200 bytes while it was waited for 112"):
        wait(clock, peer, 1)


def test_our_own_work_costs_the_peer_nothing(clock: Clock) -> None:
    peer = Patience(10, 100)
    clock.now += 1000
    assert peer.seconds == 10


def test_a_wait_that_times_out_says_why(clock: Clock) -> None:
    quick = Patience(10, 100)
    quick.moved(1000)
    with pytest.raises(PeerGone, match="no byte for 10 s"):
        time_out(clock, quick, 10)
    slow = Patience(10, 100)
    wait(clock, slow, 9.5)
    with pytest.raises(PeerGone, match="moved 0 bytes while"):
        time_out(clock, slow, 0.5)


def test_without_a_lowest_rate_only_stalls_count(clock: Clock) -> None:
    peer = Patience(10, 0)
    for _ in range(100):
        wait(clock, peer, 9)
    assert peer.seconds == 10
