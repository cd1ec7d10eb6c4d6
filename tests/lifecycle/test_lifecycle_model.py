"""Whole histories of clusters, many seeds of them, held against what must always be true.

A failing seed prints the smallest history that still fails, and how to play it again. More seeds:
CROSSDOCK_LIFECYCLE_SEEDS=1000000 CROSSDOCK_LIFECYCLE_FIRST=20000 pytest -m soak tests/lifecycle
"""

import os
from collections import Counter

import pytest
from sim_decisions import Decisions
from sim_mutants import HINTS, MUTANTS
from sim_plan import draw
from sim_shrink import REPLAY, explain, play, shrink
from sim_world import World

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
        wrong = play(draw(seed), MUTANTS[name])
        if wrong:
            print(f"{name}: caught by seed {seed}, after {tried} others: {wrong}")
            return
    pytest.fail(f"no seed below {MOST_SEEDS_TO_CATCH} has shown: {name}")


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
