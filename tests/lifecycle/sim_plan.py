"""What happens in a history: drawn from the seed before it begins, so that it can be shrunk."""

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

from sim_decisions import FASTEST, MOST_LAG, SLOWEST

from crossdock.records import Owner

BUSY_SECONDS = 24.0
TURNS = ("end", "release", "kill owner", "new owner")
SHUFFLES = (("a", 0), ("a", 0), ("a", 1))


class Item(NamedTuple):
    """One thing that happens. `seconds` is for how long, where that means something."""

    at: float
    what: str
    who: str = ""
    seconds: float = 0.0
    more: Any = None

    def __str__(self) -> str:
        lasts = f" for {self.seconds:.2f} s" if self.seconds else ""
        more = f" {self.more}" if self.more is not None else ""
        return f"{self.at:6.2f} s  {self.what} {self.who}{lasts}{more}"


@dataclass(slots=True)
class Plan:
    """A world and what happens in it."""

    seed: int
    workers: int
    operator: bool
    lists_uploads: bool
    lag: float
    """How much later than an object came into being a listing may still lack it."""
    store_seconds: float
    """How long a request to the store takes at most, when all is well."""
    breaks_bound: bool
    clocks: list[tuple[float, float]]
    jobs: list[tuple[str, Owner, float]]
    """Uid, whose, and when it begins. One uid begins like the other, to catch short prefixes."""
    items: list[Item]


def draw(seed: int) -> Plan:
    """Draw the plan of a seed."""
    rnd = random.Random(seed)
    workers = rnd.choice((1, 2, 2, 3, 3))
    operator = rnd.random() < 0.5
    breaks_bound = rnd.random() < 0.1
    jobs = []
    for n in range(rnd.choice((1, 2, 2))):
        process = not operator or rnd.random() < 0.3
        owner = rnd.choice((Owner.RUNNER, Owner.DRIVER)) if process else Owner.CLUSTER
        jobs.append(("j1" if n == 0 else "j10", owner, 0.0 if n == 0 else rnd.uniform(0, 16)))
    items: list[Item] = []
    for uid, owner, begins in jobs:
        items += _life(rnd, uid, owner, begins)
    if len(jobs) > 1 and rnd.random() < 0.15:  # a job that only one worker ever hears of
        hidden = Item(jobs[1][2] - 0.1, "hide", "j10", rnd.uniform(5, 30))
        items.append(hidden._replace(more=f"w{rnd.randrange(workers)}"))
    turns = [i for i in items if i.what in TURNS]
    early, late = 1.0, BUSY_SECONDS - 2
    if turns and rnd.random() < 0.7:  # what goes wrong does so where it matters
        turn = rnd.choice(turns)
        early, late = max(early, turn.at - 5), min(late, turn.at + 2)
        items += _zombies(rnd, turn, workers)
    for _ in range(rnd.choice((0, 1, 2, 2, 3, 4))):
        items += _fault(rnd, workers, operator, jobs, rnd.uniform(early, late))
    items += _outages(random.Random(f"outages {seed}"))
    items += _damages(random.Random(f"damages {seed}"), workers)
    items.sort()
    lists_uploads = rnd.random() < 0.6
    slow = (0.03, 0.03, 0.03, 0.9, 1.6) if lists_uploads else (0.03, 0.03, 0.3)
    return Plan(
        seed=seed,
        workers=workers,
        operator=operator,
        lists_uploads=lists_uploads,
        lag=rnd.choice((0.0, MOST_LAG)),
        store_seconds=rnd.choice(slow),
        breaks_bound=breaks_bound,
        clocks=[(rnd.uniform(SLOWEST, FASTEST), rnd.uniform(-1e4, 1e4)) for _ in range(12)],
        jobs=jobs,
        items=items,
    )


def _life(rnd: random.Random, uid: str, owner: Owner, begins: float) -> list[Item]:
    def when(low: float = 1.0, high: float = BUSY_SECONDS - 2) -> float:
        return rnd.uniform(min(begins + low, high), high)

    items = [Item(when(high=begins + 8), "push", uid, more=(n, rnd.choice(SHUFFLES)))
             for n in range(5)]  # fmt: skip
    if rnd.random() < 0.5:  # in haste
        items.append(Item(begins + 0.2, "push", uid, more=(7, SHUFFLES[0])))
        items.append(Item(begins + 0.3, "persist", uid, more=SHUFFLES[0]))
    items.append(Item(when(), "push", uid, more=(9, rnd.choice(SHUFFLES))))
    for what, low, most in (("persist", 3, 4), ("publish", 5, 3), ("read", 6, 1)):
        items += [Item(when(low), what, uid, more=rnd.choice(SHUFFLES)) for _ in range(most)]
    if rnd.random() < 0.4:
        items.append(Item(when(6.0), "release", uid, more=rnd.choice(SHUFFLES)))
    fate = rnd.random()
    if fate < 0.55:
        items.append(Item(when(5.0), "end", uid))
    if owner is not Owner.CLUSTER and fate > 0.45:
        if rnd.random() < 0.6:
            items.append(Item(when(3.0), "kill owner", uid))
        if rnd.random() < 0.4:
            items.append(Item(when(3.0), "new owner", uid))
    return items


def _outages(rnd: random.Random) -> list[Item]:
    """Draw times in which no worker runs, by themselves: so other seeds stay what they were."""
    if rnd.random() > 0.04:
        return []
    first = Item(rnd.uniform(2, BUSY_SECONDS - 4), "outage", "", rnd.uniform(1, 14), rnd.random())
    return [first, Item(first.at + first.seconds + rnd.uniform(1, 9), *first[1:])]


