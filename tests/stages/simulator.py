"""A world for the stage machine: workers, tasks and a runner that dies, without any process.

A seed decides what happens next, so every history can be played again. Whatever takes time takes
two steps: it is done at one moment and heard of at a later one, with anything in between.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from crossdock.stages.events import (
    Action,
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
    Start,
    TaskEnded,
    TaskId,
)
from crossdock.stages.machine import Machine
from crossdock.stages.releasing import Releasing
from crossdock.stages.states import Checkpoint, Phase, StageRules

MOST_STEPS = 20_000
SPEEDS = (1.0, 1.0, 0.02)
"""Much can happen while a slow one is under way."""
MOST_LOSSES = 9
"""Of one stage; the machine gives up after ten."""

Reads = Mapping[tuple[str, int], str]
"""(stage, index) → content that a task has read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How often something goes wrong: chances per step, or per task."""

    fail: float = 0.0
    lose: float = 0.0
    kill: float = 0.0
    """Of the runner, per event."""
    changing: frozenset[str] = frozenset()
    """Stages whose tasks write something else each time."""
    consume: bool = False
    """Whether shuffles go when nobody needs them any more, and what that takes is secured."""


@dataclass(slots=True)
class Attempt:
    """One try of a task, as the world knows it."""

    task: TaskId
    reads: Reads | None = None
    """None: it could not read, or has not yet."""
    lost_input: bool = False
    content: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer that is not the machine's to hear."""

    take_in: Callable[[], None]


@dataclass(slots=True)
class Pending:
    """Something under way: each call of `step` goes on; it returns an event when it is done."""

    step: Callable[[], Event | Heard | None]
    speed: float
    """How likely it goes on next, compared with others."""
    task: TaskId | None = None


