"""Which released shuffles a worker deletes together, and what waits for whom."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossdock.cancel import Cancel
from crossdock.errors import CleanupUnfinished
from crossdock.lifecycle.facts import Facts, to_clear
from crossdock.records import JobRecord, Owner
from crossdock_worker.jobs import Jobs
from crossdock_worker.releasing import Batch, Releaser
from harness import eventually

RECORD = JobRecord(owner=Owner.RUNNER, lease_seconds=60, grace_seconds=300)


class Clears:
    """Notes batches, and ends them when it is told to."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.failing = ""
        """A job with which no batch succeeds."""
        self.unproved: frozenset[str] = frozenset()
        self.goes_on = threading.Event()

    def __call__(self, batch: Batch, cancel: Cancel) -> frozenset[str]:
        self.batches.append(batch)
        assert self.goes_on.wait(20)
        cancel.check()
        if self.failing in batch:
            raise CleanupUnfinished("a worker does not answer")
        return self.unproved


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(tmp_path, max_shuffles=10)
    for uid in ("a", "b"):
        made.register(uid, RECORD)
    yield made
    made.close()


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
