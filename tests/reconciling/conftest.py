"""A clock for what waits: it goes on when there is nothing to do, and at no other time."""

import asyncio
import selectors
from collections.abc import AsyncIterator

import pytest


@pytest.fixture
async def own_clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let a test's event loop wait for no time, however slow the machine is."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    selector: selectors.BaseSelector = loop._selector  # type: ignore[attr-defined]
    ready = selector.select

    def select(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        nonlocal now
        found = ready(timeout if timeout is None else 0)
        if timeout and not found:
            now += timeout
        return found

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(selector, "select", select)
    yield
    monkeypatch.undo()
