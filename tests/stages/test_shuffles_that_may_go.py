"""Which shuffles may go, and what must be in the store for it."""

from collections.abc import Sequence

from crossdock.stages.releasing import Releasing
from crossdock.stages.states import Phase, StageRules, StageState


def stages(*rules: StageRules, done: Sequence[str]) -> dict[str, StageState]:
    found = {r.name: StageState(r) for r in rules}
    for name in done:
        found[name].phase = Phase.DONE
    return found


def stage(name: str, *upstream: str, final: bool = False) -> StageRules:
    return StageRules(name=name, upstream=upstream, final=final)


CHAIN = (stage("a"), stage("b", "a"), stage("c", "b"), stage("d", "c", final=True))


def test_a_chain_goes_one_by_one() -> None:
    known = stages(*CHAIN, done="a")
    releasing = Releasing(known)
    assert (releasing.to_secure(), releasing.to_release()) == ([], [])
    known["b"].phase = Phase.DONE
    assert (releasing.to_secure(), releasing.to_release()) == (["b"], [])
    releasing.secured("b", releasing.version("b"))
    assert (releasing.to_secure(), releasing.to_release()) == ([], ["a"])
    releasing.released("a")
    known["c"].phase = Phase.DONE
    assert (releasing.to_secure(), releasing.to_release()) == (["c"], [])
    releasing.secured("c", 0)
    assert releasing.to_release() == ["b"]
    releasing.released("b")
    assert (releasing.to_secure(), releasing.to_release()) == ([], [])


def test_what_was_lost_before_it_was_safe_is_not() -> None:
    known = stages(*CHAIN, done="ab")
    releasing = Releasing(known)
    version = releasing.version("b")
    known["b"].version += 1
    releasing.secured("b", version)
    assert (releasing.to_secure(), releasing.to_release()) == (["b"], [])


def test_nothing_goes_to_the_store_while_a_reader_is_not_done() -> None:
    rules = (stage("a"), stage("b", "a"), stage("c", "a"), stage("d", "b", "c", final=True))
    known = stages(*rules, done="ab")
    releasing = Releasing(known)
    assert releasing.to_secure() == []
    known["c"].phase = Phase.DONE
    assert releasing.to_secure() == ["b", "c"]
    releasing.secured("b", 0)
    assert releasing.to_release() == []
    releasing.secured("c", 0)
    assert releasing.to_release() == ["a"]


def test_what_another_input_of_a_reader_may_undo_stays() -> None:
    """If `x` comes out otherwise, `b` begins anew, and reads `a`."""
    rules = (stage("a"), stage("x"), stage("b", "a", "x"), stage("c", "x"), stage("d", "b", "c"))
    known = stages(*rules, done=("a", "x", "b"))
    releasing = Releasing(known)
    assert releasing.to_secure() == []
    known["c"].phase = Phase.DONE
    assert releasing.to_secure() == ["b", "c"]


def test_a_result_that_nobody_reads_is_left_alone() -> None:
    releasing = Releasing(stages(stage("a"), stage("b"), done="ab"))
    assert (releasing.to_secure(), releasing.to_release()) == ([], [])


def test_what_is_published_is_safe() -> None:
    releasing = Releasing(stages(stage("a"), stage("b", "a", final=True), done="ab"))
    assert (releasing.to_secure(), releasing.to_release()) == ([], ["a"])
