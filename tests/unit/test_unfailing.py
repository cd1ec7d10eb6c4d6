"""A part of a worker that fails begins anew, and the others go on."""

import asyncio

import pytest

from crossdock_worker import worker as module


def test_a_fault_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANEW_SECONDS", 0.0)
    calls: list[str] = []

    async def part() -> None:
        calls.append("begun")
        if len(calls) < 3:
            raise OverflowError

    asyncio.run(module._unfailing(part))
    assert len(calls) == 3
