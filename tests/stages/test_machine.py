"""The stage machine against a world where anything goes wrong at any moment."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulator import Weather, World

from crossdock.stages.events import Finish
from crossdock.stages.states import StageRules

NAMES = ("a", "b", "c", "d", "e")


@st.composite
def graphs(draw: st.DrawFn, *, tries: st.SearchStrategy[int]) -> list[StageRules]:
    """One to five stages that read any earlier ones; of those nobody reads some are final."""
    names = NAMES[: draw(st.integers(1, 5))]
    upstream = {
        name: tuple(u for u in names[:i] if draw(st.booleans())) for i, name in enumerate(names)
    }
    read = {u for sources in upstream.values() for u in sources}
    return [
        StageRules(
            name=name,
            upstream=upstream[name],
            tries=draw(tries),
            final=name not in read and draw(st.booleans()),
        )
        for name in names
    ]


SIZES = st.fixed_dictionaries({name: st.integers(1, 4) for name in NAMES})
SEEDS = st.integers(0, 2**32)
CHANGING = st.sets(st.sampled_from(NAMES)).map(frozenset)


@given(rules=graphs(tries=st.just(1)), sizes=SIZES, seed=SEEDS)
def test_in_good_weather_every_task_runs_once(
    rules: list[StageRules], sizes: dict[str, int], seed: int
) -> None:
    world = World(rules, sizes, Weather(), seed)
    assert world.run() == Finish(None)
    assert world.starts == sum(len(s.tasks) for s in world.machine.stages.values())


@given(rules=graphs(tries=st.integers(1, 4)), sizes=SIZES, seed=SEEDS, fail=st.floats(0.05, 0.9))
def test_tasks_that_fail(
    rules: list[StageRules], sizes: dict[str, int], seed: int, fail: float
) -> None:
    World(rules, sizes, Weather(fail=fail), seed).run()


@settings(max_examples=300)
@given(rules=graphs(tries=st.just(10**6)), sizes=SIZES, seed=SEEDS, changing=CHANGING)
def test_losses(
    rules: list[StageRules], sizes: dict[str, int], seed: int, changing: frozenset[str]
) -> None:
    world = World(rules, sizes, Weather(lose=0.1, changing=changing), seed)
    assert world.run().failure is None


@given(rules=graphs(tries=st.just(1)), sizes=SIZES, seed=SEEDS, kill=st.floats(0.02, 0.4))
def test_runners_that_die(
    rules: list[StageRules], sizes: dict[str, int], seed: int, kill: float
) -> None:
    world = World(rules, sizes, Weather(kill=kill), seed)
    assert world.run() == Finish(None)


@settings(max_examples=500)
@example(  # a plan that was void wrote its stage file after the plan that followed it
    rules=[
        StageRules(name="a", tries=3),
        StageRules(name="b", upstream=("a",), tries=3),
        StageRules(name="c", upstream=("a", "b"), tries=2, final=True),
        StageRules(name="d", upstream=("b",), tries=2),
    ],
    sizes={"a": 1, "b": 1, "c": 1, "d": 3, "e": 1},
    seed=39709451,
    fail=0.125,
    lose=0.234375,
    kill=0.0,
    changing=frozenset({"a", "b"}),
)
@given(
    rules=graphs(tries=st.integers(1, 5)),
    sizes=SIZES,
    seed=SEEDS,
    fail=st.sampled_from([0, 0.02, 0.2]),
    lose=st.sampled_from([0, 0.02, 0.2]),
    kill=st.sampled_from([0, 0.02, 0.2]),
    changing=CHANGING,
)
def test_everything_at_once(  # noqa: PLR0917
    rules: list[StageRules],
    sizes: dict[str, int],
    seed: int,
    fail: float,
    lose: float,
    kill: float,
    changing: frozenset[str],
) -> None:
    World(rules, sizes, Weather(fail=fail, lose=lose, kill=kill, changing=changing), seed).run()


@settings(max_examples=500)
@given(
    rules=graphs(tries=st.just(10**6)),
    sizes=SIZES,
    seed=SEEDS,
    lose=st.sampled_from([0, 0.02, 0.2]),
    kill=st.sampled_from([0, 0.02, 0.2]),
    changing=CHANGING,
)
def test_what_was_released_is_never_needed_again(  # noqa: PLR0917
    rules: list[StageRules],
    sizes: dict[str, int],
    seed: int,
    lose: float,
    kill: float,
    changing: frozenset[str],
) -> None:
    weather = Weather(lose=lose, kill=kill, changing=changing, consume=True)
    assert World(rules, sizes, weather, seed).run().failure is None


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=20_000)
@given(
    rules=graphs(tries=st.integers(2, 50)),
    sizes=SIZES,
    seed=SEEDS,
    fail=st.floats(0, 0.3),
    lose=st.floats(0, 0.3),
    kill=st.floats(0, 0.3),
    changing=CHANGING,
)
def test_everything_at_once_for_long(  # noqa: PLR0917
    rules: list[StageRules],
    sizes: dict[str, int],
    seed: int,
    fail: float,
    lose: float,
    kill: float,
    changing: frozenset[str],
) -> None:
    World(rules, sizes, Weather(fail=fail, lose=lose, kill=kill, changing=changing), seed).run()
