"""The stage runner's decisions: events in, actions out, no I/O and no clock.

A stage is planned when all it reads is recorded; its tasks run, each until one try succeeds; then
its winners are recorded, and only then may others read it. What was planned and recorded is in
`Checkpoint`: a runner that was killed goes on from it and from what the workers hold.

A task that fails may have failed because what it reads was lost. So after a failure the inputs are
looked at first. Lost maps run again, and only they. If they come out as they were, byte for byte,
readers that are done stay done; if not, everything that was computed from the stage is computed
again, since half of the readers would have seen the one and half the other.

What a stage was asked about its inputs is true as long as they are as they were then. `version`
tells: where an input has been lost or recorded since, the answer is dropped. Nor does it say
anything of a task that failed after the question: for that one it is put again.

A stage is asked one thing at a time. One that begins anew while it is planned or recorded waits
for the answer, void as it is: plans write stage files and records name winners, and of two at once
the older might have the last word.

Final stages are recorded last, when all else is done: then nobody reads any more, so nothing can
be found lost and no result that was published can turn out to be of what is no longer there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from crossdock.stages.events import (
    Action,
    Answer,
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
from crossdock.stages.states import (
    Checkpoint,
    Phase,
    StageCheckpoint,
    StageRules,
    StageState,
    TaskState,
)

MAX_REPAIRS: Final = 10
"""How often the maps of one stage may be lost before the job gives up."""
_TRY_BITS: Final = 24
COPY_BITS: Final = 16
"""Of attempts on a cluster: one try may be several pods there, and each writes under its own."""


class Machine:
    """One run of a staged job. Not thread-safe."""

    def __init__(
        self,
        rules: Iterable[StageRules],
        *,
        epoch: int = 0,
        checkpoint: Checkpoint | None = None,
        copy_bits: int = 0,
    ) -> None:
        """Begin, or go on.

        Args:
            rules: stages, each after those it reads.
            epoch: higher than that of any earlier runner of the job.
            checkpoint: what an earlier runner left.
            copy_bits: so many low bits of every attempt are 0, for who runs it to fill in.
        """
        self._epoch = epoch
        self._copy_bits = copy_bits
        self._asks = 0
        self.stages = {r.name: StageState(r) for r in rules}
        self.finished: Finish | None = None
        for name, kept in (checkpoint or Checkpoint()).stages.items():
            self._restore(self.stages[name], kept)

    def _restore(self, stage: StageState, kept: StageCheckpoint) -> None:
        if kept.shares is None:
            return
        stage.shares, stage.since = kept.shares, kept.since
        stage.tasks = [TaskState() for _ in kept.shares]
        stage.contents = dict(kept.contents)
        stage.phase = Phase.OBSERVING
        if kept.winners is not None:
            stage.phase = Phase.DONE
            for index, attempt in kept.winners.items():
                stage.tasks[index].winner, stage.tasks[index].proven = attempt, True

    def checkpoint(self) -> Checkpoint:
        """Return what a later runner needs; save it before acting on the actions of an event."""
        return Checkpoint(
            stages={
                name: StageCheckpoint(
                    shares=s.shares,
                    since=s.since,
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
            Observe(name, s.since, self._ask(s))
            for name, s in self.stages.items()
            if s.phase is Phase.OBSERVING
        ]
        return looks + self._go_on()

    def handle(self, event: Event) -> list[Action]:
        """Take one event; return what is to be done."""
        if self._over():
            return []
        match event:
            case Stop(reason):
                return self._finish(reason)
            case TaskEnded():
                actions = self._task_ended(event)
            case _:
                actions = self._answered(event)
        return actions if self._over() else actions + self._go_on()

    def _over(self) -> bool:
        return self.finished is not None

    # -- events ----------------------------------------------------------------------------

    def _answered(self, answer: Answer) -> list[Action]:
        stage = self.stages[answer.stage]
        if answer.ask != stage.ask:
            return []
        stage.ask = 0
        if stage.phase is Phase.WAITING:
            return []  # it has begun anew since
        match answer:
            case Broken(name, reason):
                actions = self._finish(f"stage {name}: {reason}")
            case Planned(_, shares):
                actions = self._planned(stage, shares)
            case Observed(_, complete, _, running):
                actions = self._observed(stage, complete, running)
            case InputsChecked(_, missing):
                actions = self._inputs_checked(stage, missing)
            case Recorded(_, contents, _, winners):
                actions = self._recorded(stage, contents, winners)
            case OutputMissing(_, missing):
                actions = self._output_missing(stage, missing)
        return actions

    def _planned(self, stage: StageState, shares: Sequence[Share]) -> list[Action]:
        if stage.asked_of != self._versions_above(stage):
            stage.phase = Phase.WAITING  # planned for what is no longer there
            return []
        stage.shares = tuple(shares)
        stage.since = self._next_attempt(stage)
        stage.tasks = [TaskState() for _ in shares]
        stage.phase = Phase.RUNNING
        return []

    def _observed(
        self, stage: StageState, complete: Mapping[int, int], running: Mapping[int, int]
    ) -> list[Action]:
        for index, attempt in complete.items():
            if index < len(stage.tasks) and attempt >= stage.since:
                stage.tasks[index].winner, stage.tasks[index].proven = attempt, True
        for index, attempt in running.items():
            if index < len(stage.tasks) and attempt >= stage.since:
                task = stage.tasks[index]
                task.running = attempt if task.winner is None else None
        # An earlier runner's: each of these was started once at least.
        known = sum(task.winner is not None or task.running is not None for task in stage.tasks)
        stage.attempts = max(stage.attempts, known)
        stage.phase = Phase.RUNNING
        return []

    def runs(self, task: TaskId) -> bool:
        """Return whether this try is under way and counts."""
        tasks = self.stages[task.stage].tasks
        return task.index < len(tasks) and tasks[task.index].running == task.attempt

    def _task_ended(self, event: TaskEnded) -> list[Action]:
        stage = self.stages[event.task.stage]
        index = event.task.index
        if not self.runs(event.task):
            return []  # killed, or of a plan that no longer holds
        task = stage.tasks[index]
        task.running = None
        if event.failure is None:
            task.winner, task.proven = event.task.attempt, False
            return []
        stage.suspects[index] = (event.task, event.failure)
        if not stage.rules.upstream:
            return self._judge(stage)
        if stage.ask:
            stage.failed_since = True
            return []
        return [CheckInputs(stage.rules.name, self._ask(stage))]

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
                    f"task {index} of stage {stage.rules.name} failed {often}, last in "
                    f"attempt {task.attempt}: {reason}",
                    task,
                )
        return []

    def _inputs_checked(
        self, stage: StageState, missing: Mapping[str, frozenset[int]]
    ) -> list[Action]:
        if stage.phase is Phase.PLANNING:
            stage.phase = Phase.WAITING
        now = self._versions_above(stage)
        lost = {n: i for n, i in missing.items() if i and now[n] == stage.asked_of[n]}
        failed_since, stage.failed_since = stage.failed_since, False
        if not lost and failed_since:  # what was whole then may have been lost before they failed
            return [CheckInputs(stage.rules.name, self._ask(stage))]
        if not lost:
            return self._judge(stage)
        stage.suspects.clear()  # what was lost is to blame
        for name, indexes in sorted(lost.items()):
            if problem := self._reopen(self.stages[name], indexes):
                return self._finish(problem)
        return []

    def _reopen(self, stage: StageState, indexes: Iterable[int]) -> str | None:
        """Run lost tasks of a recorded stage again; return a problem if that is no use."""
        if stage.phase is not Phase.DONE:
            return None  # somebody else has found the loss before
        stage.phase = Phase.RUNNING
        stage.version += 1
        for index in indexes:
            stage.tasks[index].winner = None
        return self._count_loss(stage)

    def _count_loss(self, stage: StageState) -> str | None:
        stage.repairs += 1
        if stage.repairs <= MAX_REPAIRS:
            return None
        return f"output of stage {stage.rules.name} was lost {stage.repairs} times"

    def _output_missing(self, stage: StageState, missing: Mapping[int, str]) -> list[Action]:
        stage.phase = Phase.RUNNING
        lost = False
        for index, why in missing.items():
            task = stage.tasks[index]
            attempt, task.winner = task.winner, None
            if task.proven:
                lost = True
            elif attempt is not None:
                stage.suspects[index] = (TaskId(stage.rules.name, index, attempt), why)
        if lost and (problem := self._count_loss(stage)):
            return self._finish(problem)
        return self._judge(stage)

    def _recorded(
        self, stage: StageState, contents: Mapping[int, str], winners: Mapping[int, int]
    ) -> list[Action]:
        for index, attempt in winners.items():
            stage.tasks[index].winner = attempt
        before, stage.contents = stage.contents, dict(contents)
        stage.phase = Phase.DONE
        stage.version += 1
        for task in stage.tasks:
            task.proven = True
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
            if stage.phase is Phase.WAITING and ready and not stage.ask:
                stage.phase = Phase.PLANNING
                actions.append(Plan(stage.rules.name, self._ask(stage)))
            elif stage.phase is Phase.RUNNING:
                actions += self._run(stage, ready=ready)
        if all(s.phase is Phase.DONE for s in self.stages.values()):
            actions += self._finish(None)
        return actions

    def _run(self, stage: StageState, *, ready: bool) -> list[Action]:
        """Start what can start; record the stage when every task has a winner."""
        if stage.complete:
            if stage.rules.final and not self._all_but_recorded():
                return []
            stage.phase = Phase.RECORDING
            return [Record(stage.rules.name, stage.winners, self._ask(stage))]
        if not ready or stage.ask:
            return []
        actions: list[Action] = []
        for index, task in enumerate(stage.tasks):
            if task.winner is None and task.running is None:
                task.running = self._next_attempt(stage)
                task.saw_repairs = self._repairs_above(stage)
                task.tries += 1
                stage.attempts += 1
                actions.append(Start(TaskId(stage.rules.name, index, task.running)))
        return actions

    def _all_but_recorded(self) -> bool:
        """Say whether nothing is left to do but to record final stages."""
        return all(
            s.complete if s.rules.final else s.phase is Phase.DONE for s in self.stages.values()
        )

    def _ask(self, stage: StageState) -> int:
        """Return the number of a new question about a stage; answers to older ones are void."""
        self._asks += 1
        stage.ask, stage.asked_of = self._asks, self._versions_above(stage)
        return self._asks

    def _next_attempt(self, stage: StageState) -> int:
        return ((self._epoch << _TRY_BITS) | stage.attempts) << self._copy_bits

    def _versions_above(self, stage: StageState) -> dict[str, int]:
        return {name: self.stages[name].version for name in stage.rules.upstream}

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
        stage.phase, stage.shares = Phase.WAITING, None
        stage.tasks, stage.suspects, stage.failed_since = [], {}, False
        stage.contents = {}
        return kills

    def _finish(self, failure: str | None, task: TaskId | None = None) -> list[Action]:
        self.finished = Finish(failure, task)
        return [self.finished]
