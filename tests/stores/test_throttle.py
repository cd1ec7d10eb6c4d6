"""The rate that a store is asked at: the rule alone, on times that tests make up."""

import math
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.cancel import Cancel
from crossdock.errors import Closed
from crossdock.store.errors import StoreUnavailable
from crossdock.store.throttle import BURST_SECONDS, MAX_RATE, MIN_RATE, Rate, Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def send(rate: Rate, count: int, per_second: float, start: float = 0.0) -> float:
    """Take `count` turns at an even pace; return when the last was."""
    now = start
    for _ in range(count):
        rate.take(now, math.inf)
        now += 1 / per_second
    return now


def test_nothing_waits_before_the_first_refusal() -> None:
    rate = Rate()
    assert {rate.take(5.0, 0.0) for _ in range(10_000)} == {0.0}
    rate.served(6.0)
    assert rate.rate == math.inf


def test_a_refusal_halves_what_was_sent() -> None:
    rate = Rate()
    now = send(rate, 500, per_second=100)
    rate.refused(now, sent=now)
    assert rate.rate == pytest.approx(50, rel=0.02)


def test_one_storm_counts_once() -> None:
    rate = Rate()
    now = send(rate, 500, per_second=100)
    for _ in range(50):  # all under way before the first answer
        rate.refused(now, sent=now - 0.1)
    assert rate.rate == pytest.approx(50, rel=0.02)
    rate.refused(now + 1, sent=now + 0.5)
    assert rate.rate < 30


def test_a_long_storm_ends_at_the_least_rate_and_not_below() -> None:
    rate = Rate()
    now = send(rate, 100, per_second=100)
    for _ in range(60):
        rate.refused(now, sent=now)
        now += 1
    assert rate.rate == MIN_RATE


def test_success_brings_it_back_and_then_frees_it() -> None:
    rate = Rate()
    now = send(rate, 500, per_second=100)
    rate.refused(now, sent=now)
    steps = []
    while rate.rate < math.inf:
        now += 0.1
        rate.served(now)
        steps.append(rate.rate)
    assert steps[49] == pytest.approx(100, rel=0.05)  # back in five seconds
    assert all(later > earlier for earlier, later in pairwise(steps))
    assert steps[-2] <= MAX_RATE


def test_a_pause_proves_nothing() -> None:
    rate = Rate()
    now = send(rate, 500, per_second=100)
    rate.refused(now, sent=now)
    rate.served(now + 3600)
    assert rate.rate < 62


def test_a_turn_that_comes_too_late_is_not_taken() -> None:
    rate = Rate()
    rate.refused(0.0, sent=0.0)
    assert rate.rate == MIN_RATE
    assert rate.take(0.0, 0.1) is None
    first = rate.take(0.0, 10.0)
    second = rate.take(0.0, 10.0)
    assert first is not None
    assert second is not None
    assert second - first == pytest.approx(1 / MIN_RATE)
    assert rate.take(0.0, 2.5 / MIN_RATE) is None


EVENTS = st.lists(
    st.tuples(st.sampled_from(["take", "refused", "served"]), st.floats(0, 3)), max_size=200
)


@given(events=EVENTS)
def test_the_rate_stays_within_its_bounds(events: list[tuple[str, float]]) -> None:
    rate, now = Rate(), 0.0
    for what, seconds in events:
        now += seconds
        before = rate.rate
        if what == "take":
            wait = rate.take(now, math.inf)
            assert wait is not None
            assert wait >= 0
            assert rate.rate == before
        elif what == "refused":
            rate.refused(now, sent=now)
            assert rate.rate <= max(before / 2, MIN_RATE)
        else:
            rate.served(now)
            assert rate.rate >= before
        assert MIN_RATE <= rate.rate <= MAX_RATE or rate.rate == math.inf


@given(gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=100), cut=st.integers(1, 50))
def test_no_more_go_than_the_rate_allows(gaps: list[float], cut: int) -> None:
    rate = Rate()
    start = send(rate, cut * 2, per_second=cut)
    rate.refused(start, sent=start)
    now, sent = start, []
    for gap in gaps:
        now += gap
        wait = rate.take(now, math.inf)
        assert wait is not None
        sent.append(now + wait)
    assert sent == sorted(sent)
    for n, first in enumerate(sent):
        for m, last in enumerate(sent[n:]):
            assert m <= rate.rate * (last - first + BURST_SECONDS) + 1e-6


def test_threads_wait_until_their_turn_or_the_end() -> None:
    clock, cancel = Clock(), Cancel("over")
    throttle = Throttle(clock)
    throttle.refused(clock.now)
    with pytest.raises(StoreUnavailable, match="throttles"):
        throttle.wait(0.1, cancel)
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            throttle.wait(3600, cancel)
        except Closed as problem:
            failures.append(problem)

    for _ in range(100):  # hours of turns are taken
        throttle._rate.take(clock.now, math.inf)
    thread = threading.Thread(target=wait)
    thread.start()
    cancel.set()
    thread.join(60)
    assert not thread.is_alive()
    assert len(failures) == 1
    with pytest.raises(Closed):
        throttle.wait(0, cancel)
