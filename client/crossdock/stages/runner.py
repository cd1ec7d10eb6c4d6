"""The loop around the machine: takes events, saves the checkpoint, sees to the actions."""

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

from crossdock.errors import CrossdockError
from crossdock.jobfile.model import ShuffleJob, Stage
from crossdock.stages.actions import Actions
from crossdock.stages.backend import Backend, TaskProcess
from crossdock.stages.events import (
    Action,
    Answer,
    Ask,
    Broken,
    CheckInputs,
    Event,
    Finish,
    Kill,
    Observe,
    Plan,
    Record,
    Start,
    Stop,
    TaskEnded,
    TaskId,
)
from crossdock.stages.machine import Machine
from crossdock.stages.progress import JobProgress, StageProgress
from crossdock.stages.rules import rules_of
from crossdock.stages.rundir import RunDirectory
from crossdock.stages.states import Checkpoint

_ACTION_THREADS: Final = 4
_CHECKPOINT: Final = "checkpoint.json"
_REFRESH_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended."""

    failure: str | None
    task: TaskId | None
    progress: JobProgress


class Launcher(Protocol):
    """Says how a task is run as a process."""

    def __call__(self, stage: Stage, task: TaskId) -> TaskProcess: ...


class StageRunner:
    """Runs one job once. `stop` may be called from any thread, or a signal handler."""

    def __init__(
        self,
        job: ShuffleJob,
        *,
        actions: Actions,
        run: RunDirectory,
        epoch: int,
        launch: Launcher,
        on_progress: Callable[[JobProgress], None],
        on_failure: Callable[[TaskId, str], None],
        cancel: Callable[[], None],
    ) -> None:
        """Go on from what `run` has of an earlier runner.

        `on_failure` is told of each try that failed, and why, while the job goes on.
        `cancel` ends what actions still have under way when the job is over.
        """
        self._cancel = cancel
        self._pool = ThreadPoolExecutor(_ACTION_THREADS, thread_name_prefix="crossdock-stage")
        self._looking: Future[None] | None = None
        self._job = job
        self._actions = actions
        self._run = run
        self._launch = launch
        self._on_progress = on_progress
        self._on_failure = on_failure
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._began = time.monotonic()
        limit = job.active_deadline_seconds
        self._deadline = None if limit is None else self._began + limit
        self._saved: object = None
        self._spans: dict[str, tuple[float, float | None]] = {}
        kept = _read_checkpoint(run)
        self._machine = Machine(rules_of(job), epoch=epoch, checkpoint=kept)
        for name, stage in kept.stages.items():
            if stage.winners is not None:
                actions.restore(name, stage.winners)

    def post(self, event: TaskEnded) -> None:
        """Tell that a task has ended; from any thread."""
        if event.failure is None:
            self._events.put(event)
            return
        with suppress(RuntimeError):  # the job is over: nobody asks any more
            self._pool.submit(self._settle, event)

    def _settle(self, event: TaskEnded) -> None:
        """Tell of a failure when the workers are there: till then another try would fail too."""
        with suppress(CrossdockError):
            self._actions.introduce()
        self._events.put(event)

    def stop(self, reason: str) -> None:
        """End the job."""
        self._events.put(Stop(reason))

    def run(self, backend: Backend) -> Outcome:
        """Run the job to its end; tasks that still run are left to the backend's `close`."""
        with self._pool:
            try:
                return self._loop(backend)
            finally:
                self._cancel()

    def _loop(self, backend: Backend) -> Outcome:
        actions = self._machine.begin()
        while True:
            self._save()
            for action in actions:
                if isinstance(action, Finish):
                    progress = self.progress(backend)
                    self._on_progress(progress)
                    return Outcome(failure=action.failure, task=action.task, progress=progress)
                self._do(action, backend)
            event = self._next(backend)
            counts = isinstance(event, TaskEnded) and self._machine.runs(event.task)
            actions = self._machine.handle(event)
            if isinstance(event, TaskEnded) and event.failure is not None and counts:
                self._report(event.task, event.failure)

    def _report(self, task: TaskId, why: str) -> None:
        if self._machine.finished is None:  # else it is told how the job ended
            self._on_failure(task, why)

    def _next(self, backend: Backend) -> Event:
        while True:
            if self._deadline is not None and time.monotonic() > self._deadline:
                return Stop(f"not done within {self._job.active_deadline_seconds:g} s")
            try:
                return self._events.get(timeout=_REFRESH_SECONDS)
            except queue.Empty:
                if self._looking is None or self._looking.done():
                    self._looking = self._pool.submit(self._actions.look)
                self._on_progress(self.progress(backend))

    def _do(self, action: Action, backend: Backend) -> None:
        match action:
            case Start(task):
                backend.start(self._launch(self._job.stage(task.stage), task))
            case Kill(task):
                backend.kill(task)
            case Plan() | CheckInputs() | Observe() | Record():
                self._pool.submit(self._act, action, self._job.stage(action.stage))
            case Finish():
                raise AssertionError("handled by the loop")

    def _act(self, action: Ask, stage: Stage) -> None:
        event: Answer
        try:
            event = self._answer(action, stage)
        except (CrossdockError, OSError) as error:
            event = Broken(stage.name, str(error))
        except Exception as error:  # noqa: BLE001 -- or nobody would hear of it, and all would wait
            event = Broken(stage.name, f"a fault of crossdock: {error!r}")
        self._events.put(replace(event, ask=action.ask))

    def _answer(self, action: Ask, stage: Stage) -> Answer:
        match action:
            case Plan():
                answer = self._actions.plan(stage)
                self._spans.setdefault(stage.name, (time.monotonic(), None))
                return answer
            case CheckInputs():
                return self._actions.check_inputs(stage)
            case Observe():
                return self._actions.observe(stage, since=action.since)
            case Record():
                answer = self._actions.record(stage, action.winners)
                began, _ = self._spans.get(stage.name, (self._began, None))
                self._spans[stage.name] = (began, time.monotonic())
                return answer

    # -- what survives -----------------------------------------------------------------------

    def _save(self) -> None:
        value = self._machine.checkpoint().to_json()
        if value != self._saved:
            self._run.write(_CHECKPOINT, value)
            self._saved = value

    # -- progress ----------------------------------------------------------------------------

    def progress(self, backend: Backend) -> JobProgress:
        """Return how far the job has come."""
        now = time.monotonic()
        held = self._actions.held
        stages = []
        for name, state in self._machine.stages.items():
            facts = self._actions.facts[name]
            began, ended = self._spans.get(name, (now, None))
            stages.append(
                StageProgress(
                    name=name,
                    phase=state.phase.value,
                    tasks=len(state.tasks),
                    done=len(state.winners),
                    running=backend.running(name),
                    attempts=state.attempts,
                    bytes_in=facts.bytes_in,
                    bytes_out=facts.bytes_out or held.get(name, 0),
                    partitions=facts.partitions,
                    largest_bytes=facts.largest_bytes,
                    median_bytes=facts.median_bytes,
                    seconds=(ended or now) - began,
                )
            )
        return JobProgress(name=self._job.name, stages=tuple(stages), seconds=now - self._began)


def _read_checkpoint(run: RunDirectory) -> Checkpoint:
    kept = run.read(_CHECKPOINT)
    return Checkpoint() if kept is None else Checkpoint.from_json(kept)
