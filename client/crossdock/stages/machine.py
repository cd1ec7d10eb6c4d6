"""The stage runner's decisions: events in, actions out, no I/O and no clock.

A stage is planned when all it reads is recorded; its tasks run, each until one try succeeds; then
its winners are recorded, and only then may others read it. What was planned and recorded is in
`Checkpoint`: a runner that was killed goes on from it and from what the workers hold.

A task that fails may have failed because what it reads was lost. So after a failure the inputs are
looked at first. Lost maps run again, and only they. If they come out as they were, byte for byte,
readers that are done stay done; if not, everything that was computed from the stage is computed
again, since half of the readers would have seen the one and half the other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from crossdock.stages.events import (
    Action,
    Broken,
    CheckInputs,
    Event,
    Finish,
    InputsChecked,
    Kill,
    Observe,
    Observed,
    OutputMissing,
    Plan,
    Planned,
    Record,
    Recorded,
    Share,
    Start,
    Stop,
    TaskEnded,
    TaskId,
)

MAX_REPAIRS: Final = 10
"""How often the maps of one stage may be lost before the job gives up."""
_TRY_BITS: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRules:
    """What the machine must know of a stage."""

    name: str
    upstream: tuple[str, ...] = ()
    """Earlier stages whose shuffles it reads."""
    tries: int = 4
    """How often one task may run before the job fails; loss does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCheckpoint:
    """What must survive the runner, of one stage."""

    shares: tuple[Share, ...] | None = None
    winners: Mapping[int, int] | None = None
    contents: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What must survive the runner."""

    stages: Mapping[str, StageCheckpoint] = field(default_factory=dict)


class Phase(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    PLANNING = "planning"
    OBSERVING = "observing"
    RUNNING = "running"
    RECORDING = "recording"
    DONE = "done"


@dataclass(slots=True)
class TaskState:
    """One task of a stage, over all its tries."""

    tries: int = 0
    failures: int = 0
    running: int | None = None
    """The attempt under way."""
    winner: int | None = None
    """The attempt that succeeded."""
    saw_repairs: int = 0
    """How often what it reads had been repaired when it started."""


@dataclass(slots=True)
class StageState:
    """One stage, as far as it has come."""

    rules: StageRules
    phase: Phase = Phase.WAITING
    shares: tuple[Share, ...] | None = None
    tasks: list[TaskState] = field(default_factory=list)
    contents: dict[int, str] = field(default_factory=dict)
    checking: bool = False
    """Whether failed tasks wait for word about the inputs."""
    suspects: dict[int, tuple[TaskId, str]] = field(default_factory=dict)
    """Tasks whose failure is not judged yet: by index, the attempt and its reason."""
    repairs: int = 0
    """How often its output was lost."""
    attempts: int = 0
    """Tries of all its tasks, those of plans that no longer hold included."""

    @property
    def winners(self) -> dict[int, int]:
        return {i: t.winner for i, t in enumerate(self.tasks) if t.winner is not None}


class Machine:
    """One run of a staged job. Not thread-safe."""

    def __init__(
        self, rules: Iterable[StageRules], *, epoch: int = 0, checkpoint: Checkpoint | None = None
    ) -> None:
        """Begin, or go on.

        Args:
            rules: stages, each after those it reads.
            epoch: higher than that of any earlier runner of the job.
            checkpoint: what an earlier runner left.
        """
        self._epoch = epoch
        self.stages = {r.name: StageState(r) for r in rules}
        self.finished: Finish | None = None
        for name, kept in (checkpoint or Checkpoint()).stages.items():
            self._restore(self.stages[name], kept)

    def _restore(self, stage: StageState, kept: StageCheckpoint) -> None:
        if kept.shares is None:
            return
        stage.shares = kept.shares
        stage.tasks = [TaskState() for _ in kept.shares]
        stage.contents = dict(kept.contents)
        stage.phase = Phase.OBSERVING
        if kept.winners is not None:
            stage.phase = Phase.DONE
            for index, attempt in kept.winners.items():
                stage.tasks[index].winner = attempt

    def checkpoint(self) -> Checkpoint:
        """Return what a later runner needs; save it before acting on the actions of an event."""
        return Checkpoint(
            stages={
                name: StageCheckpoint(
                    shares=s.shares,
                    winners=s.winners if s.phase is Phase.DONE else None,
                    contents=dict(s.contents),
                )
                for name, s in self.stages.items()
                if s.shares is not None
            }
        )

    def begin(self) -> list[Action]:
        """Return the first actions."""
        looks: list[Action] = [
            Observe(name) for name, s in self.stages.items() if s.phase is Phase.OBSERVING
        ]
        return looks + self._go_on()

    def handle(self, event: Event) -> list[Action]:
        """Take one event; return what is to be done."""
        if self._over():
            return []
        match event:
            case Stop(reason):
                return self._finish(reason)
            case Broken(stage, reason):
                return self._finish(f"stage {stage}: {reason}")
            case TaskEnded():
                actions = self._task_ended(event)
            case Planned(stage, shares):
                actions = self._planned(self.stages[stage], shares)
            case Observed(stage, complete):
                actions = self._observed(self.stages[stage], complete)
            case InputsChecked(stage, missing):
                actions = self._inputs_checked(self.stages[stage], missing)
            case Recorded(stage, contents):
                actions = self._recorded(self.stages[stage], contents)
            case OutputMissing(stage, missing):
                actions = self._output_missing(self.stages[stage], missing)
        return actions if self._over() else actions + self._go_on()

    def _over(self) -> bool:
        return self.finished is not None

    # -- events ----------------------------------------------------------------------------

    def _planned(self, stage: StageState, shares: tuple[Share, ...]) -> list[Action]:
        if stage.phase is not Phase.PLANNING:
            return []
        stage.shares = shares
        stage.tasks = [TaskState() for _ in shares]
        stage.phase = Phase.RUNNING
        return []

    def _observed(self, stage: StageState, complete: Mapping[int, int]) -> list[Action]:
        if stage.phase is not Phase.OBSERVING:
            return []
        for index, attempt in complete.items():
            if index < len(stage.tasks):
                stage.tasks[index].winner = attempt
        stage.phase = Phase.RUNNING
        return []

    def _task_ended(self, event: TaskEnded) -> list[Action]:
        stage = self.stages[event.task.stage]
        index = event.task.index
        if index >= len(stage.tasks) or stage.tasks[index].running != event.task.attempt:
            return []  # killed, or of a plan that no longer holds
        task = stage.tasks[index]
        task.running = None
        if event.failure is None:
            task.winner = event.task.attempt
            return []
        stage.suspects[index] = (event.task, event.failure)
        if not stage.rules.upstream:
            return self._judge(stage)
        if stage.checking:
            return []
        stage.checking = True
        return [CheckInputs(stage.rules.name)]

    def _judge(self, stage: StageState) -> list[Action]:
        """Count failures that no loss explains; give up where one task had too many."""
        suspects, stage.suspects = stage.suspects, {}
        for index, (task, reason) in sorted(suspects.items()):
            state = stage.tasks[index]
            if state.saw_repairs != self._repairs_above(stage):
                continue  # it was still reading what had been lost
            state.failures += 1
            if state.failures >= stage.rules.tries:
                often = "once" if state.failures == 1 else f"{state.failures} times"
                return self._finish(
                    f"task {index} of stage {stage.rules.name} failed {often}, last: {reason}", task
                )
        return []

    def _inputs_checked(
        self, stage: StageState, missing: Mapping[str, frozenset[int]]
    ) -> list[Action]:
        stage.checking = False
        if stage.phase is Phase.PLANNING:
            stage.phase = Phase.WAITING
        if not any(missing.values()):
            return self._judge(stage)
        stage.suspects.clear()  # what was lost is to blame
        for name, indexes in sorted(missing.items()):
            if problem := self._reopen(self.stages[name], indexes):
                return self._finish(problem)
        return []

    def _reopen(self, stage: StageState, indexes: Iterable[int]) -> str | None:
        """Run lost tasks of a recorded stage again; return a problem if that is no use."""
        if stage.phase is not Phase.DONE:
            return None  # somebody else has found the loss before
        stage.repairs += 1
        if stage.repairs > MAX_REPAIRS:
            return f"output of stage {stage.rules.name} was lost {stage.repairs} times"
        stage.phase = Phase.RUNNING
        for index in indexes:
            stage.tasks[index].winner = None
        return None

    def _output_missing(self, stage: StageState, missing: Mapping[int, str]) -> list[Action]:
        if stage.phase is not Phase.RECORDING:
            return []
        stage.phase = Phase.RUNNING
        for index, why in missing.items():
            attempt = stage.tasks[index].winner
            if attempt is None:
                continue
            stage.tasks[index].winner = None
            stage.suspects[index] = (TaskId(stage.rules.name, index, attempt), why)
        return self._judge(stage)

    def _recorded(self, stage: StageState, contents: Mapping[int, str]) -> list[Action]:
        if stage.phase is not Phase.RECORDING:
            return []
        before, stage.contents = stage.contents, dict(contents)
        stage.phase = Phase.DONE
        if not before or before == stage.contents:
            return []
        actions: list[Action] = []
        for later in self._readers_of(stage.rules.name):
            actions += self._reset(later)
        return actions

    # -- what follows ----------------------------------------------------------------------

    def _go_on(self) -> list[Action]:
        actions: list[Action] = []
        for stage in self.stages.values():
            ready = all(self.stages[u].phase is Phase.DONE for u in stage.rules.upstream)
            if stage.phase is Phase.WAITING and ready:
                stage.phase = Phase.PLANNING
                actions.append(Plan(stage.rules.name))
            elif stage.phase is Phase.RUNNING:
                actions += self._run(stage, ready=ready)
        if all(s.phase is Phase.DONE for s in self.stages.values()):
            actions += self._finish(None)
        return actions

    def _run(self, stage: StageState, *, ready: bool) -> list[Action]:
        """Start what can start; record the stage when every task has a winner."""
        if all(t.winner is not None for t in stage.tasks):
            stage.phase = Phase.RECORDING
            return [Record(stage.rules.name, stage.winners)]
        if not ready or stage.checking:
            return []
        actions: list[Action] = []
        for index, task in enumerate(stage.tasks):
            if task.winner is None and task.running is None:
                task.running = (self._epoch << _TRY_BITS) | stage.attempts
                task.saw_repairs = self._repairs_above(stage)
                task.tries += 1
                stage.attempts += 1
                actions.append(Start(TaskId(stage.rules.name, index, task.running)))
        return actions

    def _repairs_above(self, stage: StageState) -> int:
        return sum(self.stages[u].repairs for u in stage.rules.upstream)

    def _readers_of(self, name: str) -> list[StageState]:
        """Return all stages that have read a stage, or read what was made of it."""
        tainted = {name}
        for stage in self.stages.values():  # in order: readers come after what they read
            if tainted.intersection(stage.rules.upstream):
                tainted.add(stage.rules.name)
        return [s for n, s in self.stages.items() if n in tainted - {name}]

    def _reset(self, stage: StageState) -> list[Action]:
        """Forget everything a stage has done: what it read is not what there is now."""
        kills: list[Action] = [
            Kill(TaskId(stage.rules.name, i, t.running))
            for i, t in enumerate(stage.tasks)
            if t.running is not None
        ]
        stage.phase, stage.shares, stage.checking = Phase.WAITING, None, False
        stage.tasks, stage.suspects = [], {}
        stage.contents = {}
        return kills

    def _finish(self, failure: str | None, task: TaskId | None = None) -> list[Action]:
        self.finished = Finish(failure, task)
        return [self.finished]
