"""Draining: this worker takes no frames, and hands over until it holds nothing alone.

Rounds (handover.py) do what is left, again and again; whoever asks sees how far it is, and what
stands in the way. It goes on afterwards, since jobs may still be registered here.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from crossdock_worker.handover import Handover, Report

if TYPE_CHECKING:
    from crossdock_worker.worker import Worker

log = structlog.get_logger()

_PAUSE_SECONDS: Final = 0.5
_DRAINED_PAUSE_SECONDS: Final = 5.0


class Drain:
    """Drains one worker. Lives on the event loop; the work is done in a thread of its own."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._task: asyncio.Task[None] | None = None
        self._report = Report()
        self._drained = asyncio.Event()
        self._stop = threading.Event()

    @property
    def report(self) -> Report:
        """How far it is."""
        return self._report

    def begin(self) -> None:
        """Take no frames any more, and begin to hand over. Idempotent."""
        self._worker.admission.draining = True
        if self._task is None:
            log.info("worker drains")
            self._task = asyncio.get_running_loop().create_task(self._run(), name="drain")

    async def finished(self) -> None:
        """Wait until the worker can be deleted."""
        await self._drained.wait()

    async def close(self) -> None:
        """End it where it is, within a request or so."""
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        handover = Handover(self._worker, self._stop, self._tell)
        thread = ThreadPoolExecutor(1, thread_name_prefix="drain")
        try:
            while True:
                # Before the round: what is received during it may not have been seen by it.
                receiving = self._worker.admission.inflight_bytes > 0
                report = await loop.run_in_executor(thread, handover.round)
                done = report.handed_over and not receiving
                drained = done and self._report.drained
                # Peers hear of it by what this worker says of itself, so it says so first.
                self._tell(replace(report, handed_over=done, drained=drained))
                if done and not drained:
                    drained = await loop.run_in_executor(thread, handover.is_known)
                    self._tell(replace(self._report, drained=drained))
                await asyncio.sleep(_DRAINED_PAUSE_SECONDS if drained else _PAUSE_SECONDS)
        finally:
            thread.shutdown(wait=False)

    def _tell(self, report: Report) -> None:
        """Note how far it is; called from the thread too."""
        before, self._report = self._report, report
        if report.problems and report.problems != before.problems:
            log.warning("something stands in the way of the drain", problems=report.problems)
        if report.drained:
            if not self._drained.is_set():
                log.info("worker is drained")
            self._drained.set()
