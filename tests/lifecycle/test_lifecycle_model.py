"""Whole histories of clusters, many seeds of them, held against what must always be true.

A failing seed prints the smallest history that still fails, and how to play it again. More seeds:
CROSSDOCK_LIFECYCLE_SEEDS=1000000 CROSSDOCK_LIFECYCLE_FIRST=20000 pytest -m soak tests/lifecycle
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from sim_decisions import GRACE, LEASE, Decisions
from sim_loop import Violation
from sim_mutants import FORGETS_THE_GONE, FORGETS_WHAT_WAS_SENT, HINTS, MUTANTS, PLAYED
from sim_owner import JobOwner
from sim_plan import Item, Plan, draw
from sim_shrink import REPLAY, explain, play, shrink
from sim_world import World

from crossdock.records import Owner

SEEDS = 20_000
CHUNK = 500
SOAK_FIRST = int(os.environ.get("CROSSDOCK_LIFECYCLE_FIRST", "20000"))
SOAK_SEEDS = int(os.environ.get("CROSSDOCK_LIFECYCLE_SEEDS", "100000"))
SOAK_CHUNK = 5_000
MOST_SEEDS_TO_CATCH = 30_000

REAL = Decisions()


def check(first: int, count: int) -> None:
    for seed in range(first, first + count):
        if play(draw(seed), REAL):
            pytest.fail(explain(seed, REAL), pytrace=False)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_of_a_dead_job_stays_and_nothing_of_a_live_one_goes(first: int) -> None:
    check(first, CHUNK)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(SOAK_FIRST, SOAK_FIRST + SOAK_SEEDS, SOAK_CHUNK))
def test_many_more(first: int) -> None:
    check(first, min(SOAK_CHUNK, SOAK_FIRST + SOAK_SEEDS - first))


@pytest.mark.skipif(REPLAY not in os.environ, reason=f"{REPLAY} is not set")
def test_replay() -> None:
    """Plays one history again, by its seed and the numbers of its items, and shows it."""
    seed, *kept = map(int, os.environ[REPLAY].split(","))
    print(explain(seed, REAL, kept or range(len(draw(seed).items))))
    assert not play(draw(seed), REAL, kept or None)


@pytest.mark.parametrize("name", MUTANTS)
def test_planted_bugs_are_caught(name: str) -> None:
    """The seed that caught a bug last is tried first; if it does no more, all are, in order."""
    for tried, seed in enumerate([HINTS[name], *range(MOST_SEEDS_TO_CATCH)]):
        plan = draw(seed)
        if not tried:
            plan = replace(plan, seed=PLAYED.get(name, plan.seed))
        wrong = play(plan, MUTANTS[name])
        if wrong:
            print(f"{name}: caught by seed {seed}, after {tried} others: {wrong}")
            return
    pytest.fail(f"no seed below {MOST_SEEDS_TO_CATCH} has shown: {name}")


def by_hand(*items: Item, seed: int = 0, workers: int = 1) -> Plan:
    """Return a history of one job, with exact clocks."""
    return Plan(
        seed=seed, workers=workers, operator=False, lists_uploads=True, lag=0.0, store_seconds=0.03,
        breaks_bound=False, clocks=[(1.0, 0.0)] * 4, jobs=[("j1", Owner.RUNNER, 0.0)],
        items=[Item(1.0, "push", "j1", more=(0, ("a", 0))), *items],
    )  # fmt: skip


def left_by_a_crash_loop(decide: Decisions, *, after: float) -> list[str]:
    """Return what is left of a job so long after its owner died, while its worker dies again and
    again, and lives for less than lease and grace each time."""
    lives, away, ends = LEASE, 0.5, 4.0
    crashes = [ends + 2 + n * (lives + away) for n in range(30)]
    plan = by_hand(
        Item(2.0, "persist", "j1", more=("a", 0)),
        Item(ends, "kill owner", "j1"),
        *(Item(at, "crash", "w0", away, more=False) for at in crashes),
    )
    world, left = World(plan, decide), list[str]()
    world.loop.at(ends - 0.1, lambda: left.extend(world.checks.left_in_store("j1", world.bucket)))
    world.loop.at(ends + after, lambda: left.clear() if not world.left() else None)
    assert ends + after < crashes[-1]
    world.run()
    return left


def test_a_worker_that_crashes_again_and_again_keeps_no_job_of_a_dead_owner() -> None:
    """Silence goes on over restarts; and if it did not, this would show it."""
    assert not left_by_a_crash_loop(REAL, after=4 * (LEASE + GRACE))
    forgets = replace(REAL, resumed=lambda *_: 0.0)
    assert left_by_a_crash_loop(forgets, after=10 * (LEASE + GRACE))


def test_a_word_voids_the_silence_that_was_kept() -> None:
    plan = by_hand(
        Item(2.0, "persist", "j1", more=("a", 0)),
        Item(3.0, "pause", "owner of j1", 8.0),  # then it speaks
        Item(11.5, "crash", "w0", 0.3, more=False),
        Item(11.6, "pause", "owner of j1", 7.0),
    )
    assert not play(plan, REAL)
    assert "which lives" in play(plan, replace(REAL, voided=lambda kept: kept))


@pytest.mark.parametrize("gone", [False, True])
def test_what_somebody_sent_who_is_no_more_is_waited_for(*, gone: bool) -> None:
    """A worker dies with requests under way, and the job ends. What that worker's next process, or
    those that are left, say of themselves says nothing of these."""
    dies = Item(8.12, "destroy", "w0", 0.02) if gone else Item(8.12, "crash", "w0", 0.02, False)
    items = [
        Item(8.0, "bad store", "", 0.13, 1.0),
        Item(8.02, "persist", "j1", more=("a", 0)),
        dies,
        Item(8.2, "end", "j1"),
    ]
    mutant = FORGETS_THE_GONE if gone else FORGETS_WHAT_WAS_SENT
    plans = [by_hand(*items, seed=seed, workers=2 if gone else 1) for seed in range(150)]
    assert not any(play(plan, REAL) for plan in plans)
    assert any("after it was proved" in play(plan, mutant) for plan in plans)


def test_a_job_that_is_mended_knows_what_was_released_while_it_was_damaged() -> None:
    """Its worker agreed, and may write before a peer tells it: the operator's words do not."""
    shuffle = ("a", 0)
    plan = by_hand(
        *(Item(1.0 + n / 100, "push", "j1", more=(n, shuffle)) for n in range(1, 8)),
        Item(3.0, "persist", "j1", more=shuffle),
        Item(6.0, "damage", "w1", 8.0),
        Item(7.0, "release", "j1", more=shuffle),
        Item(13.9, "cut off", "", 9.0, ("operator", "w1")),
        *(Item(14.0 + n / 2, "persist", "j1", more=shuffle) for n in range(18)),
        workers=2,
    )
    plan = replace(plan, operator=True, jobs=[("j1", Owner.CLUSTER, 0.0)])
    assert not play(plan, REAL)
    assert "has agreed to drop it" in play(plan, replace(REAL, mended=lambda kept, _: kept))


