"""Simulated owners: a process that owns a job, and the operator."""

from functools import partial
from typing import TYPE_CHECKING, Any

from sim_bucket import Content
from sim_cleaning import ask_all, delete_job, known_to, sweep
from sim_decisions import GRACE, LEASE
from sim_loop import Actor, Process

from crossdock.lifecycle.facts import Facts
from crossdock.lifecycle.stopping import Ender
from crossdock.lifecycle.sweep import LiveJobs
from crossdock.records import Owner

if TYPE_CHECKING:
    from sim_world import World

RENEW_SECONDS = LEASE / 3
SWEEP_SECONDS = 4.0
Shuffle = tuple[str, int]


class Speaker(Actor):
    """Keeps jobs alive by words to every worker."""

    def __init__(self, world: "World", name: str, rate: float, offset: float) -> None:
        super().__init__(world.loop, name, rate, offset)
        self.world = world
        self.tokens: dict[str, tuple[int, float]] = {}
        """By worker, the newest reading of its clock."""
        self.took_over = True
        """Whether no other owner can have rights any more. Until then words give none."""

    def speak(self, uid: str, facts: Facts) -> None:
        world = self.world
        for name in world.names:
            if name in world.gone:
                continue
            token = self.tokens.get(name) if self.took_over else None
            args = (uid, world.owner_of[uid], facts, token)
            reply = partial(self.answered, name, uid, facts)
            self.loop.call(self, world.workers[name], world.handlers["register"], args, reply)

    def answered(self, name: str, uid: str, facts: Facts, answer: Any) -> None:
        if isinstance(answer, str):
            self.refused(uid, answer)
        if answer is None or isinstance(answer, str):  # None: its files of the job are damaged
            return
        first = name not in self.tokens
        life, reading, settled = answer
        if first or self.tokens[name] < (life, reading):
            self.tokens[name] = (life, reading)
        if settled:
            self.accepted(name)
        if first:
            self.speak(uid, facts)

    def accepted(self, name: str) -> None:
        """Note that a worker has taken a word."""

    def refused(self, uid: str, why: str) -> None:
        """Note that a worker has not."""


