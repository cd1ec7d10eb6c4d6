"""Simulated deletions and sweeps: I/O around `crossdock.lifecycle.deletion` and `.sweep`."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from sim_checks import CLUSTER
from sim_decisions import GRACE, LEASE
from sim_loop import Actor, Process

from crossdock.lifecycle.deletion import Clear, Done, Tell
from crossdock.lifecycle.facts import Stage
from crossdock.lifecycle.runs import keys_of_intent
from crossdock.lifecycle.stopping import Ender
from crossdock.lifecycle.sweep import Known, LiveJobs, Verdict
from crossdock.store.layout import ShuffleLayout, place_of
from crossdock.wire.names import U64_MAX

if TYPE_CHECKING:
    from sim_world import World

ORDINALS = 6
PATIENCE = 2.0
"""After so long without an answer a proof is put off, and begun anew as long after that."""


def delete_job(
    world: "World",
    actor: Actor,
    uid: str,
    *,
    ender: Ender = Ender.OTHER,
    epoch: int = U64_MAX,
    done: Callable[[str], None] = lambda _: None,
) -> Process:
    """Delete a job; `done` hears of the proof, or that somebody else is in charge."""
    prefix = world.decide.job_prefix(CLUSTER, uid)
    owner = world.owner_of[uid]
    if world.loop.tracing:
        world.loop.note(f"{actor.name} begins to delete {uid} as {ender}")

    def tell(name: str, reply: Callable[[Any], None]) -> None:
        handler = world.handlers["tell"]
        args = (uid, owner, epoch, Stage.FENCED)
        world.loop.call(actor, world.workers[name], handler, args, reply)

    proved = yield from _delete(world, actor, prefix, tell, ender=ender)
    if proved:
        if world.loop.tracing:
            world.loop.note(f"{actor.name} has proved that nothing of {uid} is left")
        world.checks.reported(uid, world.bucket)
        for worker in world.workers.values():
            args = (uid, owner, U64_MAX, Stage.CLEAN)
            world.loop.call(actor, worker, world.handlers["tell"], args)
    done(uid)


def clear_released(
    world: "World",
    actor: Actor,
    shuffle: tuple[str, str],
    generations: range,
    done: Callable[[str, str, int], None],
) -> Process:
    """Prove that nothing is left of released generations of (job, name); tell `done`."""
    uid, name = shuffle

    def tell(worker: str, reply: Callable[[Any], None]) -> None:
        args = (uid, world.owner_of[uid], U64_MAX, (name, generations.stop - 1))
        world.loop.call(actor, world.workers[worker], world.handlers["release"], args, reply)

    for generation in generations:
        prefix, emptied = world.layout(uid, (name, generation)).prefix, False
        while not (
            yield from _delete(
                world, actor, prefix, tell, ender=Ender.OTHER, patience=PATIENCE, emptied=emptied
            )
        ):
            emptied = True
            yield PATIENCE
    truth = world.checks.jobs[uid]
    truth.proved_releases[name] = generations.stop
    if world.loop.tracing:
        world.loop.note(f"{actor.name} has cleared {uid}/{name} up to {generations.stop - 1}")
    done(uid, name, generations.stop)


def _delete(
    world: "World",
    actor: Actor,
    prefix: str,
    tell: Callable[[str, Callable[[Any], None]], None],
    *,
    ender: Ender,
    patience: float = float("inf"),
    emptied: bool = False,
) -> Process:
    decide, now = world.decide, actor.local
    workers = [n for n in world.names if n not in world.gone]
    stopping = decide.stopping(
        workers, ender=ender, lease_seconds=LEASE, began=now(), timing=decide.timing,
        everybody=not world.gone,
    )  # fmt: skip
    machine = decide.deletion(stopping, timing=decide.timing, emptied=emptied)
    refused, began = [], now()

    def answered(name: str, answer: str | float) -> None:
        if isinstance(answer, float):
            machine.acked(name, now(), idle_seconds=answer)
        elif answer == "stale":
            refused.append(name)

    while not refused:
        machine.gone(world.gone, now())
        for action in machine.step(now()):
            if isinstance(action, Tell):
                for name in sorted(action.workers):
                    tell(name, partial(answered, name))
                yield 0.12  # for the answers, if all is well
            elif isinstance(action, Clear):
                yield from _clear(world, actor, prefix, machine, action)
            elif isinstance(action, Done):
                return True
            elif stopping.waiting and stopping.accepted and now() - began > patience:
                return False
            else:
                yield max(action.seconds, 0.01)
    return False


def _clear(world: "World", actor: Actor, prefix: str, machine: Any, action: Clear) -> Process:
    began = actor.local()
    uploads = (yield from _uploads(world, prefix)) if world.decide.aborts_uploads else []
    if uploads is None:
        return (yield 0.3)
    for upload, _, _ in uploads:
        yield "abort", upload, "deletion"
    objects = yield "list", prefix
    if objects is None:
        return (yield 0.3)
    intents = [k for k, _ in objects if is_intent(k)]
    others = [k for k, _ in objects if not is_intent(k)]
    keys = others + intents if action.intents else others
    if keys:
        yield "delete", keys, "deletion"
    machine.cleared(
        action, uploads=len(uploads), objects=len(others), intents=len(intents), began=began
    )
    return None


def is_intent(key: str) -> bool:
    place = place_of(key)
    return place is not None and place.is_intent


def _uploads(world: "World", prefix: str) -> Process:
    """List uploads under a prefix; where that cannot be done, key by key, by the intents."""
    if world.bucket.lists_uploads:
        return (yield "uploads", prefix)
    objects = yield "list", prefix
    if objects is None:
        return None
    found: list[Any] = []
    for key in _keys_to_ask([k for k, _ in objects]):
        some = yield "uploads", key
        if some is None:
            return None
        found += some
    return found


def _keys_to_ask(keys: Iterable[str]) -> Iterable[str]:
    for key in keys:
        if is_intent(key):
            base, run = key.split("intents/")
            yield from keys_of_intent(ShuffleLayout(base), run, ordinals=ORDINALS)


# -- sweeping ----------------------------------------------------------------------------------


def ask_all(world: "World", actor: Actor) -> Process:
    """Ask all workers what they hold; the answer of those that gave none is None."""
    answers: dict[str, Any] = {n: None for n in world.names if n not in world.gone}

    def heard(name: str, answer: Any) -> None:
        answers[name] = answer

    for name in answers:
        reply = partial(heard, name)
        world.loop.call(actor, world.workers[name], world.handlers["describe"], (), reply)
    yield 1.0
    return dict(answers)


def known_to(answers: dict[str, Any]) -> list[Known | None]:
    return [a and Known(frozenset(a[1]), a[0]) for a in answers.values()]


def sweep_workers(world: "World", actor: Actor) -> Process:
    """Sweep where there is no operator: what no worker knows is an orphan."""
    began = actor.local()
    answers = yield from ask_all(world, actor)
    live = world.decide.live_jobs(
        known_to(answers), longest_seconds=world.decide.timing.outlast(LEASE + GRACE),
        age_seconds=actor.local() - began,
    )  # fmt: skip
    yield from sweep(world, actor, live, {})


def sweep(world: "World", actor: Actor, live: LiveJobs | None, answers: dict[str, Any]) -> Process:
    """Judge everything in the bucket and on workers' disks; delete the orphans."""
    decide = world.decide
    asked = actor.local()
    store_now = world.bucket.date()
    objects = yield "list", ""
    uploads = yield from _uploads(world, "")
    if objects is None or uploads is None:
        return
    if live is not None:
        live = LiveJobs(live.uids, live.age_seconds + actor.local() - asked)
    rules = {"live": live, "grace_seconds": decide.sweep_grace, "timing": decide.timing}

    def orphan(key: str, at: float) -> bool:
        verdict = decide.judge_key(key, store_now - at, cluster=CLUSTER, **rules)
        return verdict is Verdict.ORPHAN

    keys = [k for k, at in objects if orphan(k, at)]
    lost = [(u, k) for u, k, at in uploads if orphan(k, at)]
    jobs = {p.job for k in [*keys, *(k for _, k in lost)] if (p := place_of(k))}
    for answer in answers.values():
        for uid, age in (answer[1] if answer else {}).items():
            if decide.judge(uid, age, **rules) is Verdict.ORPHAN:
                jobs.add(uid)
    for uid in sorted(jobs & world.owner_of.keys()):
        if world.loop.tracing:
            world.loop.note(f"{actor.name} sweeps {uid}")
        for worker in world.workers.values():
            args = (uid, world.owner_of[uid], U64_MAX, Stage.FENCED)
            world.loop.call(actor, worker, world.handlers["tell"], args)
    for upload, _ in lost:
        yield "abort", upload, "sweep"
    others = [k for k in keys if not is_intent(k)]
    found = [k for k, _ in objects if not is_intent(k)] + [k for _, k, _ in uploads]
    gone = others + decide.spent_intents([k for k in keys if is_intent(k)], found)
    if gone:
        yield "delete", gone, "sweep"
