"""One simulated history: a cluster, its jobs, what happens to them, and what is left at the end."""

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

from sim_bucket import Bucket, Content
from sim_checks import CLUSTER, Checks, Truth
from sim_decisions import GRACE, LEASE, SWEEP_GRACE, Decisions
from sim_loop import Actor, Loop
from sim_owner import JobOwner, Operator
from sim_plan import BUSY_SECONDS, Item, Plan
from sim_worker import GOSSIP_SECONDS, SWEEP_SECONDS, Worker

from crossdock.lifecycle.facts import Stage
from crossdock.records import Owner
from crossdock.store.layout import ShuffleLayout
from crossdock.views import ShuffleKey

WORK_SECONDS = 6.0
FOREIGN = (
    "c10/j1/0000/a/0/segments/r-1/000000",
    "c10/j9/0000/a/0/intents/r-1",
    "other/j1/0000/a/0/records/r-1",
    "c1/j1-results/part-0.parquet",
    "c1/j10",
    "c1.txt",
    "reports/2024.csv",
)
HANDLERS: dict[str, Callable[..., Any]] = {
    "register": Worker.on_register,
    "tell": Worker.on_tell,
    "release": Worker.on_release,
    "describe": Worker.on_describe,
    "persist": Worker.on_persist,
    "publish": Worker.on_publish,
    "runs": Worker.on_runs,
}


@lru_cache(maxsize=64)
def layout_of(uid: str, shuffle: tuple[str, int]) -> ShuffleLayout:
    """Return where a shuffle of the cluster lies."""
    return ShuffleLayout.of(CLUSTER, ShuffleKey(uid, *shuffle))


