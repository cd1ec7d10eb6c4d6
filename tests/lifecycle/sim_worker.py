"""A simulated worker: what it keeps, does by itself, what it answers."""

from functools import partial
from typing import TYPE_CHECKING, Any

from sim_bucket import Content
from sim_cleaning import clear_released, delete_job, sweep_workers
from sim_decisions import GRACE, LEASE
from sim_runs import Persisting, Run, Shuffle, WorkerJob

from crossdock.lifecycle import words
from crossdock.lifecycle.facts import NOTHING_KNOWN, Facts, Stage
from crossdock.lifecycle.lease import Lease, Peer, Standing
from crossdock.lifecycle.unproved import Unproved
from crossdock.records import Owner
from crossdock.wire.names import U64_MAX

if TYPE_CHECKING:
    from sim_world import World

GOSSIP_SECONDS = 1.5
SWEEP_SECONDS = 4.0


class Worker(Persisting):
    """One worker. `name` is its address; `id` is its disk."""

    def __init__(self, world: "World", name: str, rate: float, offset: float) -> None:
        super().__init__(world, name, rate, offset)
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
        self.clearing: set[tuple[str, str]] = set()
        self.next_sweep = self.started
        never = Peer(words.NEVER, settled=False)
        names = self.world.names
        self.peers = {n: never for n in names if n != self.name and n not in self.gone}
        self.look_around()
        self.loop.every(self, GOSSIP_SECONDS, self.tick)

    def die(self) -> None:
        super().die()
        self.died = self.local()

    def restart(self, *, empty: bool, damaged: bool = False) -> None:
        """Come back, on the same disk or an empty one, or on one with jobs that do not read."""
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
            silent = self.decide.resumed(job.kept, now - self.died)
            job.standing.heard = self.decide.unheard(now - silent)
            job.standing.itself = job.standing.heard.perhaps
            job.standing.facts = self.decide.restored(job.standing.facts)
            job.since, job.sent = now, None
            job.told_epoch = 0
            job.damaged = damaged and job.standing.facts.stage is Stage.LIVE
            if not damaged:
                job.standing.facts = self.decide.mended(job.standing.facts, job.noted)
                for name, _ in [s for s in job.frames if job.standing.facts.is_released(*s)]:
                    self.remove_files(job, (name, job.standing.facts.released[name] - 1))
            job.unproved = Unproved()
            for name, generations in self.decide.to_clear(job.standing.facts).items():
                job.unproved.released(name, generations.stop, now)
        self.begin()
        for job in self.sound():
            for run in list(job.runs.values()):
                if run.record is None:
                    self.loop.spawn(self, self.recover(job, run))

    def sound(self) -> list[WorkerJob]:
        """Return the jobs whose files read."""
        return [job for job in self.jobs.values() if not job.damaged]

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
                job.standing.itself, job.kept = now, 0.0
            self.look_around()
        for name in self.peers:
            reply = partial(self.peer_answered, name, now)
            self.loop.call(self, self.world.workers[name], Worker.on_ask, (), reply)
        for job in self.sound():
            self.look_after(job, now)
        if self.world.operator is None and now >= self.next_sweep and not self.rank():
            self.next_sweep = now + SWEEP_SECONDS
            self.loop.spawn(self, sweep_workers(self.world, self))

    def rank(self) -> int:
        return self.decide.rank_of(self.name, self.peers)

    def look_after(self, job: WorkerJob, now: float) -> None:
        silent = now - job.standing.itself
        kept = self.decide.silence_to_keep(silent, lease_seconds=LEASE, grace_seconds=GRACE)
        job.kept = max(job.kept, kept)
        if job.standing.facts.stage is not Stage.LIVE:
            self.remove_files(job)
        if job.uid not in self.cleaning and self.decide.must_clean(
            job.standing, self.around, now,
            fenced=job.fenced, rank=self.rank(), timing=self.decide.timing,
        ):  # fmt: skip
            self.cleaning.add(job.uid)
            self.loop.spawn(self, delete_job(self.world, self, job.uid, done=self.cleaned))

        for name, generations in self.decide.to_clear(job.standing.facts).items():
            turn = self.decide.is_turn_to_clear(
                job.standing, now,
                since=job.unproved.since(name) or now, rank=self.rank(), timing=self.decide.timing,
            )  # fmt: skip
            if turn and (job.uid, name) not in self.clearing:
                self.clearing.add((job.uid, name))
                process = clear_released(
                    self.world, self, (job.uid, name), generations, self.cleared
                )
                self.loop.spawn(self, process)

    def cleared(self, uid: str, name: str, first: int) -> None:
        self.clearing.discard((uid, name))
        self.learn(self.jobs[uid], Facts(cleared={name: first}))

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
        for name, first in after.cleared.items():
            job.unproved.proved(name, first)
        if before.stage is Stage.LIVE and after.stage is not Stage.LIVE:
            job.fenced, job.damaged = self.local(), False
            self.remove_files(job)
        elif after.released is not before.released:
            for name, generation in after.released.items():
                if before.released.get(name, 0) < generation:
                    job.unproved.released(name, generation, self.local())
                self.remove_files(job, (name, generation - 1))

    def job(self, uid: str, owner: Owner) -> WorkerJob:
        found = self.jobs.get(uid)
        if found is None:
            heard = self.decide.unheard(self.local())
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
            told.add(uid)
            if job.damaged and facts.stage is Stage.LIVE:
                job.told_epoch = max(job.told_epoch, facts.epoch)
                continue
            self.hear(job, self.decide.relayed(ages, asked=asked, now=now))
            self.learn(job, facts)
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
            (j.uid, j.standing.owner, j.standing.facts, j.standing.ages(now)) for j in self.sound()
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
        if job.damaged:
            return None
        if self.decide.is_stale(job.standing.facts, facts.epoch):
            return "stale"
        self.learn(job, facts)
        now = self.local()
        as_of = token[1] if token is not None and token[0] == self.life else None
        heard = self.decide.direct(as_of, now)
        self.hear(job, heard)
        job.standing.itself = heard.perhaps
        job.kept = self.decide.voided(job.kept)
        self.world.checks.heard(uid, facts.epoch)
        return self.life, now, self.settled

    def on_push(self, uid: str, owner: Owner, epoch: int, shuffle: Shuffle, attempt: int) -> None:
        job = self.job(uid, owner)
        facts = job.standing.facts
        if facts.stage is not Stage.LIVE or job.damaged or self.decide.is_stale(facts, epoch):
            return
        lease = self.decide.lease_state(job.standing, self.around, self.local(), self.decide.timing)
        if lease is not Lease.LIVE:
            self.world.checks.refused(uid, "ended")
        elif not facts.is_released(*shuffle):
            job.frames.setdefault(shuffle, set()).add(attempt)

    def on_tell(self, uid: str, owner: Owner, epoch: int, stage: Stage) -> str | float:
        """Fence a job and delete its files; or hear that it is clean.

        Answers for how long it has sent the store nothing, or why it does not.
        """
        job = self.job(uid, owner)
        if not self.settled:
            return "later"
        if job.damaged:
            may_end = self.decide.may_end_damaged(self.around, epoch, job.told_epoch)
            if not may_end:
                return "later" if may_end is None else "stale"
        elif self.decide.is_stale(job.standing.facts, epoch):
            return "stale"
        if stage is Stage.FENCED:
            self.world.fence_taken(self, uid, epoch)
        self.learn(job, Facts(min(epoch, job.standing.facts.epoch), stage))
        return self.local() - self.decide.idle_since(job.sent, self.started)

    def on_release(self, uid: str, owner: Owner, epoch: int, shuffle: Shuffle) -> str | float:
        job = self.job(uid, owner)
        if not self.settled:
            return "later"
        if job.damaged:
            if epoch != U64_MAX:
                return "later"
            job.noted[shuffle[0]] = max(job.noted.get(shuffle[0], 0), shuffle[1] + 1)
        elif self.decide.is_stale(job.standing.facts, epoch):
            return "stale"
        else:
            self.learn(job, Facts(released={shuffle[0]: shuffle[1] + 1}))
        self.world.checks.acked_release(self.id, uid, shuffle[0], shuffle[1] + 1)
        return self.local() - self.decide.idle_since(job.sent, self.started)

    def on_persist(self, uid: str, epoch: int, shuffle: Shuffle) -> None:
        job = self.jobs.get(uid)
        if job is None or job.damaged or not job.frames.get(shuffle) or len(job.runs) > 2:
            return
        if self.decide.is_stale(job.standing.facts, epoch) or not self.may_write(job, shuffle):
            return
        self.runs += 1
        attempts = frozenset(job.frames[shuffle])
        run = Run(f"{self.id}-{self.runs}", shuffle, epoch, attempts)
        job.runs[run.name] = run
        self.loop.spawn(self, self.persist(job, run))

    def on_runs(self, uid: str, shuffle: Shuffle) -> list[Content]:
        job = self.jobs.get(uid)
        if job is None or job.damaged:
            return []
        return [r.record for r in job.runs.values() if r.record and r.shuffle == shuffle]

    def on_publish(self, uid: str, epoch: int, shuffle: Shuffle, record: Content) -> None:
        job = self.jobs.get(uid)
        if job is not None and not job.damaged and self.may_publish(job, shuffle, epoch):
            self.loop.spawn(self, self.publish(job, epoch, shuffle, record))
