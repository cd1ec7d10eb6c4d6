"""What happens in a history: drawn from the seed before it begins, so that it can be shrunk."""

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

from crossdock.records import Owner
from sim_decisions import FASTEST, MOST_LAG, SLOWEST

BUSY_SECONDS = 24.0
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
    breaks_bound: bool
    clocks: list[tuple[float, float]]
    jobs: list[tuple[str, Owner]]
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
        jobs.append(("j1" if n == 0 else "j10", owner))
    items: list[Item] = []
    for uid, owner in jobs:
        items += _life(rnd, uid, owner)
    for _ in range(rnd.choice((0, 1, 2, 2, 3, 4))):
        items += _fault(rnd, workers, operator, jobs)
    items.sort()
    return Plan(
        seed=seed,
        workers=workers,
        operator=operator,
        lists_uploads=rnd.random() < 0.6,
        lag=rnd.choice((0.0, 0.0, MOST_LAG)),
        breaks_bound=breaks_bound,
        clocks=[(rnd.uniform(SLOWEST, FASTEST), rnd.uniform(-1e4, 1e4)) for _ in range(12)],
        jobs=jobs,
        items=items,
    )


def _life(rnd: random.Random, uid: str, owner: Owner) -> list[Item]:
    def when(low: float = 1.0, high: float = BUSY_SECONDS - 2) -> float:
        return rnd.uniform(low, high)

    items = [Item(when(high=12), "push", uid, more=(n, rnd.choice(SHUFFLES))) for n in range(5)]
    items += [Item(when(), "push", uid, more=(9, rnd.choice(SHUFFLES)))]
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


def _fault(
    rnd: random.Random, workers: int, operator: bool, jobs: list[tuple[str, Owner]]
) -> list[Item]:
    at = rnd.uniform(1.0, BUSY_SECONDS - 2)
    worker = f"w{rnd.randrange(workers)}"
    owners = [f"owner of {uid}" for uid, _ in jobs]
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
        island = tuple(sorted(rnd.sample(some, rnd.randint(1, max(1, len(some) // 2)))))
        return [Item(at, "cut off", "", rnd.uniform(1, 16), more=island)]
    if what == "bad net":
        more = (rnd.uniform(0, 0.5), rnd.uniform(0, 0.3), rnd.choice((0.0, 3.0, 12.0)))
        return [Item(at, "bad net", "", rnd.uniform(1, 12), more=more)]
    if what == "bad store":
        return [Item(at, "bad store", "", rnd.uniform(1, 12), more=rnd.uniform(0.1, 0.7))]
    if not operator:
        return []
    what = rnd.choice(("operator down", "operator down", "stale api"))
    return [Item(at, what, "operator", rnd.uniform(1, 16))]
