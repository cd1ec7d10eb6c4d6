"""What a simulated worker writes to the store: persist runs, views, and what becomes of them."""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sim_bucket import Content, Write
from sim_decisions import LEASE
from sim_loop import Actor, Process

from crossdock.lifecycle.facts import Facts
from crossdock.lifecycle.lease import Standing, Surroundings
from crossdock.lifecycle.runs import Leftover
from crossdock.lifecycle.unproved import Unproved

if TYPE_CHECKING:
    from sim_world import World

Shuffle = tuple[str, int]
ORDINALS = 6


@dataclass(slots=True, eq=False)
class Run:
    """A persist run, as the worker's disk knows it."""

    name: str
    shuffle: Shuffle
    epoch: int
    attempts: frozenset[int] = frozenset()
    segments: list[str] = field(default_factory=list)
    ordinal: int = 0
    record: Content | None = None
    """Set when it is finished."""


@dataclass(slots=True, eq=False)
class WorkerJob:
    """A job on one worker."""

    uid: str
    standing: Standing
    since: float
    fenced: float = 0.0
    sent: float | None = None
    """When this process last sent a request that makes something in the store."""
    kept: float = 0.0
    """How long the owner was silent, as the disk has it."""
    unproved: Unproved = field(default_factory=Unproved)
    """Releases that this process knows of."""
    damaged: bool = False
    """Whether its files do not read: this process takes and does nothing for it."""
    told_epoch: int = 0
    """The highest that peers told this process of while it is damaged."""
    noted: dict[str, int] = field(default_factory=dict)
    """What was released meanwhile, beside the files."""
    frames: dict[Shuffle, set[int]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)


