"""Draining: this worker takes no frames, and hands over until it holds nothing alone.

Rounds (handover.py) do what is left, again and again; whoever asks sees how far it is, and what
stands in the way. It goes on afterwards, since jobs may still be registered here.

A worker that had drained and is started again is listed as gone by peers that have not heard of it
yet, and nobody looks there for frames. So it takes none before they have.

Once it has handed over what it had, it listens to owners no more: what it has heard its peers know
then, so that none of them has to count silence anew when it goes.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from crossdock_worker.handover import Handover, Report
from crossdock_worker.life import clock

if TYPE_CHECKING:
    from crossdock_worker.worker import Worker

log = structlog.get_logger()

_PAUSE_SECONDS: Final = 0.5
_DRAINED_PAUSE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.2
_ROUNDS: Final = 3
_AWAY: Final = {"unreachable", "gone"}
_ASKING_SECONDS: Final = 5.0
"""How long peers wait for an answer (membership.py)."""


class Drain:
    """Drains one worker. Lives on the event loop; the work is done in a thread of its own."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._task: asyncio.Task[None] | None = None
        self._report = Report()
        self._drained = asyncio.Event()
        self._stop = threading.Event()
        self._deaf = False
        self._mark = worker.settings.data_dir / "drained"
        """There while peers may list this worker as gone."""
        worker.admission.returning = self._mark.exists()

    @property
    def report(self) -> Report:
        """How far it is."""
        return self._report

    @property
    def hears(self) -> bool:
        """Whether an owner may be heard here that peers do not know of; once False, for good."""
        return not self._deaf

    @property
    def listens(self) -> bool:
        """Whether an owner's word counts here now."""
        return not (self._deaf or self._worker.admission.returning)

    def begin(self) -> None:
        """Take no frames any more, and begin to hand over. Idempotent."""
        self._worker.admission.draining = True
        if self._task is None:
            log.info("worker drains")
            self._task = asyncio.get_running_loop().create_task(self._run(), name="drain")

    async def come_back(self) -> None:
        """Take frames again once the peers have heard that this worker is there."""
        if not self._worker.admission.returning:
            return
        settings = self._worker.settings
        handover = Handover(self._worker, self._stop, self._tell)
        loop = asyncio.get_running_loop()
        # Who has not got through to it for so long does not reach those who look for frames either.
        began = clock()
        until = loop.time() + _ROUNDS * settings.peers_interval_seconds + _ASKING_SECONDS
        known = not settings.peers
        while not known and loop.time() < until:
            await asyncio.sleep(min(_LOOK_SECONDS, settings.peers_interval_seconds))
            met = any(peer.state not in _AWAY for peer in self._worker.membership)
            known = met and await loop.run_in_executor(None, handover.is_known_back)
        self._mark.unlink(missing_ok=True)
        self._worker.admission.returning = False
        now = clock()
        for job in self._worker.jobs:  # nobody is silent where nobody listens
            job.life.put_off(now - max(began, job.life.since))
        log.info("worker is back after a drain")

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
        if report.handed_over and not self._report.handed_over:
            self._write_mark()  # before anybody can hear of it
            self._deaf = True
        before, self._report = self._report, report
        if report.problems and report.problems != before.problems:
            log.warning("something stands in the way of the drain", problems=report.problems)
        if report.drained:
            if not self._drained.is_set():
                log.info("worker is drained")
            self._drained.set()

    def _write_mark(self) -> None:
        try:
            self._mark.touch()
        except OSError as error:
            log.warning("that this worker drained is not written down", problem=str(error))