@dataclass(slots=True)
class Ledger:
    """What the present runner has seen, to hold its decisions against."""

    recorded: set[str] = field(default_factory=set)
    have: dict[str, dict[int, int]] = field(default_factory=dict)
    """Stage → index → attempt that the machine was told of as a success."""
    failures: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By task of the present plan: failures that the machine heard of, but those by loss."""


class World:
    """Runs one machine after the other until one finishes; asserts what must always hold."""

    def __init__(
        self, rules: Sequence[StageRules], sizes: Mapping[str, int], weather: Weather, seed: int
    ) -> None:
        self.rules = {r.name: r for r in rules}
        self.random = random.Random(seed)
        self.weather = weather
        self.sizes = dict(sizes)
        self.attempts: dict[TaskId, Attempt] = {}
        self.stored: dict[tuple[str, int], dict[int, str]] = {}
        """What workers hold, and marks of final tasks that are done: attempt → content."""
        self.stage_files: dict[str, dict[str, dict[int, int]]] = {}
        self.winners: dict[str, dict[int, int]] = {}
        self.published: dict[str, list[dict[int, int]]] = {}
        self.lost: Counter[str] = Counter()
        self.pending: list[Pending] = []
        self.epoch = 0
        self.kills = 0
        self.starts = 0
        self.saved = Checkpoint()
        self.ledger = Ledger()
        self.machine = Machine(rules)
        self.releasing = Releasing(self.machine.stages)
        self.asked: set[str] = set()
        """Stages that are being secured or released."""
        self.secured: set[tuple[str, int, int]] = set()
        """(stage, index, attempt) that can be lost no more."""
        self.released: set[str] = set()
        self.finish: Finish | None = None

    # -- time ------------------------------------------------------------------------------

    def run(self) -> Finish:
        """Play it to its end."""
        self._take(self.machine.begin())
        for _ in range(MOST_STEPS):
            if self.finish is not None:
                self._after_the_end()
                return self.finish
            assert self.pending, f"stuck: { {n: s.phase for n, s in self.machine.stages.items()} }"
            if self.random.random() < self.weather.lose:
                self._lose()
            [item] = self.random.choices(self.pending, [p.speed for p in self.pending])
            event = item.step()
            if event is not None:
                self.pending.remove(item)
            if isinstance(event, Heard):
                event.take_in()
            elif event is not None:
                self._deliver(event)
            if self.weather.consume and event is not None:
                self._consume()
        raise AssertionError("it does not end")

    def _deliver(self, event: Event) -> None:
        self._note(event)
        actions = self.machine.handle(event)
        self._check_failures()
        if self.random.random() < self.weather.kill:
            if self.random.random() < 1 / 2:
                self.saved = self.machine.checkpoint()
                self._take(actions[: self.random.randint(0, len(actions))])
            if self.finish is None:
                self._die()
            return
        self._take(actions)

    def _take(self, actions: Sequence[Action]) -> None:
        self.saved = self.machine.checkpoint()
        for action in actions:
            match action:
                case Start(task):
                    self._start(task)
                case Kill(task):
                    assert any(p.task == task for p in self.pending), f"{task} does not run"
                case Finish():
                    self.finish = action
                case Plan():
                    self._plan(action)
                case CheckInputs():
                    self._ask(partial(self._check, action.stage, action.ask))
                case Observe():
                    self._ask(partial(self._observe, action))
                case Record():
                    self._ask(partial(self._record, action))

    def _ask(self, answer: Callable[[], Event], then: Callable[[], None] | None = None) -> None:
        found: list[Event] = []
        more = [then] if then is not None else []

        def step() -> Event | None:
            if not found:
                found.append(answer())
            elif more:
                more.pop()()
            else:
                return found[0]
            return None

        self.pending.append(Pending(step, self._speed()))

    def _speed(self) -> float:
        return self.random.choice(SPEEDS)

    def _die(self) -> None:
        """The runner is killed; its tasks die, some just after they have written."""
        for item in self.pending:
            if item.task is not None and self.random.random() < 1 / 2:
                item.step()
        self.pending.clear()
        self.asked.clear()
        self.kills += 1
        self.epoch += 1
        self.ledger = Ledger()
        rules = list(self.rules.values())
        self.machine = Machine(rules, epoch=self.epoch, checkpoint=self.saved)
        self.releasing = Releasing(self.machine.stages)
        self.winners = {}
        for name, kept in self.saved.stages.items():
            if kept.winners is not None:
                self.winners[name] = dict(kept.winners)
                self.ledger.have[name] = dict(kept.winners)
                self.ledger.recorded.add(name)
        self._take(self.machine.begin())

    def _lose(self) -> None:
        """A worker loses some of what one stage wrote."""
        held = sorted({n for n, _ in self.stored if not self.rules[n].final})
        if not held:
            return
        name = self.random.choice(held)
        if self.lost[name] >= MOST_LOSSES:
            return
        self.lost[name] += 1
        for place in [p for p in self.stored if p[0] == name]:
            if self.random.random() < 1 / 2:
                held = self.stored.pop(place)
                if kept := {a: c for a, c in held.items() if (*place, a) in self.secured}:
                    self.stored[place] = kept

    # -- shuffles that go ------------------------------------------------------------------

    def _consume(self) -> None:
        for name in self.releasing.to_secure():
            self._begin(name, partial(self._secure, name, self.releasing.version(name)))
        for name in self.releasing.to_release():
            self._begin(name, partial(self._release, name))

    def _begin(self, name: str, work: Callable[[], Callable[[], None]]) -> None:
        if name in self.asked:
            return
        self.asked.add(name)
        found: list[Heard] = []

        def step() -> Heard | None:
            if found:
                return found[0]
            then = work()
            found.append(Heard(lambda: (self.asked.discard(name), then())[1]))
            return None

        self.pending.append(Pending(step, self._speed()))

    def _secure(self, name: str, version: int) -> Callable[[], None]:
        if name not in self.released:
            winners = self.winners[name]
            if self._missing(name, winners):
                return lambda: None
            self.secured |= {(name, index, attempt) for index, attempt in winners.items()}
        return partial(self.releasing.secured, name, version)

    def _release(self, name: str) -> Callable[[], None]:
        self.released.add(name)
        for place in [p for p in self.stored if p[0] == name]:
            del self.stored[place]
        return partial(self.releasing.released, name)

    # -- tasks -----------------------------------------------------------------------------

    def _start(self, task: TaskId) -> None:
        rules = self.rules[task.stage]
        assert task.stage not in self.released, f"{task} runs, and its shuffle was released"
        assert task not in self.attempts, f"{task} a second time"
        assert all(t.attempt != task.attempt for t in self.attempts if t.stage == task.stage)
        for upstream in rules.upstream:
            assert upstream in self.ledger.recorded, f"{task} reads {upstream} before it is there"
        had = self.ledger.have[task.stage].pop(task.index, None)
        if had is not None:
            there = self.stored.get((task.stage, task.index), {})
            assert had not in there, f"{task} runs again, and its output is there"
        self.ledger.recorded.discard(task.stage)
        self.starts += 1
        attempt = self.attempts[task] = Attempt(task)
        steps = iter((self._read, self._write))
        ended: list[str | None] = []

        def step() -> Event | None:
            if ended:
                return TaskEnded(task, ended[0])
            if (how := next(steps)(attempt)) != "goes on":
                ended.append(how)
            return None

        self.pending.append(Pending(step, self._speed(), task))

    def _read(self, attempt: Attempt) -> str | None:
        found: dict[tuple[str, int], str] = {}
        stage = attempt.task.stage
        for upstream, winners in self.stage_files.get(stage, {}).items():
            assert upstream not in self.released, f"{attempt.task} reads what was released"
            for index, winner in winners.items():
                held = self.stored.get((upstream, index), {})
                if winner not in held:
                    attempt.lost_input = True
                    return "its input is lost"
                found[upstream, index] = held[winner]
        attempt.reads = found
        return "goes on"

    def _write(self, attempt: Attempt) -> str | None:
        task, fate = attempt.task, self.random.random()
        changes = task.attempt if task.stage in self.weather.changing else 0
        told = f"{task.stage} {task.index} {changes} {sorted((attempt.reads or {}).items())}"
        attempt.content = hashlib.sha256(told.encode()).hexdigest()[:8]
        final = self.rules[task.stage].final
        if fate < self.weather.fail / 3 and not final:
            return None  # it ends well and has forgotten to write
        if fate < self.weather.fail * 2 / 3:
            return "it fails"
        if fate < self.weather.fail and final:
            return "it fails at the end"
        self.stored.setdefault((task.stage, task.index), {})[task.attempt] = attempt.content
        return "it has written and fails" if fate < self.weather.fail else None

    # -- answers ---------------------------------------------------------------------------

    def _missing(self, stage: str, winners: Mapping[int, int]) -> frozenset[int]:
        assert stage not in self.released, f"stage {stage} is looked at, and was released"
        return frozenset(i for i, a in winners.items() if a not in self.stored.get((stage, i), {}))

    def _check(self, stage: str, ask: int) -> InputsChecked:
        upstream = self.rules[stage].upstream
        found = {u: self._missing(u, self.winners[u]) for u in upstream}
        return InputsChecked(stage, found, ask)

    def _plan(self, action: Plan) -> None:
        """Look at the views, then write the stage file; something may happen between."""
        seen: dict[str, dict[int, int]] = {}

        def look() -> Event:
            checked = self._check(action.stage, action.ask)
            if any(checked.missing.values()):
                return checked
            seen.update({u: dict(self.winners[u]) for u in self.rules[action.stage].upstream})
            if self.random.random() < 1 / 4:
                self.sizes[action.stage] = self.random.randint(1, 4)
            return Planned(action.stage, ({},) * self.sizes[action.stage], action.ask)

        def write() -> None:
            if seen:
                self.stage_files[action.stage] = seen

        self._ask(look, write)

    def _observe(self, action: Observe) -> Event:
        complete: dict[int, int] = {}
        for (stage, index), held in self.stored.items():
            since = [a for a in held if a >= action.since]
            if stage == action.stage and since:
                complete[index] = min(since)
        return Observed(action.stage, complete, action.ask)

    def _record(self, action: Record) -> Event:
        stage, winners = action.stage, dict(action.winners)
        if self.rules[stage].final:
            self.published.setdefault(stage, []).append(winners)
            return Recorded(stage, {}, action.ask)
        self.winners[stage] = winners
        if missing := self._missing(stage, winners):
            return OutputMissing(stage, dict.fromkeys(missing, "not there"), action.ask)
        for reader, rules in self.rules.items():
            if stage in rules.upstream and reader in self.stage_files:
                self.stage_files[reader][stage] = winners
        contents = {i: self.stored[stage, i][a] for i, a in winners.items()}
        return Recorded(stage, contents, action.ask)

    # -- what must hold --------------------------------------------------------------------

    def _note(self, event: Event) -> None:
        """Note what the machine is about to hear."""
        ledger = self.ledger
        match event:
            case Planned(stage, shares, ask) if self._asked(stage, ask):
                ledger.have[stage] = {}
                for index in range(len(shares)):
                    ledger.failures.pop((stage, index), None)
            case Observed(stage, complete, ask) if self._asked(stage, ask):
                since = self.machine.stages[stage].since
                ledger.have[stage] = {i: a for i, a in complete.items() if a >= since}
            case Recorded(stage, _, ask) if self._asked(stage, ask):
                ledger.recorded.add(stage)
            case OutputMissing(stage, missing, ask) if self._asked(stage, ask):
                for index in missing:
                    ledger.failures[stage, index] += 1
            case TaskEnded(task, failure) if self._under_way(task):
                if failure is None:
                    ledger.have[task.stage][task.index] = task.attempt
                elif not self.attempts[task].lost_input:
                    ledger.failures[task.stage, task.index] += 1

    def _asked(self, stage: str, ask: int) -> bool:
        state = self.machine.stages[stage]
        return ask == state.ask and state.phase is not Phase.WAITING

    def _under_way(self, task: TaskId) -> bool:
        tasks = self.machine.stages[task.stage].tasks
        return task.index < len(tasks) and tasks[task.index].running == task.attempt

    def _check_failures(self) -> None:
        """No task is charged with a loss, and none gets more tries than losses explain."""
        finished = self.machine.finished
        for name, stage in self.machine.stages.items():
            repairs = sum(self.machine.stages[n].repairs for n in (name, *stage.rules.upstream))
            for index, state in enumerate(stage.tasks):
                heard = self.ledger.failures[name, index]
                assert state.failures <= heard, (name, index)
                if finished is None:
                    unjudged = index in stage.suspects
                    assert heard - state.failures <= repairs + unjudged, (name, index)
                    assert state.failures < stage.rules.tries, (name, index)
        if finished is not None and finished.task is not None:
            task = finished.task
            tries = self.rules[task.stage].tries
            assert self.ledger.failures[task.stage, task.index] >= tries, finished

    def _after_the_end(self) -> None:
        finish = self.finish
        assert finish is not None
        for item in list(self.pending):  # what comes late is not answered
            while (event := item.step()) is None:
                pass
            if not isinstance(event, Heard):
                assert self.machine.handle(event) == []
        for publications in self.published.values():
            assert all(p == publications[0] for p in publications), "published twice"
        if finish.failure is not None:
            assert finish.task is not None, finish  # the weather brings nothing else
            return
        stages = self.machine.stages
        for name, stage in stages.items():
            assert stage.phase is Phase.DONE
            if self.rules[name].final:
                assert self.published[name][-1] == stage.winners
            for index, winner in stage.winners.items():
                mine = self.attempts[TaskId(name, index, winner)]
                assert mine.reads is not None
                for (upstream, i), content in mine.reads.items():
                    theirs = TaskId(upstream, i, stages[upstream].winners[i])
                    assert content == self.attempts[theirs].content, f"{mine.task} read old data"
                read = {u for u, _ in mine.reads}
                assert read == set(stage.rules.upstream)
