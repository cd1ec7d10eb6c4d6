"""One job's stages: the machine, fed by what its Jobs and workers say. No I/O.

What is to be is `wanted`: the Jobs that shall be there. A step that was not carried out, since the
API server was away, is carried out by the next look: nothing is done by an event alone.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

from crossdock.jobfile.model import ShuffleJob
from crossdock.stages.events import Action, Ask, Event, Finish, Kill, Start, TaskEnded, TaskId
from crossdock.stages.machine import COPY_BITS, Machine
from crossdock.stages.rules import rules_of
from crossdock.stages.states import Checkpoint, Phase
from crossdock_operator.jobs.batch import Batch, Role


class Staged:
    """The stages of one job under one operator."""

    def __init__(self, job: ShuffleJob, uid: str, *, epoch: int, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; `begin` comes next."""
        self.job = job
        self._uid = uid
        self.machine = Machine(
            rules_of(job), epoch=epoch, checkpoint=checkpoint, copy_bits=COPY_BITS
        )
        self.events: deque[Event] = deque()
        """What has happened and was not taken in yet."""
        self.asks: list[Ask] = []
        """What is to be asked now."""
        self.wanted: dict[str, Batch] = {}
        """By name, the Jobs that shall be there."""
        self.seen: set[str] = set()
        """Of those, the ones that were there already."""
        self.finish: Finish | None = None
        self._tries: dict[str, dict[int, TaskId]] = {}

    def begin(self, jobs: Mapping[str, Batch]) -> None:
        """Take over the Jobs that an earlier operator made, and begin."""
        for name, batch in jobs.items():
            if batch.role is Role.TASKS and self._is_current(batch):
                self._want(name, batch, {task.index: task for task in batch.ids()})
                self.seen.add(name)
        self._take(self.machine.begin())

    def _is_current(self, batch: Batch) -> bool:
        state = self.machine.stages.get(batch.stage)
        return state is not None and state.shares is not None and batch.attempt >= state.since

    # -- what Jobs say ---------------------------------------------------------------------

    def look(self, jobs: Mapping[str, Batch]) -> list[tuple[str, TaskId]]:
        """Note which tasks have succeeded; return those that failed, with their Jobs.

        Why they failed their pods say: `failed` is told that next.
        """
        failed = []
        for name, tries in list(self._tries.items()):
            batch = jobs.get(name)
            if batch is None:
                if name in self.seen:
                    self._lost(name)
                continue
            self.seen.add(name)
            for index in batch.done:
                if self.machine.runs(tries[index]):
                    self.events.append(TaskEnded(tries[index], None))
            failed += [(name, tries[i]) for i in sorted(batch.lost) if self.machine.runs(tries[i])]
        return failed

    def tries(self, name: str) -> list[TaskId]:
        """Return the tries of a Job that is wanted."""
        return list(self._tries.get(name, {}).values())

    def _lost(self, name: str) -> None:
        """Note that somebody has deleted a Job: what it still ran failed."""
        for task in self.tries(name):
            if self.machine.runs(task):
                self.events.append(TaskEnded(task, f"its Job {name} is gone"))
        self._drop(name)

    def _drop(self, name: str) -> None:
        del self.wanted[name], self._tries[name]
        self.seen.discard(name)

    def failed(self, task: TaskId, reason: str) -> None:
        """Note that a task failed, and why."""
        self.events.append(TaskEnded(task, reason))

    def under_way(
        self, stage: str, jobs: Mapping[str, Batch]
    ) -> tuple[dict[int, int], dict[int, int]]:
        """Return index → attempt of the tasks that have succeeded, and of those that go on.

        Of several Jobs with one task the newest counts.
        """
        done: dict[int, int] = {}
        running: dict[int, int] = {}
        for batch in sorted(jobs.values(), key=lambda b: b.attempt):
            if batch.role is not Role.TASKS or batch.stage != stage or not self._is_current(batch):
                continue
            for index in batch.indexes():
                done.pop(index, None)
                running.pop(index, None)
                if index in batch.done:
                    done[index] = batch.attempt
                elif index not in batch.lost:
                    running[index] = batch.attempt
        return done, running

    # -- what the machine wants ------------------------------------------------------------

    def step(self) -> None:
        """Take in all events."""
        while self.events:
            self._take(self.machine.handle(self.events.popleft()))
        self._prune()

    def _take(self, actions: Iterable[Action]) -> None:
        starts: dict[str, list[TaskId]] = defaultdict(list)
        for action in actions:
            match action:
                case Start(task):
                    starts[task.stage].append(task)
                case Finish():
                    self.finish = action
                case Kill():
                    pass  # its stage begins anew: `_prune` drops all of its Jobs
                case _:
                    self.asks.append(action)
        for stage, tasks in starts.items():
            self._start(stage, tasks)

    def _start(self, stage: str, tasks: list[TaskId]) -> None:
        """Want a Job for all tasks of a stage, or one for each: indexes of a Job have no gaps."""
        count = len(self.machine.stages[stage].tasks)
        if len(tasks) == count:
            batch = Batch(role=Role.TASKS, stage=stage, attempt=tasks[0].attempt, tasks=count)
            self._want(self.name(batch), batch, {task.index: task for task in tasks})
            return
        for task in tasks:
            batch = Batch(
                role=Role.TASKS, stage=stage, attempt=task.attempt, tasks=count, index=task.index
            )
            self._want(self.name(batch), batch, {task.index: task})

    def _want(self, name: str, batch: Batch, tries: dict[int, TaskId]) -> None:
        self.wanted[name] = batch
        self._tries[name] = tries

    def _prune(self) -> None:
        """Want no Jobs of stages that are recorded, or that begin anew."""
        going_on = {Phase.OBSERVING, Phase.RUNNING, Phase.RECORDING}
        for name, batch in list(self.wanted.items()):
            if self.machine.stages[batch.stage].phase not in going_on:
                self._drop(name)

    def jobs_of(self, winners: Mapping[int, int], stage: str) -> dict[str, set[int]]:
        """Return the names of the Jobs that ran these tries, with the indexes of each."""
        found: dict[str, set[int]] = defaultdict(set)
        for name, tries in self._tries.items():
            if self.wanted[name].stage == stage:
                for index, task in tries.items():
                    if winners.get(index) == task.attempt:
                        found[name].add(index)
        return found

    def name(self, batch: Batch) -> str:
        """Return the name of a batch's Job."""
        return batch.name(self.job.name, self._uid)

    def checkpoint(self) -> Checkpoint:
        """Return what must survive, of all that was taken in."""
        return self.machine.checkpoint()
