"""How long jobs that were ended are remembered, and that all workers forget them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crossdock.gossip import Told
from crossdock.lifecycle.facts import Facts, Stage
from crossdock.records import JobRecord, Owner
from crossdock_worker import running, tombstones
from crossdock_worker.jobs import Jobs
from crossdock_worker.running import RunningTime
from crossdock_worker.tombstones import KEPT_SECONDS, UNPROVED_KEPT_SECONDS, Tombstones
from crossdock_worker.trash import Trash

DAY = 86_400.0
MONTH, WEEK = UNPROVED_KEPT_SECONDS, KEPT_SECONDS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time of the process, to be set."""
    now = [5000.0]
    for module in (running, tombstones):
        monkeypatch.setattr(module, "clock", lambda: now[0])
    return now


@pytest.fixture
def start(tmp_path: Path) -> Callable[[], Tombstones]:
    def begin() -> Tombstones:
        ran = RunningTime(tmp_path / "ran-seconds")
        return Tombstones(tmp_path / "tombstones", Trash(tmp_path / "trash"), ran)

    return begin


@pytest.mark.parametrize(
    ("stage", "owner", "age", "stays"),
    [
        (Stage.CLEAN, Owner.RUNNER, WEEK - 60, True),
        (Stage.CLEAN, Owner.RUNNER, WEEK + 60, False),
        (Stage.FENCED, None, WEEK + 60, True),
        (Stage.FENCED, None, MONTH - 60, True),
        (Stage.FENCED, None, MONTH + 60, False),
        (Stage.FENCED, Owner.CLUSTER, MONTH + 60, False),
        (Stage.FENCED, Owner.DRIVER, 100 * MONTH, True),
    ],
)
def test_what_nobody_will_prove_is_forgotten_after_a_month(
    start: Callable[[], Tombstones],
    clock: list[float],
    tmp_path: Path,
    stage: Stage,
    owner: Owner | None,
    *,
    age: float,
    stays: bool,
) -> None:
    """An audit fences jobs of which no worker knows whose they were."""
    record = None if owner is None else JobRecord(owner=owner, lease_seconds=60, grace_seconds=300)
    stones = start()
    stones.bury("job", Facts(0, stage), record, stored=False)
    clock[0] += age / 2
    stones.keep_time()
    clock[0] = 17  # the machine has started anew, and was off for who knows how long
    stones = start()
    clock[0] += age / 2
    assert (stones.forget_old() == []) is stays
    assert (tmp_path / "tombstones" / "job.json").exists() is stays
    assert ("job" in stones) is stays


def test_the_clock_of_the_day_forgets_nothing(
    start: Callable[[], Tombstones], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stones = start()
    stones.bury("job", Facts(0, Stage.CLEAN), None, stored=False)
    monkeypatch.setattr("time.time", lambda: 4e9)
    clock[0] += 60
    assert stones.forget_old() == start().forget_old() == []


def test_a_tombstone_of_an_earlier_version_is_as_old_as_the_upgrade(
    start: Callable[[], Tombstones], clock: list[float], tmp_path: Path
) -> None:
    """It has a time of day. One that is damaged stays."""
    (tmp_path / "tombstones").mkdir()
    earlier = {"epoch": 0, "stage": "clean", "record": None, "fenced_at": 1.0, "stored": False}
    (tmp_path / "tombstones" / "earlier.json").write_text(json.dumps(earlier))
    (tmp_path / "tombstones" / "damaged.json").write_text("{")
    for days, forgotten in ((4, []), (2, []), (2, ["earlier"])):
        stones = start()
        clock[0] += days * DAY
        assert stones.forget_old() == forgotten


def tell(one: Jobs, other: Jobs, *, ages: bool) -> None:
    """Let one worker hear what the other knows, as when it starts."""
    for stone in other.tombstones:
        data = other.told(stone.uid).to_json()  # type: ignore[union-attr]
        assert data["fenced_seconds"] >= 0  # type: ignore[operator]
        if not ages:
            del data["fenced_seconds"]
        told = Told.from_json(data)
        one.learn_ended(told.uid, told.facts, told.record, told.fenced_seconds)


@pytest.mark.parametrize("ages", [True, False])
def test_a_fleet_whose_disks_are_replaced_now_and_then_forgets_all_the_same(
    tmp_path: Path, clock: list[float], *, ages: bool
) -> None:
    """What a new worker learns is as old as it was; peers of older versions do not say how old."""

    def begin(number: int) -> Jobs:
        return Jobs(tmp_path / f"disk-{number}", max_shuffles=1)

    (tmp_path / "disk-0").mkdir()
    (tmp_path / "disk-1").mkdir()
    fleet = [begin(0), begin(1)]
    for jobs in fleet:
        jobs.learn_ended("job", Facts(0, Stage.CLEAN), None)
    for day in range(20):
        clock[0] += DAY
        for jobs in fleet:
            jobs.forget_old()
        if day % 3 == 2:
            fleet.pop(0).close()
            number = day + 2
            (tmp_path / f"disk-{number}").mkdir()
            fleet.append(begin(number))
            tell(fleet[1], fleet[0], ages=ages)
    assert any("job" in jobs.tombstones for jobs in fleet) is not ages


def test_the_longest_time_holds_and_is_no_news(tmp_path: Path, clock: list[float]) -> None:
    jobs = Jobs(tmp_path, max_shuffles=1)
    clean = Facts(0, Stage.CLEAN)
    assert jobs.learn_ended("job", clean, None, 2 * DAY)
    version = jobs.changes.since(0)[1]

    def age() -> float:
        return jobs.told("job").fenced_seconds  # type: ignore[union-attr]

    for told, known in ((DAY, 2 * DAY), (2 * DAY + 60, 2 * DAY), (3 * DAY, 3 * DAY)):
        assert not jobs.learn_ended("job", clean, None, told)
        assert age() == pytest.approx(known)
    assert jobs.changes.since(0)[1] == version
    jobs.close()
    jobs = Jobs(tmp_path, max_shuffles=1)
    assert age() == pytest.approx(3 * DAY)
    assert not jobs.learn_ended("job", clean, None, float("inf"))
    jobs.forget_old()
    assert not jobs.tombstones.get("job")
