"""Room for answers in memory: waited for in turn, refused in the end, always given back."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from crossdock.errors import Overloaded
from crossdock_worker import admission
from crossdock_worker.admission import Admission
from crossdock_worker.settings import Limits

MIB = 2**20


def room_for(bytes_: int, tmp_path: Path) -> Admission:
    limits = Limits(max_frame_bytes=bytes_, max_inflight_bytes=bytes_, max_read_bytes=bytes_)
    return Admission(limits, tmp_path, own_bytes=lambda: 0)


def test_answers_wait_for_room_and_get_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        room = room_for(100, tmp_path)
        order = []

        async def answer(name: str, size: int) -> None:
            async with room.answer(size):
                order.append(name)

        async with AsyncExitStack() as held:
            await held.enter_async_context(room.answer(60))
            await held.enter_async_context(room.answer(40))
            waiting = [
                asyncio.create_task(answer("small", 1)),
                asyncio.create_task(answer("b", 50)),
            ]
            done, _ = await asyncio.wait(waiting, timeout=0.05)
            assert not done
            assert order == []
        await asyncio.wait_for(asyncio.gather(*waiting), 60)
        assert sorted(order) == ["b", "small"]

    asyncio.run(scenario())


def test_room_that_fits_several_wakes_them_all(tmp_path: Path) -> None:
    async def scenario() -> None:
        room = room_for(100, tmp_path)
        together = asyncio.Barrier(3)

        async def answer() -> None:
            async with room.answer(30):
                await together.wait()

        async with room.answer(100):
            waiting = [asyncio.create_task(answer()) for _ in range(3)]
            await asyncio.wait(waiting, timeout=0.05)
        await asyncio.wait_for(asyncio.gather(*waiting), 60)

    asyncio.run(scenario())


def test_an_answer_larger_than_all_room_takes_all_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        room = room_for(100, tmp_path)
        for _ in range(3):
            async with asyncio.timeout(60), room.answer(1000):
                pass

    asyncio.run(scenario())


def test_an_answer_without_room_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_READ_WAIT_SECONDS", 0.01)

    async def scenario() -> None:
        room = room_for(100, tmp_path)
        async with room.answer(60):
            with pytest.raises(Overloaded):
                await room.answer(41).__aenter__()
            async with room.answer(40):
                pass
        async with room.answer(100):  # who was refused holds nothing
            pass

    asyncio.run(scenario())


def test_bodies_fill_the_room_exactly(tmp_path: Path) -> None:
    room = room_for(MIB, tmp_path)
    with room.frame(MIB):
        assert room.inflight_bytes == MIB
        with room.body(64 * 1024):  # small ones need no room
            assert room.inflight_bytes == MIB
        with pytest.raises(Overloaded), room.frame(1):
            pass
    with room.body(MIB - 1), room.frame(1), pytest.raises(Overloaded), room.body(64 * 1024 + 1):
        pass
    assert room.inflight_bytes == 0