def _damages(rnd: random.Random, workers: int) -> list[Item]:
    """Draw a time in which a worker cannot read its jobs, by itself as well; others can."""
    if rnd.random() > 0.06 or workers == 1:
        return []
    return [Item(rnd.uniform(3, 14), "damage", f"w{rnd.randrange(workers)}", rnd.uniform(2, 12))]


def _zombies(rnd: random.Random, turn: Item, workers: int) -> list[Item]:
    """Let tasks go on with a job as if nothing had happened, while something goes wrong."""
    shuffle = turn.more or SHUFFLES[0]
    worker = f"w{rnd.randrange(workers)}"

    def some(what: str, count: int, low: float, high: float, first: int = 0) -> list[Item]:
        ats = [max(0.5, turn.at + rnd.uniform(low, high)) for _ in range(count)]
        if what == "push":
            return [Item(at, what, turn.who, more=(n, shuffle)) for n, at in enumerate(ats, first)]
        return [Item(at, what, turn.who, more=shuffle) for at in ats]

    def wrong(what: str, low: float, high: float, seconds: float, more: Any = None) -> Item:
        who = worker if what in ("pause", "crash") else ""
        return Item(max(0.5, turn.at + rnd.uniform(low, high)), what, who, seconds, more)

    items = some("push", 2, -3, -1, 20) + some("publish", 1, -1, 6)
    plot = rnd.choice((0, 0, 1, 1, 2, 3, 4, 5, 6, 7))
    if plot == 0:  # a request is under way, and comes late
        items += some("persist", 1, -3, -1) + some("persist", 4, -0.6, -0.05)
        items += some("publish", 3, -0.4, 0)
        items.append(wrong("bad store", -0.5, -0.3, rnd.uniform(0.3, 0.6), rnd.uniform(0.3, 1)))
    elif plot == 1:
        items += some("push", 4, -3, -0.5, 40)
        items.append(wrong("cut off", -0.6, 0, rnd.uniform(6, 16), (worker,)))
        items += some("persist", 6, 2, 7) + some("publish", 2, 0, 7)
    elif plot == 2:
        items.append(wrong("crash", 0, 4, rnd.uniform(0.3, 3), rnd.random() < 0.6))
        items += some("push", 5, 1, 8, 30) + some("persist", 4, 3, 10)
    elif plot == 3:
        items.append(wrong("bad net", -4, -1, rnd.uniform(1, 4), (0.1, 0.3, 12.0)))
        items.append(wrong("cut off", -1, 0, rnd.uniform(6, 16), (worker,)))
        items += some("persist", 7, 4, 15)
    elif plot == 4:
        items += some("persist", 2, -1, 0.1)
        island = tuple(sorted((worker, f"owner of {turn.who}")))
        items.append(wrong("cut off", -3, 0, rnd.uniform(8, 20), island))
        items += some("persist", 5, 2, 16) + some("publish", 4, 2, 16)
    elif plot == 5:  # a worker that forgot everything hears the owner, and no peer
        island = tuple(sorted((worker, f"owner of {turn.who}", "operator")))
        items.append(wrong("cut off", 4.5, 4.6, rnd.uniform(6, 14), island))
        items.append(wrong("crash", 4.6, 4.8, 0.3, more=True))
        items += some("push", 8, 5.2, 8, 50) + some("persist", 6, 5.5, 14)
    elif plot == 6:  # a manifest is under way, of which no intent tells
        items += some("push", 3, -6, -4, 60) + some("persist", 2, -4, -1.5)
        items += some("publish", 6, -0.35, -0.05)
        items.append(wrong("bad store", -0.4, -0.35, rnd.uniform(0.4, 0.5), rnd.uniform(0.7, 1)))
    else:
        items.append(wrong("pause", -2, 0, rnd.uniform(4, 16)))
        items += some("persist", 3, 0, 12)
    return items


def _fault(  # noqa: PLR0911 -- one for each kind
    rnd: random.Random,
    workers: int,
    operator: bool,
    jobs: list[tuple[str, Owner, float]],
    at: float,
) -> list[Item]:
    worker = f"w{rnd.randrange(workers)}"
    owners = [f"owner of {uid}" for uid, _, _ in jobs]
    what = rnd.choice((
        "crash", "crash", "crash", "pause", "pause owner", "cut off", "cut off", "cut off",
        "bad net", "bad net", "bad store", "bad store", "bad store", "destroy", "operator",
    ))  # fmt: skip
    if what == "crash":
        return [Item(at, "crash", worker, rnd.uniform(0.3, 8), more=rnd.random() < 0.3)]
    if what == "destroy":
        return [Item(at, "destroy", worker, rnd.uniform(0.5, 8))] if workers > 1 else []
    if what == "pause":
        return [Item(at, "pause", worker, rnd.uniform(0.5, 14))]
    if what == "pause owner":
        return [Item(at, "pause", rnd.choice(owners), rnd.uniform(0.5, 16))]
    if what == "cut off":
        some = [f"w{n}" for n in range(workers)] + owners + ["operator"]
        island = rnd.sample(some, rnd.randint(1, max(1, len(some) // 2)))
        if rnd.random() < 0.5:
            island = [worker, rnd.choice(owners)]
        return [Item(at, "cut off", "", rnd.uniform(1, 20), more=tuple(sorted(island)))]
    if what == "bad net":
        more = (rnd.uniform(0, 0.5), rnd.uniform(0, 0.3), rnd.choice((0.0, 3.0, 12.0)))
        return [Item(at, "bad net", "", rnd.uniform(1, 12), more=more)]
    if what == "bad store":
        return [Item(at, "bad store", "", rnd.uniform(1, 12), more=rnd.uniform(0.1, 0.7))]
    if not operator:
        return []
    what = rnd.choice(("operator down", "operator down", "stale api"))
    return [Item(at, what, "operator", rnd.uniform(1, 16))]