class JobOwner(Speaker):
    """A runner or driver, and its tasks' commands. Of a cluster's job only these."""

    def __init__(
        self, world: "World", name: str, rate: float, offset: float, *, uid: str, epoch: int
    ) -> None:
        super().__init__(world, name, rate, offset)
        self.uid = uid
        self.epoch = epoch
        self.speaks = world.owner_of[uid] is not Owner.CLUSTER
        self.stopped = False
        self.released: dict[str, int] = {}
        self.took_over = epoch == 0

    def begin(self) -> None:
        """Start the process."""
        if self.speaks:
            self.loop.every(self, RENEW_SECONDS, self.tick)
            if self.epoch:
                self.loop.spawn(self, self.take_over())

    def tick(self) -> None:
        if not self.stopped:
            self.speak(self.uid, Facts(self.epoch, released=dict(self.released)))

    def accepted(self, name: str) -> None:
        if not self.took_over:
            self.stopping.acked(name, self.local())

    def refused(self, uid: str, why: str) -> None:  # noqa: ARG002 -- it has but one job
        self.stopped = True

    def take_over(self) -> Process:
        """Wait until no word or publication of an earlier epoch can count any more."""
        world, timing = self.world, self.world.decide.timing
        workers = [n for n in world.names if n not in world.gone]
        self.stopping = world.decide.stopping(
            workers, ender=Ender.OTHER, lease_seconds=LEASE, began=self.local(), timing=timing
        )
        while not self.stopped:
            yield 0.5
            for name in world.gone:
                self.stopping.gone(name, self.local())
            stopped = self.stopping.stopped(self.local())
            if stopped is not None and self.local() >= stopped + timing.outlast(
                timing.settle_seconds
            ):
                self.took_over = True
                world.taken_over(self.uid, self.epoch)
                return

    @property
    def ender(self) -> Ender:
        return Ender.OWNER if self.speaks and self.took_over else Ender.OTHER

    # -- what its plan says; tasks persist and publish in its name, also when it is no more --

    def persist(self, shuffle: Shuffle) -> None:
        for worker in self.world.reached(self.uid):
            args = (self.uid, self.current_epoch(), shuffle)
            self.loop.call(self.world.tasks, worker, self.world.handlers["persist"], args)

    def publish(self, shuffle: Shuffle) -> None:
        for worker in self.world.reached(self.uid):
            reply = partial(self.has_runs, worker.name, shuffle)
            args, handlers = (self.uid, shuffle), self.world.handlers
            self.loop.call(self.world.tasks, worker, handlers["runs"], args, reply)

    def has_runs(self, name: str, shuffle: Shuffle, records: list[Content]) -> None:
        for record in records[:1]:
            args = (self.uid, self.current_epoch(), shuffle, record)
            worker = self.world.workers[name]
            self.loop.call(self.world.tasks, worker, self.world.handlers["publish"], args)

    def release(self, shuffle: Shuffle) -> None:
        if self.stopped or not self.world.may_release(self):
            return
        name, generation = shuffle
        self.released[name] = max(self.released.get(name, 0), generation + 1)
        truth = self.world.checks.jobs[self.uid].released
        truth[name] = max(truth.get(name, 0), generation + 1)
        world, epoch = self.world, self.current_epoch()
        for worker in world.workers.values():
            args = (self.uid, world.owner_of[self.uid], epoch, shuffle)
            self.loop.call(self, worker, world.handlers["release"], args)

    def end(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        if not self.speaks:
            self.world.ask_for_deletion(self.uid)
            return
        self.world.wants_end(self.uid, self.epoch)
        process = delete_job(self.world, self, self.uid, ender=self.ender, epoch=self.epoch)
        self.loop.spawn(self, process)

    def current_epoch(self) -> int:
        if self.speaks or self.world.operator is None:
            return self.epoch
        return self.world.operator.epoch


class Operator(Speaker):
    """The operator: speaks for the cluster's jobs, deletes them, sweeps. One leads at a time."""

    def __init__(self, world: "World", name: str, rate: float, offset: float) -> None:
        super().__init__(world, name, rate, offset)
        self.epoch = 0

    def begin(self) -> None:
        """Start the process, as the new leader."""
        self.epoch += 1
        self.tokens = {}
        self.deleting: set[str] = set()
        self.known: dict[str, bool] = dict(self.world.api)
        self.known_at = self.local()
        self.loop.every(self, RENEW_SECONDS, self.tick)
        self.loop.every(self, SWEEP_SECONDS, self.start_sweep)

    def restart(self) -> None:
        self.alive = True
        self.life += 1
        self.begin()

    def tick(self) -> None:
        if not self.world.api_is_stale:
            self.known, self.known_at = dict(self.world.api), self.local()
        for uid, ends in self.known.items():
            if not ends:
                self.speak(uid, Facts(self.epoch))
            elif uid not in self.deleting:
                self.deleting.add(uid)
                process = delete_job(
                    self.world, self, uid, ender=Ender.OPERATOR, epoch=self.epoch,
                    done=self.finished,
                )  # fmt: skip
                self.loop.spawn(self, process)

    def finished(self, uid: str) -> None:
        self.deleting.discard(uid)
        if self.world.checks.jobs[uid].reported:
            self.world.api.pop(uid, None)
            self.known.pop(uid, None)

    def start_sweep(self) -> None:
        self.loop.spawn(self, self.sweep())

    def sweep(self) -> Process:
        decide, since = self.world.decide, self.known_at
        uids = frozenset(self.known)
        answers = yield from ask_all(self.world, self)
        live = decide.live_jobs(
            known_to(answers), longest_seconds=decide.timing.outlast(LEASE + GRACE),
            age_seconds=self.local() - since,
        )  # fmt: skip
        if live is not None:
            processes = {u for u in live.uids
                         if self.world.owner_of[u] is not Owner.CLUSTER}  # fmt: skip
            live = LiveJobs(uids | processes, live.age_seconds)
        yield from sweep(self.world, self, live, answers)
