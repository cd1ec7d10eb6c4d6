"""Rotation of signing keys: a cluster whose pods read the file late never refuses a good token."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from crossdock_operator.plan.keys import (
    RETIRED_SECONDS,
    SPREAD_SECONDS,
    Role,
    SigningKey,
    from_file,
    key_file,
    next_rotation,
    rotated,
    to_note,
)
from crossdock_operator.records import MADE_OF, Child, child_of, fingerprint

DAY = 86_400.0


class Clock:
    """Makes keys with names that tell them apart."""

    def __init__(self) -> None:
        self.made = 0

    def fresh(self) -> str:
        self.made += 1
        return f"key-{self.made}".ljust(64, "x")


@given(
    days=st.integers(1, 30),
    steps=st.lists(st.floats(1, 20 * DAY, allow_nan=False), min_size=5, max_size=60),
)
def test_every_worker_can_check_every_token(days: int, steps: list[float]) -> None:
    """However late the operator looks: who has the file of SPREAD_SECONDS ago checks all."""
    clock, now = Clock(), 1e9
    keys: list[SigningKey] = []
    history: list[tuple[float, list[str]]] = []
    for step in steps:
        now += step
        keys = rotated(keys, days=days, now=now, fresh=clock.fresh)
        lines = key_file(keys).split()
        assert keys[0].role is Role.SIGNS
        assert sum(key.role is Role.SIGNS for key in keys) == 1
        late = [known for at, known in history if at <= now - SPREAD_SECONDS][-1:]
        for known in late:
            assert lines[0] in known, "nobody signs with what some cannot check"
        for at, known in history:
            if now - at < RETIRED_SECONDS:
                assert known[0] in lines, "a token that may still be good is checked"
        history.append((now, lines))


def test_a_rotation_from_the_first_key_to_the_last_of_the_old() -> None:
    clock, now = Clock(), 1e9
    keys = rotated([], days=10, now=now, fresh=clock.fresh)
    assert next_rotation(keys, days=10) == now + 10 * DAY
    assert rotated(keys, days=10, now=now + 9 * DAY, fresh=clock.fresh) == keys
    now += 10 * DAY
    keys = rotated(keys, days=10, now=now, fresh=clock.fresh)
    assert [key.role for key in keys] == [Role.SIGNS, Role.WAITS]
    assert next_rotation(keys, days=10) == now + SPREAD_SECONDS
    now += SPREAD_SECONDS
    keys = rotated(keys, days=10, now=now, fresh=clock.fresh)
    assert [key.text[:5] for key in keys] == ["key-2", "key-1"]
    assert [key.role for key in keys] == [Role.SIGNS, Role.RETIRED]
    assert next_rotation(keys, days=10) == now + RETIRED_SECONDS
    now += RETIRED_SECONDS
    keys = rotated(keys, days=10, now=now, fresh=clock.fresh)
    assert [key.text[:5] for key in keys] == ["key-2"]


def test_without_rotation_a_key_stays() -> None:
    keys = rotated([], days=0, now=0.0, fresh=Clock().fresh)
    assert rotated(keys, days=0, now=1e12, fresh=Clock().fresh) == keys
    assert next_rotation(keys, days=0) == 0.0


@given(st.lists(st.sampled_from([Role.WAITS, Role.RETIRED]), max_size=3))
def test_what_is_noted_is_read_again(more: list[Role]) -> None:
    keys = [SigningKey(f"{n}" * 40, role, float(n)) for n, role in enumerate([Role.SIGNS, *more])]
    assert from_file(key_file(keys), to_note(keys), now=9.0) == keys


def test_a_file_of_somebody_else_signs_with_its_first_key() -> None:
    found = from_file("a\nb\n", "", now=5.0)
    assert found == [SigningKey("a", Role.SIGNS, 5.0), SigningKey("b", Role.RETIRED, 5.0)]
    assert from_file("a\nb\n", '[["signs", 1]]', now=5.0) == found, "a line was added by hand"


def _secret(data: dict[str, str], annotations: dict[str, str] | None = None) -> Child:
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in data.items()}
    return child_of({"metadata": {"annotations": annotations or {}}, "data": encoded})


def test_a_rotation_makes_no_token_anew_before_its_time() -> None:
    """Only one whose key is checked with no more is of no use."""
    clock, now = Clock(), 1e9
    keys = rotated([], days=10, now=now, fresh=clock.fresh)
    token = _secret({}, {MADE_OF: fingerprint(keys[0].text)})
    for seconds in (10 * DAY, SPREAD_SECONDS, RETIRED_SECONDS / 2):
        now += seconds
        keys = rotated(keys, days=10, now=now, fresh=clock.fresh)
        assert token.is_good(_secret({"keys": key_file(keys)}).has)
    keys = rotated(keys, days=10, now=now + RETIRED_SECONDS / 2, fresh=clock.fresh)
    assert not token.is_good(_secret({"keys": key_file(keys)}).has)


def test_a_token_is_made_anew_when_its_key_or_the_authority_is_another() -> None:
    keys = _secret({"keys": "key-1\n"}).has
    authority = _secret({"tls.key": "private", "ca.crt": "authority-1"}).has
    token = _secret({}, {MADE_OF: f"{fingerprint('key-1')} {fingerprint('authority-1')}"})
    assert token.is_good(keys, authority)
    assert not token.is_good(_secret({"keys": "key-2\n"}).has, authority)
    other = _secret({"tls.key": "private", "ca.crt": "authority-2"}).has
    assert not token.is_good(keys, other)
    assert token.is_good(frozenset(), frozenset()), "nothing is known of what is not there"
    of_before = _secret({}), _secret({"ca.crt": "authority-1"})
    assert of_before[0].is_good(keys, authority), "an operator of before noted nothing"
    assert not of_before[1].has, "a connection has the authority too"