class World:
    """Plays a plan, or the items of it that are kept; raises `Violation`."""

    handlers = HANDLERS
    layout = staticmethod(layout_of)

    def __init__(
        self,
        plan: Plan,
        decide: Decisions,
        *,
        kept: Collection[int] | None = None,
        tracing: bool = False,
    ) -> None:
        self.plan = plan
        self.decide = decide
        self.loop = loop = Loop(plan.seed)
        loop.tracing = tracing
        self.items = [i for n, i in enumerate(plan.items) if kept is None or n in kept]
        self.checks = Checks(loop, patience=LEASE + GRACE, breaks_bound=plan.breaks_bound)
        self.bucket = Bucket(
            loop, self.checks, settle=decide.timing.settle_seconds,
            lists_uploads=plan.lists_uploads, lag=plan.lag, slow=plan.store_seconds,
        )  # fmt: skip
        self.bucket.breaks_bound = plan.breaks_bound
        for key in FOREIGN:
            self.bucket.objects[key] = (Content("foreign"), -1e6)
        self.bucket.uploads["foreign"] = (FOREIGN[0], -1e6)
        self.names = [f"w{n}" for n in range(plan.workers)]
        self.gone: set[str] = set()
        self.destroyed: set[str] = set()
        self.owner_of = {uid: owner for uid, owner, _ in plan.jobs}
        self.api: dict[str, bool] = {}
        """The cluster's jobs, and whether they are to be deleted."""
        self.api_is_stale = 0
        self.ends: set[tuple[str, int]] = set()
        self.over = False
        self.hidden: dict[str, str] = {}
        clocks = iter(plan.clocks)
        self.operator: Operator | None = None
        self.workers: dict[str, Worker] = {}
        for name in self.names:
            self.workers[name] = Worker(self, name, *next(clocks))
        if plan.operator:
            self.operator = Operator(self, "operator", *next(clocks))
            self.operator.begin()
        for worker in self.workers.values():
            worker.begin()
        self.owners: dict[str, list[JobOwner]] = {}
        self.tasks = Actor(loop, "tasks", 1.0, 0.0)
        for uid, owner, begins in plan.jobs:
            self.checks.jobs[uid] = Truth(owner, heard=begins)
            self.owners[uid] = [JobOwner(self, f"owner of {uid}", *next(clocks), uid=uid, epoch=0)]
            loop.at(begins, self.begin, uid)
        self.clocks = clocks

    def begin(self, uid: str) -> None:
        """Let a job begin: its owner speaks."""
        if self.owner_of[uid] is not Owner.CLUSTER:
            self.owners[uid][0].begin()
            return
        self.api[uid] = False
        if self.operator is not None:
            self.loop.call(self.tasks, self.operator, Operator.tick, ())

    def run(self) -> "World":
        """Play it to its end."""
        loop = self.loop
        for item in self.items:
            loop.at(item.at, self.happen, item)
        quiet = max([BUSY_SECONDS, *(i.at + i.seconds for i in self.items)])
        if self.plan.breaks_bound:
            quiet += 4 * self.decide.timing.settle_seconds
        self.deadline = quiet + self.bound()
        loop.at(quiet, self.look)
        loop.run(lambda: self.over)
        return self

    def bound(self) -> float:
        """Within what nothing is left of dead jobs, once nothing goes wrong any more."""
        timing = self.decide.timing
        silent = timing.outlast(LEASE + GRACE) + 2 * GOSSIP_SECONDS
        by_deletion = silent + timing.outlast(timing.settle_seconds)
        by_sweep = timing.outlast(max(SWEEP_GRACE, silent)) + SWEEP_SECONDS + GOSSIP_SECONDS
        return max(by_deletion, by_sweep) * 1.05 + WORK_SECONDS + 40 * self.plan.store_seconds

    def look(self) -> None:
        """End when nothing is left, fail when something still is."""
        for uid in self.owner_of:
            self.checks.read(self.bucket, uid)
        left = self.left()
        if not left and not self.bucket.in_flight:
            self.over = True
            self.check_foreign()
        elif self.loop.now > self.deadline:
            self.checks.fail(f"left behind: {left[0] if left else 'a request under way'}")
        else:
            self.loop.at(self.loop.now + 1.0, self.look)

    def left(self) -> list[str]:
        """Return what there still is of dead jobs."""
        left = []
        for uid in self.owner_of:
            if not self.is_dead(uid):
                left += self.released_left(uid)
                continue
            left += self.checks.left_in_store(uid, self.bucket)
            if uid in self.api:
                left.append(f"{uid} in the API")
            for worker in self.workers.values():
                job = worker.jobs.get(uid)
                if worker.name in self.destroyed or job is None:
                    continue
                if job.frames or job.standing.facts.stage is Stage.LIVE:
                    left.append(f"{uid} on {worker.id}")
        return left

    def released_left(self, uid: str) -> list[str]:
        """Return what released shuffles of a live job still have, if a worker can know of it."""
        if self.plan.breaks_bound or not self.checks.lives(uid):
            return []
        left = []
        for worker in self.workers.values():
            job = worker.jobs.get(uid)
            if worker.name in self.destroyed or job is None or not job.standing.facts.stored:
                continue
            for name, stop in job.standing.facts.released.items():
                prefixes = [self.layout(uid, (name, g)).prefix for g in range(stop)]
                left += [k for k in self.bucket.objects if any(map(k.startswith, prefixes))]
        return left

    def is_dead(self, uid: str) -> bool:
        """Whether nothing of a job may stay: it was ended, or nobody speaks for it."""
        truth = self.checks.jobs[uid]
        if truth.owner is Owner.CLUSTER:
            return truth.ended
        ended = truth.wished and not truth.void  # else a new owner may have begun anew
        return ended or not any(o.alive and not o.stopped for o in self.owners[uid])

    def check_foreign(self) -> None:
        for key in FOREIGN:
            if key not in self.bucket.objects:
                self.checks.fail(f"{key} is foreign, and gone")

    # -- what actors tell of themselves ------------------------------------------------------

    def wants_end(self, uid: str, epoch: int) -> None:
        """An owner ends its job; one that was taken over does so in vain."""
        self.ends.add((uid, epoch))
        truth = self.checks.jobs[uid]
        if epoch >= truth.epoch and len(self.owners[uid]) == 1:
            truth.ended = True

    def fence_taken(self, worker: Worker, uid: str, epoch: int) -> None:
        truth = self.checks.jobs[uid]
        if (uid, epoch) in self.ends and (epoch >= truth.epoch or truth.void):
            truth.ended = truth.wished = True
        self.checks.acked_fence(worker.id, uid, epoch)

    def ask_for_deletion(self, uid: str) -> None:
        self.checks.jobs[uid].ended = True
        if uid in self.api:
            self.api[uid] = True
            if self.operator is not None:
                self.loop.call(self.tasks, self.operator, Operator.tick, ())

    def taken_over(self, uid: str, epoch: int) -> None:
        truth = self.checks.jobs[uid]
        truth.epoch = max(truth.epoch, epoch)

    def may_release(self, owner: JobOwner) -> bool:
        """Only who owns the job for sure: what is released is never wanted by another owner."""
        return len(self.owners[owner.uid]) == 1

    def disk_lost(self, worker: Worker) -> None:
        """Facts that only this disk knew are lost, and what relies on them is not checked."""
        for uid, job in worker.jobs.items():
            facts = job.standing.facts
            others = [
                w.jobs[uid].standing.facts for w in self.workers.values()
                if w is not worker and w.name not in self.destroyed and uid in w.jobs
            ]  # fmt: skip
            known = any(
                f.stage >= min(facts.stage, Stage.FENCED)
                and f.epoch >= facts.epoch
                and all(f.released.get(n, 0) >= g for n, g in facts.released.items())
                for f in others
            )
            if not known:
                self.checks.jobs[uid].void = True

    # -- what happens ------------------------------------------------------------------------

    def happen(self, item: Item) -> None:
        if self.loop.tracing:
            self.loop.note(f"-- {str(item)[10:]}")
        getattr(self, "_" + item.what.replace(" ", "_"))(item)

    def reached(self, uid: str) -> list[Worker]:
        """Return the workers that a job's tasks reach."""
        hidden = self.hidden.get(uid)
        return [self.workers[hidden]] if hidden else list(self.workers.values())

    def _hide(self, item: Item) -> None:
        """Let a job and one worker be cut off from all the others, tasks included."""
        self.hidden[item.who] = item.more
        island = frozenset((item.more, f"owner of {item.who}"))
        self.loop.islands.append(island)
        self._after(item, self._unhide, item.who, island)

    def _unhide(self, uid: str, island: frozenset[str]) -> None:
        del self.hidden[uid]
        self.loop.islands.remove(island)

    def _after(self, item: Item, do: Callable[..., None], *args: Any) -> None:
        self.loop.at(self.loop.now + item.seconds, do, *args)

    def _push(self, item: Item) -> None:
        attempt, shuffle = item.more
        worker = self.loop.random.choice(self.reached(item.who))
        owner = self.owners[item.who][-1]
        args = (item.who, self.owner_of[item.who], owner.current_epoch(), shuffle, attempt)
        self.loop.call(self.tasks, worker, Worker.on_push, args)

    def _each_owner(self, uid: str, do: Callable[[JobOwner], None]) -> None:
        for owner in self.owners[uid]:
            if owner.alive and owner.paused_until <= self.loop.now:
                do(owner)

    def _persist(self, item: Item) -> None:
        for owner in self.owners[item.who]:
            owner.persist(item.more)

    def _publish(self, item: Item) -> None:
        for owner in self.owners[item.who]:
            owner.publish(item.more)

    def _release(self, item: Item) -> None:
        self._each_owner(item.who, lambda o: o.release(item.more))

    def _end(self, item: Item) -> None:
        self._each_owner(item.who, JobOwner.end)

    def _read(self, item: Item) -> None:
        self.checks.read(self.bucket, item.who)

    def _kill_owner(self, item: Item) -> None:
        owner = self.owners[item.who][-1]
        if owner.alive:
            owner.die()

    def _new_owner(self, item: Item) -> None:
        owners = self.owners[item.who]
        new = JobOwner(
            self, owners[0].name + "'", *next(self.clocks), uid=item.who, epoch=len(owners)
        )
        new.begin()
        owners.append(new)

    def _crash(self, item: Item) -> None:
        self._down(self.workers[item.who], item)

    def _damage(self, item: Item) -> None:
        """A worker comes back and cannot read its jobs, until somebody has mended their files."""
        worker = self.workers[item.who]
        for after, damaged in ((0.0, True), (item.seconds, False)):
            self.loop.at(self.loop.now + after, self._read_again, worker, damaged)

    def _read_again(self, worker: Worker, damaged: bool) -> None:
        if worker.name not in self.destroyed:
            if worker.alive:
                worker.die()
            worker.restart(empty=False, damaged=damaged)
            self._who_listens()

    def _outage(self, item: Item) -> None:
        """All workers die, and come back one after the other."""
        for number, worker in enumerate(self.workers.values()):
            self._down(worker, item._replace(seconds=item.seconds + number * item.more, more=False))

    def _down(self, worker: Worker, item: Item) -> None:
        if worker.alive:
            worker.die()
            self._after(item, self._restart, worker, item.more)
            self._who_listens()

    def _restart(self, worker: Worker, empty: bool) -> None:
        if worker.name not in self.destroyed:
            worker.restart(empty=empty)
            self._who_listens()

    def _who_listens(self) -> None:
        self.checks.listening(somebody=any(w.alive for w in self.workers.values()))

    def _destroy(self, item: Item) -> None:
        """A worker and its disk are lost; an admin says so a while later."""
        if item.who in self.destroyed or len(self.destroyed) + 1 >= len(self.names):
            return
        worker = self.workers[item.who]
        worker.die()
        self._who_listens()
        self.destroyed.add(item.who)
        self.disk_lost(worker)
        self._after(item, self.gone.add, item.who)

    def _pause(self, item: Item) -> None:
        until = self.loop.now + item.seconds
        if item.who in self.workers:
            self.workers[item.who].paused_until = until
        else:
            for owner in self.owners[item.who.removeprefix("owner of ")][:1]:
                owner.paused_until = until

    def _cut_off(self, item: Item) -> None:
        island = frozenset(item.more)
        self.loop.islands.append(island)
        self._after(item, self.loop.islands.remove, island)

    def _bad_net(self, item: Item) -> None:
        self.loop.loss, self.loop.twice, self.loop.slow = item.more
        self._after(item, self._good_net)

    def _good_net(self) -> None:
        self.loop.loss = self.loop.twice = self.loop.slow = 0.0

    def _bad_store(self, item: Item) -> None:
        self.bucket.bad = item.more
        self._after(item, self._good_store)

    def _good_store(self) -> None:
        self.bucket.bad = 0.0

    def _operator_down(self, item: Item) -> None:
        if self.operator is not None and self.operator.alive:
            self.operator.die()
            self._after(item, self.operator.restart)

    def _stale_api(self, item: Item) -> None:
        self.api_is_stale += 1
        self._after(item, self._fresh_api)

    def _fresh_api(self) -> None:
        self.api_is_stale -= 1
