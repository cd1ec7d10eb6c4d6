"""The queue of keys: each once, none lost, pauses that grow."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock_operator.queue import FIRST_SECONDS, MOST_SECONDS, Queue, pause_seconds

waits = pytest.mark.usefixtures("own_clock")


def queue(jitter: Callable[[], float] = lambda: 0.0) -> Queue[str]:
    return Queue(asyncio.get_running_loop().time, jitter)


async def take(found: Queue[str], *, fail: bool = False, news: bool = False) -> str:
    async with asyncio.timeout(5), found.taking() as key:
        if news:
            found.add(key)
        if fail:
            raise ValueError(key)
    return key


@waits
async def test_a_key_is_there_once() -> None:
    found = queue()
    for _ in range(3):
        found.add("a")
    found.add("b")
    assert [await take(found), await take(found)] == ["a", "b"]
    assert len(found) == 0


@waits
async def test_the_soonest_comes_first_and_sooner_wins() -> None:
    found = queue()
    found.add("late", after_seconds=0.2)
    found.add("late", after_seconds=60)
    found.add("moved", after_seconds=60)
    found.add("moved", after_seconds=0.1)
    assert [await take(found), await take(found)] == ["moved", "late"]
    assert len(found) == 0


@waits
async def test_news_while_it_is_worked_on_are_not_lost_and_not_at_once() -> None:
    found = queue()
    found.add("a")
    async with found.taking() as key:
        found.add("a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), found.taking():
                pass
    assert key == await take(found) == "a"


@waits
async def test_failures_wait_longer_until_one_succeeds() -> None:
    found = queue()
    loop = asyncio.get_running_loop()
    found.add("a")
    pauses = []
    for _ in range(3):
        before = loop.time()
        with pytest.raises(ValueError, match="a"):
            await take(found, fail=True)
        pauses.append(loop.time() - before)
    assert pauses[0] < pauses[1] < pauses[2]
    assert pauses[1] >= FIRST_SECONDS / 2
    await take(found)
    found.add("a")
    with pytest.raises(ValueError, match="a"):
        await take(found, fail=True)
    assert await asyncio.wait_for(take(found), 2 * FIRST_SECONDS) == "a", "it begins anew"


@waits
async def test_news_do_not_wait_for_the_pause_of_a_failure() -> None:
    found = queue(lambda: 1.0)
    found.add("a")
    with pytest.raises(ValueError, match="a"):
        await take(found, fail=True)
    found.add("a")
    assert await asyncio.wait_for(take(found), FIRST_SECONDS / 2) == "a"


@waits
async def test_news_during_work_that_fails_come_at_once() -> None:
    found = queue(lambda: 1.0)
    found.add("a")
    with pytest.raises(ValueError, match="a"):
        await take(found, fail=True, news=True)
    assert await asyncio.wait_for(take(found), FIRST_SECONDS / 2) == "a"


@waits
async def test_a_taker_that_is_cancelled_loses_nothing_of_others() -> None:
    found = queue()
    waiting = asyncio.create_task(take(found))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    found.add("a")
    assert await take(found) == "a"


@waits
async def test_all_takers_get_something() -> None:
    found = queue()
    takers = [asyncio.create_task(take(found)) for _ in range(4)]
    await asyncio.sleep(0)
    for key in "abcd":
        found.add(key)
    assert set(await asyncio.gather(*takers)) == set("abcd")


@waits
async def test_what_is_forgotten_does_not_come() -> None:
    found = queue()
    found.add("a")
    found.add("b")
    found.forget("a")
    assert await take(found) == "b"
    assert len(found) == 0


@waits
async def test_of_those_that_are_due_the_urgent_ones_come_first() -> None:
    found = Queue[str](asyncio.get_running_loop().time, rank=lambda key: key.islower())
    for key in "abC":
        found.add(key)
    found.add("D", after_seconds=0.1)
    assert [await take(found) for _ in "Ca"] == ["C", "a"]
    await asyncio.sleep(0.1)  # what is due by now is the point
    found.add("b")
    assert [await take(found) for _ in "Db"] == ["D", "b"]


@waits
async def test_one_that_was_due_may_be_forgotten_and_come_back() -> None:
    found = queue()
    found.add("a")
    found.add("b")
    assert await take(found) == "a", "and both were sorted out"
    found.forget("b")
    found.add("b", after_seconds=60)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(take(found), 0.05)
    found.add("b")
    assert await take(found) == "b"


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_pauses_are_bounded(failures: int, jitter: float) -> None:
    assert FIRST_SECONDS / 2 <= pause_seconds(failures, jitter) <= MOST_SECONDS
