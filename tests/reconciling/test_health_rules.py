"""When the operator says that it does not work, and of what its metrics are made."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from crossdock_operator.calls import Call, call_of
from crossdock_operator.errors import ApiUnavailable, Stale
from crossdock_operator.health import LAG_SECONDS, STALLED_SECONDS, Pulse, Signs, problems
from crossdock_operator.leader import LeadershipLost
from crossdock_operator.metrics import Metrics
from crossdock_operator.queue import Queue
from crossdock_operator.records import Item, Key
from crossdock_operator.takers import Takers
from crossdock_operator.watches import DEAD_SECONDS, SILENT_SECONDS, WATCH_SECONDS, Watches

A, B = (Item("ShuffleJob", Key("data", name)) for name in "ab")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def signs(**found: Any) -> Signs:
    return Signs(**{"lag_seconds": 0.0, "stalled_seconds": 0.0, "watch_ages": {}} | found)


def test_each_sign_is_judged_alone() -> None:
    assert problems(signs(watch_ages={"secrets": DEAD_SECONDS})) == []
    assert "6.0 s late" in problems(signs(lag_seconds=LAG_SECONDS + 1))[0]
    assert "no work" in problems(signs(stalled_seconds=STALLED_SECONDS + 1))[0]
    ages = {"secrets": DEAD_SECONDS + 1, "services": 3.0}
    (problem,) = problems(signs(watch_ages=ages))
    assert "secrets" in problem


def test_a_watch_that_works_is_never_called_dead() -> None:
    """It is asked anew after its time, or after a silence; and a request has its time-out."""
    assert WATCH_SECONDS + SILENT_SECONDS + 60 < DEAD_SECONDS


async def test_the_pulse_tells_of_a_loop_that_is_held_up() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    beating = asyncio.create_task(pulse.beat())
    await asyncio.sleep(0)
    clock.now += 0.5
    assert pulse.lag_seconds == 0
    clock.now += 7
    assert pulse.lag_seconds == 7, "also while it does not beat"
    beating.cancel()


def test_queue_depth() -> None:
    clock = Clock()
    queue = Queue[str](clock)
    queue.add("now")
    queue.add("later", after_seconds=60)
    clock.now += 10
    depth = queue.depth()
    assert (depth.due, depth.later, depth.taken) == (1, 1, 0)
    assert (depth.oldest_seconds, depth.stalled_seconds) == (10, 10)


async def test_work_that_goes_on_is_not_stalled_however_much_waits() -> None:
    clock = Clock()
    queue = Queue[str](clock)
    for key in "abc":
        queue.add(key)
    clock.now += 10
    async with queue.taking():
        assert queue.depth().taken == 1
        clock.now += 5
        assert queue.depth().stalled_seconds == 5
        assert queue.depth().oldest_seconds == 15
    assert queue.depth().stalled_seconds == 0


def test_watches_are_complete_when_each_was_answered() -> None:
    clock, relisted = Clock(), []
    watches = Watches(
        ["secrets", "services"], ["x", "y"], clock=clock, relisted=lambda *a: relisted.append(a)
    )
    calls = [Call("watch", r, n) for r in ("secrets", "services") for n in ("x", "y")]
    for call in calls:
        assert not watches.complete
        watches.asked(Call("list", call.resource, call.namespace), 200)
        watches.asked(call, 503)
        watches.asked(call, 200)
    assert watches.complete
    assert relisted == []
    clock.now += 10
    for call in calls[:3]:
        watches.asked(call, 200)
    assert watches.ages() == {"secrets": 0, "services": 10}, "the oldest of all namespaces"
    watches.asked(Call("list", "secrets", "y"), 500)
    watches.asked(Call("list", "secrets", "y"), 200)
    assert relisted == [("secrets", "y")]
    clock.now += 10
    for call in calls:
        watches.asked(call, 0)
    assert watches.ages() == {"secrets": 0, "services": 0}, "in vain, but it lives"
    watches.asked(Call("list", "namespaces", ""), 200)
    assert set(watches.ages()) == {"secrets", "services"}


@pytest.mark.parametrize(
    ("method", "url", "call"),
    [
        ("GET", "/api/v1/namespaces/x/secrets", Call("list", "secrets", "x")),
        ("GET", "https://h:1/api/v1/secrets?watch=true&x=1", Call("watch", "secrets")),
        ("GET", "/api/v1/namespaces/x/secrets/y", Call("get", "secrets", "x")),
        ("GET", "/api/v1/namespaces", Call("list", "namespaces")),
        ("GET", "/api/v1/namespaces/x", Call("get", "namespaces")),
        ("PATCH", "/apis/a.b/v1/namespaces/x/jobs/y/status", Call("patch", "jobs/status", "x")),
        ("POST", "/api/v1/namespaces/x/pods/y/eviction", Call("create", "pods/eviction", "x")),
        ("PUT", "/apis/a.b/v1/namespaces/x/leases/y", Call("update", "leases", "x")),
        ("DELETE", "/apis/a.b/v1/namespaces/x/jobs/y", Call("delete", "jobs", "x")),
        ("GET", "/apis/apps/v1", Call("get", "discovery")),
        ("GET", "/api", Call("get", "discovery")),
        ("GET", "/version", Call("get", "discovery")),
    ],
)
def test_calls_in_the_words_of_roles(method: str, url: str, call: Call) -> None:
    assert call_of(method, url) == call


@dataclass
class Work:
    """Fails with what it is told, once each."""

    errors: list[Exception]
    done: list[Item] = field(default_factory=list)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def reconcile(self, item: Item) -> None:
        if item == A and self.errors:
            raise self.errors.pop()
        self.done.append(item)
        if {A, B} <= {*self.done}:
            self.idle.set()

    def knows(self, item: Item) -> bool:
        return item in {A, B}


class Leads:
    async def led(self) -> None:
        pass


def warm() -> asyncio.Event:
    found = asyncio.Event()
    found.set()
    return found


def outcomes(metrics: Metrics) -> dict[str, float]:
    samples = [s for family in metrics.registry.collect() for s in family.samples]
    name = "crossdock_operator_reconciles_total"
    return {s.labels["outcome"]: s.value for s in samples if s.name == name}


async def test_one_object_that_always_fails_does_not_stop_the_others() -> None:
    work = Work([KeyError("a fault"), ApiUnavailable("away"), Stale("late")])
    queue, metrics = Queue[Item](asyncio.get_running_loop().time, lambda: 0.0), Metrics()
    takers = Takers(work, queue, Leads(), metrics, warm())  # type: ignore[arg-type]
    queue.add(A)
    queue.add(B)
    taking = asyncio.create_task(takers.take())
    await asyncio.wait_for(work.idle.wait(), 60)
    await asyncio.sleep(0)  # so that the last look is over, too
    assert outcomes(metrics) == {"crashed": 1, "failed": 1, "stale": 1, "done": 2}
    assert queue.depth().later == 2, "each is looked at again in a while"
    taking.cancel()


async def test_a_taker_ends_when_another_leads() -> None:
    queue = Queue[Item](asyncio.get_running_loop().time)
    takers = Takers(Work([LeadershipLost("gone")]), queue, Leads(), Metrics(), warm())  # type: ignore[arg-type]
    queue.add(A)
    with pytest.raises(LeadershipLost):
        await asyncio.wait_for(takers.take(), 5)
