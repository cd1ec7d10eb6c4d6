"""Stages driven by Jobs, with an operator that may end at any moment; played without Kubernetes."""

import dataclasses
import random

import pytest

from crossdock.jobfile.build import build
from crossdock.jobfile.model import ShuffleJob
from crossdock.stages.events import (
    Answer,
    Ask,
    CheckInputs,
    InputsChecked,
    Observe,
    Observed,
    OutputMissing,
    Plan,
    Planned,
    Record,
    Recorded,
)
from crossdock.stages.states import Checkpoint
from crossdock_operator.jobs.batch import Batch
from crossdock_operator.jobs.staged import Staged

TASKS = {"one": 3, "two": 2, "three": 4}
STEPS = 3000


def job(retries: int) -> ShuffleJob:
    def stage(name: str, *above: str) -> dict[str, object]:
        return {
            "name": name,
            "inputs": [{"stage": each} for each in above],
            "retries": retries,
            "podTemplate": {"spec": {"containers": [{"command": ["task"]}]}},
            "output": {"shuffle": {"partitions": 2}},
        }

    stages = [stage("one"), stage("two", "one"), stage("three", "two")]
    return build({"metadata": {"name": "job"}, "spec": {"stages": stages}}, for_clusters=())


class World:
    """The API server, the Job controller and the workers, as far as a driver sees them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.job = job(retries=50)
        self.jobs: dict[str, Batch] = {}
        self.open: dict[str, set[int]] = {}
        """By Job, the tasks that run."""
        self.written: dict[str, dict[int, set[int]]] = {name: {} for name in TASKS}
        """By stage: index → attempts whose output is whole."""
        self.contents: dict[str, dict[int, str]] = {name: {} for name in TASKS}
        self.letters = "aaaaaaab" if seed % 2 else "a"
        self.recorded: dict[str, dict[int, str]] = {}
        self.changed = False
        """Whether a task that ran again wrote something else: then all that read it runs again."""
        self.runs = 0
        self.losses = 0
        self.failures = 0
        self.epoch = 0
        self.saved = Checkpoint()
        self.driver = self.operator()
        self.asked: list[Ask] = []

    def operator(self) -> Staged:
        """Start an operator; it knows what was saved."""
        self.epoch += 1
        self.asked = []
        found = Staged(self.job, "uid", epoch=self.epoch, checkpoint=self.saved)
        found.begin(self.jobs)
        return found

    def look(self) -> None:
        """What a reconcile does; it may be cut off after each part."""
        driver = self.driver
        for name, task in driver.look(self.jobs):
            driver.failed(task, f"it failed in {name}")
        driver.step()
        cut = self.random.random() < 0.1
        self.saved = driver.checkpoint()
        for name in self.jobs.keys() - driver.wanted.keys():
            del self.jobs[name], self.open[name]
        for name, batch in driver.wanted.items():
            if name not in self.jobs and not cut:
                self.make(name, batch)
        self.asked += driver.asks
        driver.asks = []

    def make(self, name: str, batch: Batch) -> None:
        fresh = set(batch.indexes())
        for other, running in self.open.items():
            if self.jobs[other].stage == batch.stage:
                assert not running & fresh, f"{running & fresh} of {batch.stage} run twice"
        self.jobs[name], self.open[name] = batch, fresh
        self.runs += len(fresh)

    def end_a_task(self) -> None:
        running = [(name, i) for name, indexes in self.open.items() for i in indexes]
        if not running:
            return
        name, index = self.random.choice(sorted(running))
        batch = self.jobs[name]
        self.open[name].discard(index)
        number = str(index - (batch.index or 0))
        above = {"two": "one", "three": "two"}.get(batch.stage)
        readable = above is None or len(self.written[above]) == TASKS[above]
        if readable and self.random.random() < 0.8:
            copies = self.random.randrange(1 << 16)  # which of the try's pods it was
            self.written[batch.stage].setdefault(index, set()).add(batch.attempt | copies)
            self.contents[batch.stage][index] = self.random.choice(self.letters)
            said = f"{batch.completed},{number}"
            self.jobs[name] = dataclasses.replace(batch, completed=said)
        else:
            self.failures += 1
            self.jobs[name] = dataclasses.replace(batch, failed=f"{batch.failed},{number}")

    def lose(self) -> None:
        stage = self.random.choice(sorted(TASKS))
        if self.written[stage]:
            del self.written[stage][self.random.choice(sorted(self.written[stage]))]
            self.losses += 1

    def vanish(self) -> None:
        """Somebody deletes a Job."""
        if self.jobs:
            name = self.random.choice(sorted(self.jobs))
            going_on = {t.index for t in self.driver.tries(name) if self.driver.machine.runs(t)}
            self.failures += len(going_on | self.open[name])
            del self.jobs[name], self.open[name]

    def answer(self) -> None:
        if not self.asked:
            return
        ask = self.asked.pop(self.random.randrange(len(self.asked)))
        self.driver.events.append(dataclasses.replace(self._answer(ask), ask=ask.ask))

    def _answer(self, ask: Ask) -> Answer:
        name = ask.stage
        since = self.driver.machine.stages[name].since
        have = {
            index: min(a for a in attempts if a >= since)
            for index, attempts in self.written[name].items()
            if max(attempts) >= since
        }
        above = {"two": "one", "three": "two"}.get(name)
        match ask:
            case Plan() | CheckInputs() if above and len(self.written[above]) < TASKS[above]:
                missing = frozenset(range(TASKS[above])) - self.written[above].keys()
                return InputsChecked(name, {above: missing})
            case Plan():
                return Planned(name, tuple({"n": n} for n in range(TASKS[name])))
            case CheckInputs():
                return InputsChecked(name, {above: frozenset()} if above else {})
            case Observe():
                _, running = self.driver.under_way(name, self.jobs)
                return Observed(name, have, running=running)
            case Record():
                gone = ask.winners.keys() - have.keys()
                if gone:
                    return OutputMissing(name, dict.fromkeys(gone, "it is not there"))
                chosen = {i: have[i] for i in ask.winners}
                contents = {i: self.contents[name][i] for i in chosen}
                self.changed |= self.recorded.get(name, contents) != contents
                self.recorded[name] = contents
                return Recorded(name, contents, winners=chosen)


@pytest.mark.parametrize("seed", range(200))
def test_every_history_ends_and_runs_little_twice(seed: int) -> None:
    """Operators end at any moment, tasks fail and outputs are lost; what is done stays done."""
    world = World(seed)
    trouble = 500
    for step in range(STEPS):
        calm = step > trouble
        draw = world.random.random()
        if draw < 0.04 and not calm:
            world.driver = world.operator()
        elif draw < 0.08 and not calm:
            world.lose()
        elif draw < 0.09 and not calm:
            world.vanish()
        elif draw < 0.3:
            world.end_a_task()
        elif draw < 0.6:
            world.answer()
        else:
            world.look()
        if world.driver.finish is not None:
            break
    finish = world.driver.finish
    assert finish is not None, f"seed {seed}: no end"
    assert finish.failure is None, f"seed {seed}: {finish.failure}"
    world.look()
    assert not world.jobs, f"seed {seed}: Jobs are left"
    for name, stage in world.saved.stages.items():
        assert stage.winners is not None, f"seed {seed}: {name} is not recorded"
        assert all(stage.winners[i] >= stage.since for i in range(TASKS[name]))
        for index, attempts in world.written[name].items():
            assert stage.winners[index] in attempts, f"seed {seed}: {name} {index} wrote nothing"
    if world.changed:
        return
    most = sum(TASKS.values()) + world.failures + world.losses
    assert world.runs <= most, f"seed {seed}: {world.runs} runs of {most}"