class Persisting(Actor):
    """The half of a worker that writes to the store."""

    id: str
    around: Surroundings

    def __init__(self, world: "World", name: str, rate: float, offset: float) -> None:
        super().__init__(world.loop, name, rate, offset)
        self.world = world
        self.decide = world.decide

    def may_write(self, job: WorkerJob, shuffle: Shuffle) -> bool:
        return self.decide.may_write(job.standing, self.around, self.local(), shuffle=shuffle)

    def may_publish(self, job: WorkerJob, shuffle: Shuffle, epoch: int) -> bool:
        return self.decide.may_publish(
            job.standing, self.around, self.local(), shuffle=shuffle, epoch=epoch,
            timing=self.decide.timing,
        )  # fmt: skip

    def write(self, job: WorkerJob, shuffle: Shuffle, epoch: int, *, publish: bool) -> Write:
        """Return who writes, for the checks."""
        deadline = float("inf")
        if publish:
            ends = self.decide.right_since(job.standing, self.around) + LEASE
            deadline = self.true_time(ends)
        job.sent = self.local()
        job.standing.facts = self.decide.joined(job.standing.facts, Facts(stored=True))
        write = Write(job.uid, shuffle, self.id, epoch, deadline)
        self.world.checks.sends(write)
        return write

    def publish(self, job: WorkerJob, epoch: int, shuffle: Shuffle, record: Content) -> Process:
        view = "-".join(map(str, sorted(record.attempts)))
        key = self.world.layout(job.uid, shuffle).manifest(view)
        manifest = Content("manifest", record.attempts, record.segments)
        yield "put", key, manifest, self.write(job, shuffle, epoch, publish=True)

    def persist(self, job: WorkerJob, run: Run) -> Process:
        layout = self.world.layout(job.uid, run.shuffle)
        write = self.write(job, run.shuffle, run.epoch, publish=False)
        unsure = (yield "put", layout.intent(run.name), Content("intent"), write) is None
        if unsure:  # nothing may come into being that no intent tells of
            yield from self.conclude(job, run, None, [], unsure=True)
            return
        lost: list[str] = []
        """Uploads that may be there and whose ids are known."""
        whole = True
        pieces = [frozenset(a for a in run.attempts if a % 3 == n) for n in range(3)]
        for piece in pieces:
            if not piece:
                continue
            sent = yield from self.send_segment(job, run, piece, lost)
            unsure |= sent != "sure"
            if sent == "failed":
                whole = False
                break
        record = None
        if whole and self.may_publish(job, run.shuffle, run.epoch):
            record = Content("record", run.attempts, tuple(run.segments))
            write = self.write(job, run.shuffle, run.epoch, publish=True)
            done = yield "put", layout.record(run.name), record, write
            unsure |= done is None
            if done:
                run.record = record
        yield from self.conclude(job, run, record, lost, unsure=unsure)

    def send_segment(
        self, job: WorkerJob, run: Run, piece: frozenset[int], lost: list[str]
    ) -> Process:
        """Write one segment; its answer is "sure", "unsure" or "failed"."""
        layout = self.world.layout(job.uid, run.shuffle)
        content, unsure = Content("segment", piece), False
        for _ in range(2):
            if not self.may_write(job, run.shuffle) or run.ordinal >= ORDINALS:
                return "failed"
            key = layout.segment(run.name, run.ordinal)
            run.ordinal += 1
            done = yield from self.send_object(job, run, key, content, lost)
            if done:
                run.segments.append(key)
                return "unsure" if unsure else "sure"
            unsure = True
        return "failed"

    def send_object(
        self, job: WorkerJob, run: Run, key: str, content: Content, lost: list[str]
    ) -> Process:
        shuffle = run.shuffle
        write = self.write(job, shuffle, run.epoch, publish=False)
        if self.loop.random.random() < 0.5:
            return (yield "put", key, content, write)
        upload = yield "create", key, write
        if upload is None or not self.may_write(job, shuffle):
            lost += [upload] if upload else []
            return None
        lost.append(upload)
        self.write(job, shuffle, run.epoch, publish=False)
        yield "part", upload, write
        if not self.may_write(job, shuffle):
            return None
        self.write(job, shuffle, run.epoch, publish=False)
        done = yield "complete", upload, content, write
        if done:
            lost.remove(upload)
        return done

    def conclude(
        self, job: WorkerJob, run: Run, record: Content | None, lost: list[str], *, unsure: bool
    ) -> Process:
        """Finish a run or undo it, as soon as it is known which."""
        settled = False
        while run.record is None:
            there: bool | None = False
            if record is not None:
                key = self.world.layout(job.uid, run.shuffle).record(run.name)
                there = yield "head", key
                if there is None:
                    yield 0.5
                    continue
            todo = self.decide.leftover(
                record_is_there=there, record_was_sent=record is not None, settled=settled
            )
            if todo is Leftover.UNDO:
                break
            if todo is Leftover.FINISH:
                run.record = record
            else:
                yield self.settle_seconds()
                settled = True
        while not (yield from self.undo(job, run, lost)):
            yield 0.5
        if not self.decide.may_forget(unsure=unsure, settled=settled):
            yield self.settle_seconds()
            while not (yield from self.undo(job, run, lost)):
                yield 0.5
        intent = self.world.layout(job.uid, run.shuffle).intent(run.name)
        yield "delete", [intent], "undo"
        if run.record is None:
            job.runs.pop(run.name, None)

    def settle_seconds(self) -> float:
        timing = self.decide.timing
        return timing.outlast(timing.settle_seconds)

    def undo(self, job: WorkerJob, run: Run, lost: list[str]) -> Process:
        """Delete and abort what the run's record does not name; without one, all.

        Answers whether all of it is done.
        """
        layout = self.world.layout(job.uid, run.shuffle)
        kept = run.record.segments if run.record else ()
        keys = [
            k for k in map(partial(layout.segment, run.name), range(run.ordinal)) if k not in kept
        ]
        done = True
        for upload in lost:
            done &= (yield "abort", upload, "undo") is not None
        for key in keys:
            uploads = yield "uploads", key
            done &= uploads is not None
            for upload, _, _ in uploads or ():
                done &= (yield "abort", upload, "undo") is not None
        if keys:
            done &= (yield "delete", keys, "undo") is not None
        return done

    def recover(self, job: WorkerJob, run: Run) -> Process:
        """Go on with a run that an earlier process has left."""
        prefix = self.world.layout(job.uid, run.shuffle).segments(run.name)
        segments = None
        while segments is None:
            segments = yield "list", prefix
        run.ordinal = ORDINALS
        record = Content("record", run.attempts, tuple(run.segments))
        yield from self.conclude(job, run, record, [], unsure=True)
