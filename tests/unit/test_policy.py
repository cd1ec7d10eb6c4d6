"""What is persisted and freed by itself, and in which order."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.records import Persistence
from crossdock.views import ShuffleKey
from crossdock_worker.policy import (
    Action,
    Free,
    Persist,
    Rules,
    ShuffleState,
    Trigger,
    decide,
    is_pressed,
)

RULES = Rules(
    persist_bytes=1000, urgent_bytes=1200, segment_bytes=100, persist_after_seconds=3600,
    eager_quiet_seconds=3,
)  # fmt: skip
NOW = 10_000.0


def shuffle(name: str = "s", policy: str = "OnPressure", **fields: float | bool) -> ShuffleState:
    made = ShuffleState(
        key=ShuffleKey("job", name), persistence=Persistence(policy), last_write=NOW, last_read=NOW
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def told(*shuffles: ShuffleState, use: float = 0, now: float = NOW) -> list[Action]:
    pressed = is_pressed(use, RULES, before=False)
    return decide(shuffles, use_bytes=use, pressed=pressed, rules=RULES, now=now)


def persist(name: str, trigger: Trigger, *, complete_only: bool) -> Persist:
    return Persist(ShuffleKey("job", name), trigger, complete_only)


def free(name: str) -> Free:
    return Free(ShuffleKey("job", name))


def test_nothing_below_mark_and_age() -> None:
    assert told(shuffle(complete_bytes=999, unfinished_bytes=99, oldest=NOW), use=999) == []


def test_what_is_persisted_already_goes_first_and_may_be_enough() -> None:
    shuffles = [
        shuffle("new", persisted_bytes=300, last_read=3),
        shuffle("old", persisted_bytes=60, last_read=1),
        shuffle("fresh", complete_bytes=500, last_read=0),
        shuffle("middle", persisted_bytes=60, last_read=2),
    ]
    assert told(*shuffles, use=1010) == [free("old"), free("middle")]
    assert told(*shuffles, use=1400) == [
        *(free("old"), free("middle"), free("new")),
        persist("fresh", Trigger.PRESSURE, complete_only=True),
    ]


def test_small_things_go_only_when_it_is_urgent() -> None:
    shuffles = [
        shuffle("small", complete_bytes=99),
        shuffle("open", unfinished_bytes=5000),
        shuffle("both", complete_bytes=150, unfinished_bytes=70),
    ]
    both = persist("both", Trigger.PRESSURE, complete_only=True)
    assert told(shuffles[0], shuffles[2], use=1199) == [both]
    small = persist("small", Trigger.PRESSURE, complete_only=True)
    assert told(shuffles[0], shuffles[2], use=1140) == [both]
    assert told(shuffles[0], shuffles[2], use=1140 + 60) == [
        persist("both", Trigger.PRESSURE, complete_only=False),
        small,
    ]
    everything = persist("open", Trigger.PRESSURE, complete_only=False)
    assert told(*shuffles, use=2000) == [
        *(persist("both", Trigger.PRESSURE, complete_only=False), small, everything)
    ]


def test_unfinished_things_go_after_complete_ones_if_they_make_a_segment() -> None:
    """With several workers each has but a part of an attempt, and none is ever complete."""
    whole = shuffle("whole", complete_bytes=150, last_read=9.0)
    parts = shuffle("parts", unfinished_bytes=100)
    rest = shuffle("rest", unfinished_bytes=99)
    first = persist("whole", Trigger.PRESSURE, complete_only=True)
    assert told(whole, parts, rest, use=1000) == [first]
    then = persist("parts", Trigger.PRESSURE, complete_only=False)
    assert told(whole, parts, rest, use=1100) == [first, then]


def test_pressure_lasts_until_the_relief() -> None:
    assert not is_pressed(999, RULES, before=False)
    assert is_pressed(1000, RULES, before=False)
    assert is_pressed(900, RULES, before=True)
    assert not is_pressed(899, RULES, before=True)


def test_age_persists_everything_and_frees_nothing() -> None:
    old = shuffle(unfinished_bytes=1, oldest=NOW - 3600)
    assert told(old) == [persist("s", Trigger.AGE, complete_only=False)]
    assert told(replace(old, oldest=NOW - 3599)) == []
    assert told(replace(old, oldest=None)) == []
    forever = replace(RULES, persist_after_seconds=0)
    assert decide([old], use_bytes=0, pressed=False, rules=forever, now=NOW) == []


def test_eager_waits_for_a_segment_or_for_quiet() -> None:
    eager = shuffle(policy="Eager", complete_bytes=99, oldest=NOW)
    now = persist("s", Trigger.EAGER, complete_only=True)
    assert told(eager) == []
    assert told(replace(eager, complete_bytes=100)) == [now]
    assert told(eager, now=NOW + 3) == [now]
    assert told(replace(eager, complete_bytes=0), now=NOW + 3) == []


def test_eager_does_not_wait_for_frames_that_other_workers_have() -> None:
    eager = shuffle(policy="Eager", complete_bytes=50, unfinished_bytes=99, oldest=NOW)
    whole = persist("s", Trigger.EAGER, complete_only=False)
    assert told(eager) == []
    assert told(replace(eager, unfinished_bytes=100)) == [whole]
    assert told(eager, now=NOW + 3) == [whole]
    assert told(replace(eager, complete_bytes=100)) == [
        persist("s", Trigger.EAGER, complete_only=True)
    ]


@pytest.mark.parametrize(
    "change",
    [{"persistence": Persistence.NEVER}, {"busy": True}, {"not_before": NOW + 1}],
    ids=["Never", "busy", "failed"],
)
def test_some_are_left_alone(change: dict[str, object]) -> None:
    state = shuffle(policy="Eager", complete_bytes=500, unfinished_bytes=500, persisted_bytes=500,
                    oldest=0.0)  # fmt: skip
    assert told(state, use=5000)
    assert told(replace(state, **change), use=5000) == []  # type: ignore[arg-type]


sizes = st.one_of(st.just(0), st.integers(0, 400))
times = st.integers(0, 20_000).map(float)
states = st.lists(
    st.builds(
        ShuffleState,
        key=st.builds(ShuffleKey, st.sampled_from(["a", "b"]), st.sampled_from("xyz")),
        persistence=st.sampled_from(list(Persistence)),
        complete_bytes=sizes,
        unfinished_bytes=sizes,
        persisted_bytes=sizes,
        oldest=st.one_of(st.none(), times),
        last_write=times,
        last_read=times,
        busy=st.booleans(),
        not_before=times,
    ),
    max_size=6,
    unique_by=lambda s: s.key,
)


@given(states, st.integers(0, 3000), st.booleans(), st.randoms(use_true_random=False))
def test_properties(
    shuffles: list[ShuffleState], use: int, before: bool, rng: random.Random
) -> None:
    pressed = is_pressed(use, RULES, before=before)
    actions = decide(shuffles, use_bytes=use, pressed=pressed, rules=RULES, now=NOW)
    shuffled = rng.sample(shuffles, len(shuffles))
    again = decide(shuffled, use_bytes=use, pressed=pressed, rules=RULES, now=NOW)
    assert again == actions, "the order of what is looked at does not count"

    by_key = {s.key: s for s in shuffles}
    frees = [a for a in actions if isinstance(a, Free)]
    persists = [a for a in actions if isinstance(a, Persist)]
    assert actions == [*frees, *persists]
    assert len({a.key for a in frees}) == len(frees)
    assert len({a.key for a in persists}) == len(persists)
    for action in actions:
        state = by_key[action.key]
        assert state.persistence is not Persistence.NEVER
        assert not state.busy
        assert state.not_before <= NOW
    assert all(by_key[a.key].persisted_bytes for a in frees)
    relieving = [a for a in persists if a.then_free]
    if not pressed:
        assert not frees
        assert not relieving

    goes = [by_key[a.key].persisted_bytes for a in frees]
    goes += [going(by_key[a.key], a) for a in relieving]
    open_ = [
        s for s in shuffles
        if s.persistence is not Persistence.NEVER and not s.busy and s.not_before <= NOW
    ]  # fmt: skip
    for chosen in (frees, [a for a in relieving if a.complete_only]):
        reads = [by_key[a.key].last_read for a in chosen]
        assert reads == sorted(reads), "least recently read first"
    if pressed and use - sum(goes) >= RULES.relief_bytes:
        assert {a.key for a in frees} == {s.key for s in open_ if s.persisted_bytes}
        enough = {s.key for s in open_ if s.complete_bytes >= RULES.segment_bytes}
        assert enough <= {a.key for a in relieving}
        if use >= RULES.urgent_bytes:
            everything = {s.key for s in open_ if s.complete_bytes or s.unfinished_bytes}
            assert {a.key for a in relieving} == everything, "a full disk leaves out nothing"
    if not relieving and frees:
        assert use - sum(goes[:-1]) >= RULES.relief_bytes, "no more is freed than is needed"


def going(state: ShuffleState, action: Persist) -> int:
    return state.complete_bytes + (0 if action.complete_only else state.unfinished_bytes)
