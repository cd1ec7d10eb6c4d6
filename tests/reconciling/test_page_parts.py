"""What the page decides without an API server: who is remembered for how long, and what is news."""

import asyncio
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from crossdock.errors import Overloaded, Unauthenticated, Unavailable
from crossdock_operator.errors import ApiUnavailable, NotAllowed
from crossdock_operator.kinds import TOKEN_REVIEW, Kind
from crossdock_operator.page.asking import summed
from crossdock_operator.page.histogram import MOST_BINS, histogram
from crossdock_operator.page.picture import Gallery, Sight
from crossdock_operator.page.reviews import (
    MOST_TOKENS,
    MOST_WAITING,
    REVIEW_SECONDS,
    STRANGERS_AT_ONCE,
    Reviews,
)
from crossdock_operator.plan.advice import wrong
from crossdock_operator.store import Store


class Api:
    """Answers reviews as it is told to, and counts them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.allowed = {"data"}
        self.asked: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.taken: set[str] = set()
        self.held = asyncio.Event()
        self.held.set()
        self.reviews = Reviews(self, clock=lambda: self.now)  # type: ignore[arg-type]

    async def review(self, kind: Kind, spec: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if kind == TOKEN_REVIEW:
            self.asked.append(("who", spec["token"]))
            known = spec["token"].startswith("good") or spec["token"] in self.taken
            if not known:
                await self.held.wait()
            return {"authenticated": known, "user": {"username": spec["token"], "groups": ["g"]}}
        namespace = spec["resourceAttributes"].get("namespace", "")
        self.asked.append((spec["user"], namespace))
        return {"allowed": namespace in self.allowed}

    async def sees(self, who: str = "good") -> frozenset[str]:
        viewer = await self.reviews.viewer(who)
        return await self.reviews.permitted(viewer, ["data", "other"])


async def test_an_answer_holds_for_a_while_and_no_longer() -> None:
    api = Api()
    assert await api.sees() == {"data"}
    count = len(api.asked)
    api.now = REVIEW_SECONDS - 1
    api.allowed = {"other"}
    assert await api.sees() == {"data"}
    assert len(api.asked) == count
    api.now = REVIEW_SECONDS
    assert await api.sees() == {"other"}
    assert len(api.asked) == 2 * count


async def test_who_may_look_everywhere_is_asked_for_once() -> None:
    api = Api()
    api.allowed = {""}
    assert await api.sees() == {"data", "other"}
    assert api.asked == [("who", "good"), ("good", "")]


async def test_many_who_come_at_once_are_asked_for_once() -> None:
    api = Api()
    found = await asyncio.gather(*(api.sees() for _ in range(50)))
    assert set(found) == {frozenset({"data"})}
    assert len(api.asked) == 4


async def test_a_token_that_is_not_taken_is_remembered_too_and_memory_is_bounded() -> None:
    api = Api()
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await api.sees("bad")
    assert api.asked == [("who", "bad")]
    for n in range(MOST_TOKENS):
        with pytest.raises(Unauthenticated):
            await api.reviews.viewer(f"bad-{n}")
    with pytest.raises(Unauthenticated):
        await api.reviews.viewer("bad")
    assert api.asked.count(("who", "bad")) == 2, "the first one was forgotten for the others"


async def test_a_viewer_of_many_namespaces_is_not_too_many_viewers() -> None:
    api = Api()
    every = [f"team-{n}" for n in range(2 * MOST_WAITING)]
    api.allowed = set(every[::2])
    viewer = await api.reviews.viewer("good")
    assert await api.reviews.permitted(viewer, every) == api.allowed
    tokens = (api.reviews.viewer(f"good-{n}") for n in range(2 * MOST_WAITING))
    found = await asyncio.gather(*tokens, return_exceptions=True)
    assert sum(isinstance(each, Overloaded) for each in found) == MOST_WAITING


async def test_who_was_let_in_does_not_wait_behind_what_anybody_sends() -> None:
    """However many tokens are tried, and however long the API server takes for them."""
    api = Api()
    assert await api.sees() == {"data"}
    api.held.clear()
    tried = [asyncio.ensure_future(api.reviews.viewer(f"bad-{n}")) for n in range(2 * MOST_WAITING)]
    await asyncio.sleep(0)
    api.now = REVIEW_SECONDS
    async with asyncio.timeout(60):
        assert await api.sees() == {"data"}
    asked = [who for who in api.asked if who[1].startswith("bad")]
    assert len(asked) <= STRANGERS_AT_ONCE, "nor has the API server much to do with them"
    api.held.set()
    found = await asyncio.gather(*tried, return_exceptions=True)
    assert {type(each) for each in found} == {Unauthenticated, Overloaded}


async def test_a_token_that_is_not_taken_any_more_is_a_strangers() -> None:
    api = Api()
    api.taken = {"turned"}
    assert (await api.reviews.viewer("turned")).name == "turned"
    api.taken, api.now = set(), REVIEW_SECONDS
    with pytest.raises(Unauthenticated):
        await api.reviews.viewer("turned")
    api.now = 2 * REVIEW_SECONDS
    api.held.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await asyncio.gather(*(api.reviews.viewer(each) for each in ("b", "c", "turned")))
    assert ("who", "turned") not in api.asked[-STRANGERS_AT_ONCE:]


async def test_what_cannot_be_found_out_is_neither_yes_nor_no() -> None:
    api = Api()
    for error, said in ((ApiUnavailable("away"), "does not answer"), (NotAllowed("no"), "may not")):
        api.error = error
        with pytest.raises(Unavailable, match=said):
            await api.sees()
    api.error = None
    assert await api.sees() == {"data"}, "it is asked again at once"


def job(name: str, version: int, namespace: str = "data", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": namespace, "name": name, "uid": f"{namespace}-{name}", "generation": 1,
            "resourceVersion": str(version), "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {}, "status": status,
    }  # fmt: skip


def test_a_viewer_is_told_all_and_then_what_is_new() -> None:
    store, sight = Store(), Sight()
    gallery = Gallery(store)
    store.saw_job(job("one", 1, phase="Ready"))
    store.saw_job(job("two", 2))
    store.saw_job(job("hidden", 3, "other"))
    data = frozenset({"data"})

    def told() -> tuple[list[str], list[list[str]]] | None:
        news = sight.look(gallery, data)
        return None if news is None else ([j["name"] for j in news["jobs"]], news["gone"])

    assert told() == (["one", "two"], [])
    assert told() is None
    store.saw_job(job("hidden", 4, "other", phase="Ready"))
    assert told() is None, "nothing of what may be seen"
    store.saw_job(job("two", 5, phase="Ready"))
    assert told() == (["two"], [])
    store.saw_job(job("one", 6), deleted=True)
    assert told() == ([], [["ShuffleJob", "data", "one"]])
    data = frozenset()
    assert told() == ([], [["ShuffleJob", "data", "two"]]), "a right was taken away"


def test_a_change_is_pictured_once_for_all_viewers() -> None:
    store = Store()
    gallery = Gallery(store)
    for n in range(3):
        store.saw_job(job(f"job-{n}", n + 1))
    viewers = [Sight() for _ in range(3)]
    everything = frozenset({"data"})

    def told() -> list[list[dict[str, Any]]]:
        return [(viewer.look(gallery, everything) or {}).get("jobs", []) for viewer in viewers]

    first, *others = told()
    assert [each["name"] for each in first] == ["job-0", "job-1", "job-2"]
    for other in others:
        assert all(mine is theirs for mine, theirs in zip(first, other, strict=True))
    store.saw_job(job("job-1", 9, phase="Ready"))
    one, *rest = told()
    assert [each["phase"] for each in one] == ["Ready"]
    assert all(each[0] is one[0] for each in rest)
    late = Sight().look(gallery, everything)
    assert late is not None
    assert late["jobs"][0] is first[0], "what did not change is as it was"


def test_nobody_who_sees_nothing_waits_for_the_first_word() -> None:
    assert Sight().look(Gallery(Store()), frozenset()) == {"clusters": [], "jobs": [], "gone": []}


@pytest.mark.parametrize("seed", range(20))
def test_each_partition_is_in_one_bin(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 500))
    sizes = random.integers(0, int(random.choice([1, 2, 30, 2**40])), count).astype(np.uint64)
    found = histogram(sizes)
    bins = found["bins"]
    assert sum(each["count"] for each in bins) == count, f"seed {seed}"
    assert len(bins) <= MOST_BINS
    assert (bins[0]["from"], bins[-1]["to"]) == (found["smallest"], found["largest"])
    assert found["bytes"] == int(sizes.sum())


def test_what_workers_say_of_a_job_is_added_up() -> None:
    shuffle = {"name": "s", "generation": 0, "partitions": 4, "disk_bytes": 5, "freed_bytes": 1}
    store = {"stored_bytes": 7, "requests": 3, "writes": 2, "dollars": 0.5,
             "verbs": {"PUT": {"ok": 2}, "LIST": {"ok": 1}}}  # fmt: skip
    said = {"disk_bytes": 10, "store": store, "shuffles": [shuffle]}
    found = summed([said, said])
    assert (found["disk_bytes"], found["requests"], found["dollars"]) == (20, 6, 1.0)
    assert found["verbs"] == {"PUT": {"ok": 4}, "LIST": {"ok": 2}}
    assert found["shuffles"] == [{**shuffle, "disk_bytes": 10, "freed_bytes": 2}]


def test_what_is_wrong_is_told_once_and_what_is_asked_for_is_not() -> None:
    def reasons(*conditions: tuple[str, str, str]) -> list[str]:
        listed = [{"type": t, "status": s, "reason": r} for t, s, r in conditions]
        found = wrong("ShuffleCluster", "data", "main", {"conditions": listed})
        return [each.reason for each in found]

    assert reasons(("Available", "True", "WorkersReady"), ("Degraded", "False", "AsWanted")) == []
    assert reasons(("Available", "False", "ScaledToZero")) == []
    assert reasons(("StorageClean", "Unknown", "NotChecked")) == []
    assert reasons(
        ("Available", "False", "NoWorkersReady"), ("Degraded", "True", "WorkersNotReady")
    ) == ["NoWorkersReady"]
    assert reasons(("Degraded", "True", "WorkersNotReady")) == ["WorkersNotReady"]
    assert reasons(("StoreReachable", "True", "NoLifecycleRule")) == ["NoLifecycleRule"]
    assert wrong("ShuffleJob", "data", "main", {}) == []


def test_the_plugin_loads_nothing_that_only_the_operator_needs() -> None:
    heavy = "{'kopf', 'boto3', 'pyarrow', 'prometheus_client'}"
    code = f"import sys, crossdock_operator.kubectl.cli; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
