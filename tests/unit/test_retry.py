"""Waits between tries: one rule for calls that are repeated and for loops that go on."""

import random
from collections.abc import Callable

import pytest

from crossdock import push, retry
from crossdock.errors import DataCorrupt, Overloaded, PeerGone, Unavailable

PROBLEM = PeerGone("gone")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits; each is as long as it may be."""
    found: list[float] = []
    monkeypatch.setattr(random, "uniform", lambda _, longest: longest)
    monkeypatch.setattr("time.sleep", found.append)
    return found


def repeated(problem: Unavailable, times: int) -> None:
    def work() -> None:
        nonlocal times
        times -= 1
        if times >= 0:
            raise problem

    retry.patiently(work, deadline_seconds=60)


def in_a_loop(problem: Unavailable, times: int) -> None:
    patience = retry.Patience(60)
    for _ in range(times):
        patience.wait_after(problem)


@pytest.mark.parametrize("run", [repeated, in_a_loop])
def test_a_worker_is_left_alone_for_as_long_as_it_asks(
    waits: list[float], run: Callable[[Unavailable, int], None]
) -> None:
    run(Overloaded("later", retry_after_seconds=5), 8)
    assert waits == [5.1, 5.2, 5.4, 5.8, 6.6, 8.0, 8.0, 8.0]


@pytest.mark.parametrize("run", [repeated, in_a_loop])
def test_no_worker_keeps_a_client_for_ever(
    waits: list[float], run: Callable[[Unavailable, int], None]
) -> None:
    run(Overloaded("next year", retry_after_seconds=3e7), 2)
    assert waits == [30.1, 30.2]


@pytest.mark.parametrize("run", [repeated, in_a_loop])
def test_waits_that_are_short_double_up_to_what_was_asked_for(
    waits: list[float], run: Callable[[Unavailable, int], None]
) -> None:
    run(Overloaded("soon", retry_after_seconds=0.3), 4)
    assert waits == [0.1, 0.2, 0.3, 0.3]


def test_no_wait_goes_past_the_deadline(waits: list[float]) -> None:
    late = Overloaded("later", retry_after_seconds=20)
    retry.Patience(2).wait_after(late)
    with pytest.raises(Overloaded):
        retry.Patience(0).wait_after(late)
    assert waits == pytest.approx([2], abs=0.5)


def test_of_several_workers_the_soonest_counts() -> None:
    soon, late = Overloaded("soon", retry_after_seconds=1), Overloaded("", retry_after_seconds=5)
    broken = DataCorrupt("broken")
    assert push._sooner(late, soon) is push._sooner(soon, late) is soon
    assert push._sooner(broken, late) is push._sooner(late, broken) is late
    assert push._sooner(None, broken) is push._sooner(broken, DataCorrupt("other")) is broken


@pytest.mark.parametrize("failures", [1, 3, 5000])
def test_waits_are_random(failures: int) -> None:
    found = {retry.wait_seconds(failures, PROBLEM) for _ in range(200)}
    assert len(found) > 100
    assert 0 <= min(found) < 0.1
    assert max(found) <= 1.0


def test_after_the_deadline_the_problem_is_raised(waits: list[float]) -> None:
    with pytest.raises(PeerGone):
        retry.patiently(lambda: (_ for _ in ()).throw(PROBLEM), deadline_seconds=0)
    with pytest.raises(PeerGone):
        retry.Patience(0).wait_after(PROBLEM)
    assert not waits


def test_only_unavailable_is_tried_again(waits: list[float]) -> None:
    with pytest.raises(DataCorrupt):
        retry.patiently(lambda: (_ for _ in ()).throw(DataCorrupt("x")), deadline_seconds=60)
    assert not waits
