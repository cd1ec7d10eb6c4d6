"""Pins: what is retired is due once, and not before every read ended that began before."""

from hypothesis import given
from hypothesis import strategies as st

from crossdock_worker.pins import Pin, Pins

steps = st.lists(
    st.tuples(st.sampled_from(["take", "release", "retire", "due"]), st.integers(0, 20)),
    max_size=60,
)


def test_nobody_reads() -> None:
    pins: Pins[str] = Pins()
    assert not pins.is_due
    pins.retire("a")
    assert pins.is_due
    assert pins.due() == ["a"]
    assert pins.due() == []


def test_a_read_keeps_what_went_after_it_began() -> None:
    pins: Pins[str] = Pins()
    before = pins.take()
    pins.retire("a")
    after = pins.take()
    assert pins.due() == []
    before.release()
    assert pins.due() == ["a"], "the later read cannot have found it"
    pins.retire("b")
    before.release()
    assert pins.due() == [], "a pin counts once"
    after.release()
    assert pins.due() == ["b"]


@given(steps)
def test_all_orders(steps: list[tuple[str, int]]) -> None:
    pins: Pins[int] = Pins()
    open_: list[Pin] = []
    waiting: dict[int, set[Pin]] = {}
    out: list[int] = []
    for number, (step, choice) in enumerate(steps):
        if step == "take":
            open_.append(pins.take())
        elif step == "release" and open_:
            pin = open_.pop(choice % len(open_))
            pin.release()
            for readers in waiting.values():
                readers.discard(pin)
        elif step == "retire":
            pins.retire(number)
            waiting[number] = set(open_)
        elif step == "due":
            free = [n for n, readers in waiting.items() if not readers]
            assert pins.is_due == bool(free)
            # In order: what is free waits behind what is not, which went before it.
            found = pins.due()
            assert found == free[: len(found)]
            assert all(n not in out for n in found)
            out += found
            for n in found:
                del waiting[n]
    for pin in open_:
        pin.release()
    assert pins.due() == list(waiting)
