"""Leave to write to the store, for jobs that release shuffles without end."""

import pytest

from crossdock.errors import ShuffleReleased
from crossdock.lifecycle.facts import NOTHING_KNOWN, Facts
from crossdock.lifecycle.lease import ALWAYS, Standing
from crossdock.lifecycle.words import Heard
from crossdock.records import Owner
from crossdock_worker.leave import Leaves
from crossdock_worker.life import Conditions

COUNT = 20_000


class Counted(Facts):
    """Counts how often somebody asks whether a shuffle is released."""

    asked = 0

    def is_released(self, name: str, generation: int) -> bool:
        Counted.asked += 1
        return super().is_released(name, generation)


class Known:
    facts: Facts = NOTHING_KNOWN

    def __call__(self) -> Standing:
        heard = Heard(ALWAYS, ALWAYS)
        return Standing(Owner.CLUSTER, ALWAYS, ALWAYS, heard, ALWAYS, self.facts)


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def leaves(known: Known) -> Leaves:
    return Leaves("job", known, Conditions())


def test_a_release_is_a_matter_of_its_shuffle_alone(leaves: Leaves, known: Known) -> None:
    for n in range(COUNT):
        leaves.of(f"s{n}", 0)
    waiting = leaves.of("s7", 0)
    known.facts = Counted(released={"s7": 1})
    Counted.asked = 0
    leaves.wake(["s7"])
    assert not leaves.are_held("s7")
    assert waiting.event.is_set()
    assert Counted.asked < 10
    assert not leaves.of("s8", 0).event.is_set()


def test_what_was_released_is_forgotten(leaves: Leaves, known: Known) -> None:
    for n in range(COUNT):
        leaves.of(f"s{n}", 0)
        known.facts = Facts(released={f"s{n}": 1})
        leaves.wake([f"s{n}"])
    assert len(leaves) == 0
    again = leaves.of(f"s{COUNT - 1}", 0)
    assert again.event.is_set()
    with pytest.raises(ShuffleReleased), again.held():
        pass


def test_who_writes_at_the_release_is_waited_for(leaves: Leaves, known: Known) -> None:
    with leaves.of("words", 0).counted(), leaves.of("words", 1).counted():
        assert not leaves.are_held("words"), "nothing of it is released"
        known.facts = Facts(released={"words": 1})
        leaves.wake(["words"])
        assert leaves.are_held("words")
        assert len(leaves) == 2
    assert not leaves.are_held("words")
    assert len(leaves) == 1, "the next generation lives"
