"""What several reporters at several workers say, put together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock.demand import Demand, Need, Reported, need
from crossdock.errors import Overloaded
from crossdock_worker import demands as held
from crossdock_worker.demands import Demands

names = st.sampled_from(["driver", "a", "b"])
demands = st.builds(
    Demand,
    reporter=names,
    tasks=st.integers(0, 5),
    busy=st.dictionaries(names, st.integers(0, 5), max_size=3),
    valid_seconds=st.floats(0.5, 10),
)
reports = st.lists(st.builds(Reported, demands, st.floats(0, 12)), max_size=8)


@given(reports)
def test_what_is_said_goes_over_the_wire(said: list[Reported]) -> None:
    for each in said:
        again = Reported.from_json(each.to_json())
        assert again.demand == each.demand
        assert again.age_seconds == pytest.approx(each.age_seconds, abs=0.001)


@given(reports, st.randoms())
def test_the_order_of_answers_does_not_count(said: list[Reported], random: object) -> None:
    other = list(said)
    random.shuffle(other)  # type: ignore[attr-defined]
    ages = [each.age_seconds for each in said]
    if len(set(ages)) == len(ages):
        assert need(said) == need(other)


@given(reports)
def test_nobody_is_busier_than_somebody_said(said: list[Reported]) -> None:
    fresh = [each for each in said if each.age_seconds <= each.demand.valid_seconds]
    found = need(said)
    assert (found is None) == (not fresh)
    if found is not None:
        for executor, count in found.busy.items():
            assert count in {each.demand.busy.get(executor) for each in fresh}


def test_the_newest_word_of_each_counts_once() -> None:
    said = [
        Reported(Demand(reporter="driver", tasks=9, busy={"a": 1}), 5.0),
        Reported(Demand(reporter="driver", tasks=4, busy={"a": 0, "b": 2}), 1.0),
        Reported(Demand(reporter="b", tasks=1, busy={"b": 3}), 2.0),
        Reported(Demand(reporter="late", tasks=7, valid_seconds=1), 2.0),
    ]
    assert need(said) == Need(5, {"a": 0, "b": 3})
    assert need([]) is None


def test_reporters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MOST_REPORTERS", 2)
    book = Demands()
    book.take(Demand(reporter="a", tasks=1, valid_seconds=3600))
    book.take(Demand(reporter="b", tasks=1, valid_seconds=1e-9))
    book.take(Demand(reporter="c", tasks=1))  # the word of b is forgotten
    assert {each.demand.reporter for each in book.reports()} == {"a", "c"}
    with pytest.raises(Overloaded, match="driver report for all"):
        book.take(Demand(reporter="d", tasks=1))
    book.take(Demand(reporter="a", tasks=2))
    assert {each.demand.tasks for each in book.reports()} == {1, 2}
