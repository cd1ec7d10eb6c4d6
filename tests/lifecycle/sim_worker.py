"""A simulated worker: what it keeps, what it answers, and its persist runs."""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from crossdock.lifecycle import words
from crossdock.lifecycle.facts import NOTHING_KNOWN, Facts, Stage
from crossdock.lifecycle.lease import Lease, Peer, Standing
from crossdock.lifecycle.runs import Leftover
from crossdock.records import Owner
from sim_bucket import Content, Write
from sim_cleaning import delete_job, sweep_workers
from sim_decisions import GRACE, LEASE
from sim_loop import Actor, Process

if TYPE_CHECKING:
    from sim_world import World

Shuffle = tuple[str, int]
NOBODY = 1 << 63
ORDINALS = 6
GOSSIP_SECONDS = 1.5
SWEEP_SECONDS = 4.0


@dataclass(slots=True, eq=False)
class Run:
    """A persist run, as the worker's disk knows it."""

    name: str
    shuffle: Shuffle
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
    frames: dict[Shuffle, set[int]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)


class Worker(Actor):
    """One worker. `name` is its address; `id` is its disk."""

    def __init__(self, world: "World", name: str, rate: float, offset: float) -> None:
        super().__init__(world.loop, name, rate, offset)
        self.world = world
        self.decide = world.decide
        self.disks = 1
        self.id = f"{name}.1"
        self.jobs: dict[str, WorkerJob] = {}
        self.settled = True
        self.gone: set[str] = set()
        self.runs = 0

    def begin(self) -> None:
        """Start the process."""
        self.started = self.remembers = self.local()
        self.cleaning: set[str] = set()
        self.next_sweep = self.started
        never = Peer(words.NEVER, settled=False)
        names = self.world.names
        self.peers = {n: never for n in names if n != self.name and n not in self.gone}
        self.look_around()
        self.loop.every(self, GOSSIP_SECONDS, self.tick)

    def restart(self, *, empty: bool) -> None:
        """Come back, on the same disk or an empty one."""
        self.alive = True
        self.life += 1
        if empty:
            self.world.disk_lost(self)
            self.disks += 1
            self.id = f"{self.name}.{self.disks}"
            self.jobs = {}
            self.settled = False
            self.gone = set()
        now = self.local()
        for job in self.jobs.values():
            job.standing.heard = self.decide.unheard(now)
            job.standing.itself = job.standing.heard.perhaps
            job.standing.facts = self.decide.restored(job.standing.facts)
            job.fenced = job.since = now
        self.begin()
        for job in self.jobs.values():
            for run in list(job.runs.values()):
                if run.record is None:
                    self.loop.spawn(self, self.recover(job, run))

    def look_around(self) -> None:
        self.around = self.decide.surroundings(kept_disk=self.settled, peers=self.peers.values())
        self.settled = self.around.settled

    # -- what it does by itself --------------------------------------------------------------

    def tick(self) -> None:
        now = self.local()
        for name in self.world.gone - self.gone:
            self.gone.add(name)
            self.peers.pop(name, None)
            self.remembers = now
            for job in self.jobs.values():
                self.hear(job, words.Heard(words.NEVER, now))
            self.look_around()
        for name in self.peers:
            reply = partial(self.peer_answered, name, now)
            self.loop.call(self, self.world.workers[name], Worker.on_ask, (), reply)
        for job in list(self.jobs.values()):
            self.look_after(job, now)
        if self.world.operator is None and now >= self.next_sweep and not self.rank():
            self.next_sweep = now + SWEEP_SECONDS
            self.loop.spawn(self, sweep_workers(self.world, self))

    def rank(self) -> int:
        return sum(1 for name in self.peers if name < self.name)

    def look_after(self, job: WorkerJob, now: float) -> None:
        if job.standing.facts.stage is not Stage.LIVE:
            self.remove_files(job)
        if job.uid not in self.cleaning and self.decide.must_clean(
            job.standing, self.around, now,
            fenced=job.fenced, rank=self.rank(), timing=self.decide.timing,
        ):  # fmt: skip
            self.cleaning.add(job.uid)
            self.loop.spawn(self, delete_job(self.world, self, job.uid, done=self.cleaned))

    def cleaned(self, uid: str) -> None:
        self.cleaning.discard(uid)

    def remove_files(self, job: WorkerJob, below: Shuffle | None = None) -> None:
        for shuffle in list(job.frames):
            if below is None or (shuffle[0] == below[0] and shuffle[1] <= below[1]):
                self.world.checks.local_removed(self.id, job.uid, shuffle)
                del job.frames[shuffle]
                for run in [r for r in job.runs.values() if r.shuffle == shuffle]:
                    del job.runs[run.name]

    # -- what it learns ----------------------------------------------------------------------

    def hear(self, job: WorkerJob, heard: words.Heard) -> None:
        job.standing.heard = words.later(job.standing.heard, heard)

    def learn(self, job: WorkerJob, facts: Facts) -> None:
        before = job.standing.facts
        after = job.standing.facts = self.decide.joined(before, facts)
        if before.stage is Stage.LIVE and after.stage is not Stage.LIVE:
            job.fenced = self.local()
            self.remove_files(job)
        elif after.released is not before.released:
            for name, generation in after.released.items():
                self.remove_files(job, (name, generation - 1))

    def job(self, uid: str, owner: Owner, *, introduced: bool = False) -> WorkerJob:
        found = self.jobs.get(uid)
        if found is None:
            heard = self.decide.unheard(self.local() if introduced else self.remembers)
            standing = Standing(owner, LEASE, GRACE, heard, heard.perhaps, NOTHING_KNOWN)
            found = self.jobs[uid] = WorkerJob(uid, standing, self.local())
        return found

    def peer_answered(self, name: str, asked: float, answer: Any) -> None:
        uptime, settled, rows = answer
        if name not in self.peers:
            return
        now = self.local()
        told = set()
        for uid, owner, facts, ages in rows:
            job = self.job(uid, owner)
            self.hear(job, self.decide.relayed(ages, asked=asked, now=now))
            self.learn(job, facts)
            told.add(uid)
        if len(told) < len(self.jobs):
            not_told = words.Heard(words.NEVER, now - uptime)
            for uid, job in self.jobs.items():
                if uid not in told:
                    self.hear(job, not_told)
        if asked > self.peers[name].asked:
            self.peers[name] = Peer(asked, settled=settled)
            self.look_around()

    # -- what it answers ---------------------------------------------------------------------

    def on_ask(self) -> Any:
        now = self.local()
        rows = [
            (j.uid, j.standing.owner, j.standing.facts, j.standing.ages(now))
            for j in self.jobs.values()
        ]
        return now - self.remembers, self.settled, rows

    def on_describe(self) -> Any:
        now = self.local()
        live = {j.uid: now - j.since for j in self.jobs.values()
                if j.standing.facts.stage is Stage.LIVE}  # fmt: skip
        return now - self.remembers, live

    def on_register(
        self, uid: str, owner: Owner, facts: Facts, token: tuple[int, float] | None
    ) -> Any:
        job = self.job(uid, owner)
        if job.standing.facts.stage is not Stage.LIVE:
            return "fenced"
        if self.decide.is_stale(job.standing.facts, facts.epoch):
            return "stale"
        self.learn(job, facts)
        now = self.local()
        as_of = token[1] if token is not None and token[0] == self.life else None
        heard = self.decide.direct(as_of, now)
        self.hear(job, heard)
        job.standing.itself = heard.perhaps
        self.world.checks.heard(uid, facts.epoch)
        return self.life, now, self.settled

    def on_push(self, uid: str, owner: Owner, epoch: int, shuffle: Shuffle, attempt: int) -> None:
        job = self.job(uid, owner, introduced=True)
        facts = job.standing.facts
        if facts.stage is not Stage.LIVE or self.decide.is_stale(facts, epoch):
            return
        lease = self.decide.lease_state(
            job.standing, self.around, self.local(), self.decide.timing
        )
        if lease is not Lease.LIVE:
            self.world.checks.refused(uid, "ended")
        elif not facts.is_released(*shuffle):
            job.frames.setdefault(shuffle, set()).add(attempt)

    def on_tell(self, uid: str, owner: Owner, epoch: int, stage: Stage) -> str:
        """Fence a job and delete its files; or hear that it is clean."""
        job = self.job(uid, owner)
        if not self.settled:
            return "later"
        if self.decide.is_stale(job.standing.facts, epoch):
            return "stale"
        if stage is Stage.FENCED:
            self.world.fence_taken(self, uid, epoch)
        self.learn(job, Facts(min(epoch, job.standing.facts.epoch), stage))
        return "done"

    def on_release(self, uid: str, owner: Owner, epoch: int, shuffle: Shuffle) -> str:
        job = self.job(uid, owner)
        if not self.settled:
            return "later"
        if self.decide.is_stale(job.standing.facts, epoch):
            return "stale"
        self.learn(job, Facts(released={shuffle[0]: shuffle[1] + 1}))
        return "done"

    def on_persist(self, uid: str, epoch: int, shuffle: Shuffle) -> None:
        job = self.jobs.get(uid)
        if job is None or not job.frames.get(shuffle) or len(job.runs) > 2:
            return
        if self.decide.is_stale(job.standing.facts, epoch) or not self.may_write(job, shuffle):
            return
        self.runs += 1
        run = Run(f"{self.id}-{self.runs}", shuffle, frozenset(job.frames[shuffle]))
        job.runs[run.name] = run
        self.loop.spawn(self, self.persist(job, run, epoch))

    def on_runs(self, uid: str, shuffle: Shuffle) -> list[Content]:
        job = self.jobs.get(uid)
        if job is None:
            return []
        return [r.record for r in job.runs.values() if r.record and r.shuffle == shuffle]

    def on_publish(self, uid: str, epoch: int, shuffle: Shuffle, record: Content) -> None:
        job = self.jobs.get(uid)
        if job is not None and self.may_publish(job, shuffle, epoch):
            self.loop.spawn(self, self.publish(job, epoch, shuffle, record))

    # -- writing to the store ----------------------------------------------------------------

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
        write = Write(job.uid, shuffle, self.id, epoch, deadline)
        self.world.checks.sends(write)
        return write

    def publish(self, job: WorkerJob, epoch: int, shuffle: Shuffle, record: Content) -> Process:
        view = "-".join(map(str, sorted(record.attempts)))
        key = self.world.layout(job.uid, shuffle).manifest(view)
        manifest = Content("manifest", record.attempts, record.segments)
        yield "put", key, manifest, self.write(job, shuffle, epoch, publish=True)

    def persist(self, job: WorkerJob, run: Run, epoch: int) -> Process:
        layout = self.world.layout(job.uid, run.shuffle)
        write = self.write(job, run.shuffle, epoch, publish=False)
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
            sent = yield from self.send_segment(job, run, epoch, piece, lost)
            unsure |= sent != "sure"
            if sent == "failed":
                whole = False
                break
        record = None
        if whole and self.may_publish(job, run.shuffle, epoch):
            record = Content("record", run.attempts, tuple(run.segments))
            write = self.write(job, run.shuffle, epoch, publish=True)
            done = yield "put", layout.record(run.name), record, write
            unsure |= done is None
            if done:
                run.record = record
        yield from self.conclude(job, run, record, lost, unsure=unsure)

    def send_segment(
        self, job: WorkerJob, run: Run, epoch: int, piece: frozenset[int], lost: list[str]
    ) -> Process:
        """Write one segment; its answer is "sure", "unsure" or "failed"."""
        layout = self.world.layout(job.uid, run.shuffle)
        content, unsure = Content("segment", piece), False
        for _ in range(2):
            if not self.may_write(job, run.shuffle) or run.ordinal >= ORDINALS:
                return "failed"
            key = layout.segment(run.name, run.ordinal)
            run.ordinal += 1
            done = yield from self.send_object(job, run, epoch, key, content, lost)
            if done:
                run.segments.append(key)
                return "unsure" if unsure else "sure"
            unsure = True
        return "failed"

    def send_object(
        self, job: WorkerJob, run: Run, epoch: int, key: str, content: Content, lost: list[str]
    ) -> Process:
        shuffle = run.shuffle
        write = self.write(job, shuffle, epoch, publish=False)
        if self.loop.random.random() < 0.5:
            return (yield "put", key, content, write)
        upload = yield "create", key, write
        if upload is None or not self.may_write(job, shuffle):
            lost += [upload] if upload else []
            return None
        lost.append(upload)
        self.write(job, shuffle, epoch, publish=False)
        yield "part", upload, write
        if not self.may_write(job, shuffle):
            return None
        self.write(job, shuffle, epoch, publish=False)
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
