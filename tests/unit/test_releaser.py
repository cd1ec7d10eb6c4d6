"""Which released shuffles a worker deletes together, and what waits for whom."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from crossdock.cancel import Cancel
from crossdock.errors import CleanupUnfinished
from crossdock.lifecycle.facts import Facts, to_clear
from crossdock.records import JobRecord, Owner
from crossdock_worker import released, releasing
from crossdock_worker.jobs import Jobs
from crossdock_worker.releasing import Attempt, Batch, Releaser
from harness import eventually

RECORD = JobRecord(owner=Owner.RUNNER, lease_seconds=60, grace_seconds=300)


class Clears:
    """Notes batches, and ends them when it is told to."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.failing = ""
        """A job with which no batch succeeds."""
        self.unproved: frozenset[str] = frozenset()
        self.empties = False
        """Whether what there is is deleted, before anything fails."""
        self.goes_on = threading.Event()

    @property
    def batches(self) -> list[Batch]:
        return [attempt.batch for attempt in self.attempts]

    def __call__(self, attempt: Attempt, cancel: Cancel) -> None:
        self.attempts.append(replace(attempt))
        assert self.goes_on.wait(60)
        cancel.check()
        attempt.emptied |= self.empties
        if self.failing in attempt.batch:
            raise CleanupUnfinished("a worker does not answer")
        attempt.unproved = self.unproved


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(tmp_path, max_shuffles=10)
    for uid in ("a", "b"):
        made.register(uid, RECORD)
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, to be set."""
    now = [1.0]
    for module in (releasing, released):
        monkeypatch.setattr(module, "clock", lambda: now[0])
    return now


@pytest.fixture
def clears() -> Clears:
    return Clears()


@pytest.fixture
def releaser(jobs: Jobs, clears: Clears) -> Iterator[Releaser]:
    made = Releaser(jobs, rank=lambda: 0, clear=clears)
    yield made
    clears.goes_on.set()
    made.close()


def release(jobs: Jobs, uid: str, **generations: int) -> None:
    jobs.get(uid).learn(Facts(released=generations, stored=True))


def left(jobs: Jobs, uid: str) -> dict[str, range]:
    return to_clear(jobs.get(uid).facts)


def test_what_waits_goes_together_and_what_comes_later_overlaps(
    jobs: Jobs, clears: Clears, releaser: Releaser
) -> None:
    release(jobs, "a", x=2, y=1)
    release(jobs, "b", z=1)
    releaser.look()
    release(jobs, "a", x=3, w=1)
    for _ in range(3):
        releaser.look()
    eventually(lambda: len(clears.batches) == 2)
    assert clears.batches == [
        {"a": {"x": range(2), "y": range(1)}, "b": {"z": range(1)}},
        {"a": {"w": range(1)}},
    ], "generations of one shuffle go one after the other"
    clears.goes_on.set()
    eventually(lambda: left(jobs, "a") == {"x": range(2, 3)})
    eventually(lambda: releaser.look() or not left(jobs, "a"))
    assert clears.batches[2:] == [{"a": {"x": range(2, 3)}}]
    assert not left(jobs, "b")


def test_few_go_at_once_and_none_is_too_long(
    jobs: Jobs, clears: Clears, releaser: Releaser
) -> None:
    release(jobs, "a", **{f"s{n}": 1 for n in range(450)})
    for _ in range(10):
        releaser.look()
    eventually(lambda: len(clears.batches) == 4)
    assert [len(batch["a"]) for batch in clears.batches] == [100] * 4
    clears.goes_on.set()
    eventually(lambda: releaser.look() or not left(jobs, "a"))
    assert sum(len(batch["a"]) for batch in clears.batches) == 450, "each once"


def test_a_batch_that_fails_lets_the_others_go_first(
    jobs: Jobs, clears: Clears, releaser: Releaser
) -> None:
    clears.failing = "a"
    clears.goes_on.set()
    release(jobs, "a", x=1)
    releaser.look()
    eventually(lambda: clears.batches)
    release(jobs, "b", y=1)
    eventually(lambda: releaser.look() or not left(jobs, "b"))
    assert clears.batches == [{"a": {"x": range(1)}}, {"b": {"y": range(1)}}]
    assert left(jobs, "a") == {"x": range(1)}
    clears.failing = ""
    eventually(lambda: releaser.look() or not left(jobs, "a"))


def test_a_job_that_a_worker_does_not_know_is_not_proved(
    jobs: Jobs, clears: Clears, releaser: Releaser
) -> None:
    clears.unproved = frozenset({"a"})
    clears.goes_on.set()
    release(jobs, "a", x=1)
    release(jobs, "b", y=1)
    releaser.look()
    eventually(lambda: not left(jobs, "b"))
    assert left(jobs, "a") == {"x": range(1)}
    clears.unproved = frozenset()
    eventually(lambda: releaser.look() or not left(jobs, "a"))


@pytest.mark.parametrize("fails", ["all", "one job"])
def test_what_cannot_be_proved_yet_is_tried_more_and_more_seldom(
    jobs: Jobs,
    clears: Clears,
    releaser: Releaser,
    clock: list[float],
    fails: str,
) -> None:
    """Up to a bound; and what was deleted once is not looked for again before the proof."""
    clears.failing, clears.unproved = ("a", frozenset()) if fails == "all" else ("", {"a"})  # type: ignore[assignment]
    clears.goes_on.set()
    release(jobs, "a", x=1)
    tried: list[float] = []
    while clock[0] < 600:
        releaser.look()
        eventually(lambda: not releaser.is_busy)
        if len(clears.attempts) > len(tried):
            tried.append(clock[0])
            clears.empties = len(tried) > 1
        clock[0] += 0.5
    pauses = [after - before for before, after in pairwise(tried)]
    assert pauses[:7] == [2, 4, 8, 16, 32, 64, 120]
    assert set(pauses[7:]) == {120}
    assert [attempt.emptied for attempt in clears.attempts[:5]] == [False] * 3 + [True] * 2
    clears.failing, clears.unproved = "", frozenset()
    release(jobs, "a", x=2)
    clock[0] += 120
    releaser.look()
    eventually(lambda: not left(jobs, "a"))
    assert clears.attempts[-1].batch == {"a": {"x": range(2)}}
    assert not clears.attempts[-1].emptied, "of the new generation nothing was deleted yet"
    release(jobs, "a", x=3)
    releaser.look()
    eventually(lambda: not left(jobs, "a"))


def test_proofs_have_their_turn_beside_what_is_released_all_the_time(
    jobs: Jobs, clears: Clears, releaser: Releaser, clock: list[float]
) -> None:
    clears.failing, clears.empties = "a", True
    clears.goes_on.set()
    release(jobs, "a", x=1, y=1)
    releaser.look()
    eventually(lambda: not releaser.is_busy)
    clears.failing = ""
    clock[0] += 2
    release(jobs, "b", z=1)
    releaser.look()
    eventually(lambda: not left(jobs, "a"))
    assert clears.attempts[-1].emptied
    eventually(lambda: releaser.look() or not left(jobs, "b"))


def test_what_is_proved_costs_no_look_any_more(
    jobs: Jobs, clears: Clears, releaser: Releaser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is at a bounded number of shuffles, however many were released."""
    looked: list[int] = []

    def counting(facts: Facts, among: Iterable[str]) -> dict[str, range]:
        names = list(among)
        looked.append(len(names))
        return to_clear(facts, names)

    monkeypatch.setattr(releasing, "to_clear", counting)
    clears.goes_on.set()
    count = 20_000
    done = {f"s{n}": 1 for n in range(count)}
    jobs.get("a").learn(Facts(released=done, cleared=done, stored=True))
    release(jobs, "a", late=1)
    releaser.look()
    eventually(lambda: not left(jobs, "a"))
    assert looked[0] == 1
    jobs.get("b").learn(Facts(released=done, stored=True))
    looked.clear()
    releaser.look()
    release(jobs, "b", late=1)
    eventually(lambda: releaser.look() or any("late" in b.get("b", ()) for b in clears.batches))
    assert max(looked) <= 200
    assert len(looked) < 20, "what is new comes first"


def test_a_jobs_oldest_release_that_is_not_proved_says_whose_turn_it_is(
    jobs: Jobs, clock: list[float]
) -> None:
    """Else a job that releases all the time would never be the next worker's to clean up."""
    gone = jobs.get("a").gone
    for clock[0], stop in ((100, 1), (200, 2), (300, 3)):
        release(jobs, "a", x=stop)
        assert gone.since("x") == 100
    jobs.get("a").learn(Facts(cleared={"x": 1}))
    assert gone.since("x") == 200
    jobs.get("a").learn(Facts(cleared={"x": 3}))
    clock[0] = 400
    release(jobs, "a", x=4)
    assert gone.since("x") == 400


def test_what_is_proved_is_known_after_a_restart(
    jobs: Jobs, clears: Clears, releaser: Releaser, tmp_path: Path
) -> None:
    clears.goes_on.set()
    release(jobs, "a", x=2)
    releaser.look()
    eventually(lambda: not left(jobs, "a"))
    release(jobs, "b", y=1)
    jobs.close()
    again = Jobs(tmp_path, max_shuffles=10)
    assert (left(again, "a"), left(again, "b")) == ({}, {"y": range(1)})
    again.close()
