"""A frame that is cancelled holds its range for as long as a thread may still write to it."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import cast

import pytest
from aiohttp import web

from crossdock_worker.ingest import FrameReceiver, FrameSink
from crossdock_worker.patience import Patience


class SlowSink:
    """Stands for a sink on a disk that takes its time."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.goes_on = threading.Event()
        self.events: list[str] = []

    def _slow(self, what: str) -> None:
        self.begun.set()
        assert self.goes_on.wait(60)
        self.events.append(what)

    def feed(self, _data: memoryview) -> None:
        self._slow("fed")

    def finish(self) -> bool:
        return True

    def close(self) -> None:
        self.events.append("closed")


class Body:
    """Stands for a request of which more and more comes, or nothing more."""

    def __init__(self, data: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.content = self
        self._data = data

    async def readany(self) -> bytes:
        data, self._data = self._data, b""
        if not data:
            await asyncio.Event().wait()
        return data

    def at_eof(self) -> bool:
        return not self._data


@pytest.mark.parametrize("cancels", [1, 2])
def test_a_cancelled_frame_waits_for_its_thread(cancels: int) -> None:
    sink = SlowSink()

    async def scenario(pool: ThreadPoolExecutor) -> None:
        receiver = FrameReceiver(cast("FrameSink", sink), pool=pool, patience=Patience(20, 0))

        async def take() -> None:
            try:
                await receiver.receive(cast("web.Request", Body(bytes(2**20))), None)
            finally:
                await receiver.close()

        task = asyncio.create_task(take())
        await asyncio.to_thread(sink.begun.wait, 60)
        for _ in range(cancels):
            task.cancel()
            await asyncio.wait([task], timeout=0.05)
        assert sink.events == []
        sink.goes_on.set()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 60)

    with ThreadPoolExecutor(2) as pool:
        try:
            asyncio.run(scenario(pool))
        finally:
            sink.goes_on.set()
    assert sink.events == ["fed", "closed"]
