"""Long work beside the reconciling: one attempt at a time, later after failures."""

import asyncio

import pytest

from crossdock.errors import Unavailable
from crossdock_operator.ending.attempts import Attempts
from crossdock_operator.records import Item, Key

ONE, TWO, OTHER = (Item("ShuffleJob", Key("data", name)) for name in ("one", "two", "other"))


class Scene:
    """Attempts whose work ends when a test says so."""

    def __init__(self, at_once: int = 8) -> None:
        self.woken: list[tuple[Item, float]] = []
        self.begun: list[str] = []
        self.gates: dict[str, asyncio.Future[int]] = {}
        self.attempts = Attempts[int](lambda item, s: self.woken.append((item, s)), at_once)

    def look(self, item: Item, tag: str = "t", group: str = "g") -> object:
        async def work() -> int:
            self.begun.append(f"{item.key.name} {tag}")
            gate = asyncio.get_running_loop().create_future()
            self.gates[item.key.name] = gate
            found: int = await gate
            return found

        return self.attempts.look(item, tag, work, group=group)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_work_is_begun_once_and_its_result_kept() -> None:
    scene = Scene()
    scene.look(ONE)
    await scene.settle()
    scene.look(ONE)
    await scene.settle()
    assert scene.begun == ["one t"]
    scene.gates["one"].set_result(7)
    await scene.settle()
    assert scene.woken == [(ONE, 0.0)]
    attempt = scene.look(ONE)
    assert attempt.result == 7  # type: ignore[attr-defined]
    await scene.settle()
    assert scene.begun == ["one t"]
    await scene.attempts.close()


@pytest.mark.usefixtures("own_clock")
async def test_a_failure_waits_and_is_told_until_one_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("crossdock_operator.ending.attempts.pause_seconds", lambda *_: 0.05)
    scene = Scene()
    scene.look(ONE)
    await scene.settle()
    scene.gates["one"].set_exception(Unavailable("away"))
    await scene.settle()
    attempt = scene.look(ONE)
    await scene.settle()
    assert str(attempt.problem) == "away"  # type: ignore[attr-defined]
    assert scene.begun == ["one t"], "not before its pause is over"
    (_, pause) = scene.woken[-1]
    assert 0 < pause <= 0.05
    await asyncio.sleep(0.06)
    attempt = scene.look(ONE)
    await scene.settle()
    assert scene.begun == ["one t", "one t"]
    assert str(attempt.problem) == "away", "told until it is over"  # type: ignore[attr-defined]
    await scene.attempts.close()


async def test_work_about_something_else_begins_anew() -> None:
    scene = Scene()
    scene.look(ONE, "first")
    await scene.settle()
    first = scene.gates["one"]
    scene.look(ONE, "second")
    await scene.settle()
    assert first.cancelled()
    assert scene.begun == ["one first", "one second"]
    await scene.attempts.close()


async def test_a_group_holds_up_no_other() -> None:
    scene = Scene(at_once=1)
    scene.look(ONE)
    scene.look(TWO)
    scene.look(OTHER, group="another")
    await scene.settle()
    assert scene.begun == ["one t", "other t"]
    scene.gates["one"].set_result(1)
    await scene.settle()
    assert scene.begun == ["one t", "other t", "two t"]
    await scene.attempts.close()


async def test_a_defect_is_a_failure_too() -> None:
    scene = Scene()
    scene.look(ONE)
    await scene.settle()
    scene.gates["one"].set_exception(KeyError("defect"))
    await scene.settle()
    attempt = scene.look(ONE)
    assert "KeyError" in str(attempt.problem)  # type: ignore[attr-defined]
    await scene.attempts.close()