def test_a_damaged_job_is_not_ended_by_an_owner_that_was_replaced() -> None:
    """Its worker cannot read the epoch, so it believes what its peers say."""
    plan = by_hand(
        Item(2.0, "new owner", "j1"),
        Item(2.5, "pause", "owner of j1", 13.5),
        Item(14.0, "damage", "w0", 6.0),
        workers=2,
    )

    def owner_does(world: World, number: int, do: Callable[[JobOwner], None]) -> None:
        do(world.owners["j1"][number])

    def ends(decide: Decisions) -> str:
        world = World(plan, decide)
        world.loop.at(16.0, owner_does, world, 0, JobOwner.end)
        world.loop.at(22.0, owner_does, world, 1, JobOwner.die)
        try:
            world.run()
        except Violation as violation:
            return str(violation)
        return ""

    assert not ends(REAL)
    assert "took a fence" in ends(replace(REAL, may_end_damaged=lambda *_, **__: True))


def test_a_failure_is_made_small_and_can_be_played_again() -> None:
    name = "no lease check before writes"
    seed, mutant = HINTS[name], MUTANTS[name]
    plan = draw(seed)
    kept = shrink(plan, mutant)
    assert len(kept) < len(plan.items)
    assert play(plan, mutant, kept)
    assert all(not play(plan, mutant, [k for k in kept if k != n]) for n in kept)
    text = explain(seed, mutant)
    assert f"{REPLAY}={seed}," in text
    assert play(plan, mutant, kept) in text
    assert text == explain(seed, mutant)


def test_histories_are_worth_looking_at() -> None:
    """Much is written, read and deleted in them, or finding nothing would say nothing."""
    seen: Counter[str] = Counter()
    seeds = 300
    for seed in range(seeds):
        seen.update(World(draw(seed), REAL).run().checks.summary())
    assert seen["reads"] > 2 * seeds
    assert seen["manifests"] > 0.3 * seeds
    assert seen["reports"] > 0.4 * seeds
