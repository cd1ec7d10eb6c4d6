"""Abandoned jobs that a worker deletes: what fails is tried again, and who spoke is left alone."""

import threading
from collections.abc import Callable, Iterator

import pytest

from crossdock.errors import Unavailable
from crossdock.lifecycle.facts import Facts, Stage
from crossdock.lifecycle.lease import Standing
from crossdock.lifecycle.words import Heard
from crossdock.records import Owner
from crossdock_worker import reaper as module
from crossdock_worker.life import Conditions
from crossdock_worker.reaper import Reaper

GONE = Standing(Owner.RUNNER, 1.0, 1.0, Heard(-1e6, -1e6), -1e6, Facts(0, Stage.LIVE))


class OneJob:
    """Jobs of which there is one, abandoned; its owner speaks as the test says."""

    def __init__(self) -> None:
        self.conditions = Conditions()
        self.spoke = False

    def standings(self) -> Iterator[tuple[str, Standing, float]]:
        yield "job", GONE, 0.0

    def abandon(self, _uid: str) -> bool:
        return not self.spoke

    def learn_ended(self, *_: object) -> None:
        """Nothing to keep."""


def made(delete: Callable[..., bool], jobs: OneJob) -> Reaper:
    return Reaper(jobs, rank=lambda: 0, delete=delete)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [Unavailable("away"), OSError("disk"), ValueError("a fault")])
@pytest.mark.parametrize("failures", [0, 5000])
def test_what_fails_is_tried_again_after_a_pause(
    error: Exception, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module, "clock", lambda: now[0])
    called = threading.Semaphore(0)

    def delete(*_: object) -> bool:
        called.release()
        raise error

    reaper = made(delete, OneJob())
    try:
        reaper._failures["job"] = failures
        reaper.look()
        assert called.acquire(timeout=30)
        reaper._threads.submit(lambda: None).result(30)
        while reaper._under_way:
            pass
        assert 0 < reaper._not_before["job"] - now[0] <= 300
        reaper.look()
        assert not called.acquire(blocking=False), "it waits"
        now[0] += 301
        reaper.look()
        assert called.acquire(timeout=30)
    finally:
        reaper.close()


def test_a_job_whose_owner_spoke_is_looked_at_again() -> None:
    jobs = OneJob()
    jobs.spoke = True
    deleted = threading.Event()

    def delete(*_: object) -> bool:
        deleted.set()
        return True

    reaper = made(delete, jobs)
    try:
        reaper.look()
        while reaper._under_way:
            pass
        assert not deleted.is_set()
        jobs.spoke = False
        reaper.look()
        assert deleted.wait(30)
    finally:
        reaper.close()
