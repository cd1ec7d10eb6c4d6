"""Bugs that were planted on purpose: each replaces a decision, and the simulator has to see it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from sim_decisions import TIMING, Decisions

from crossdock.lifecycle import lease, runs, sweep, words
from crossdock.lifecycle.deletion import Action, Clear, Deletion
from crossdock.lifecycle.facts import Facts, Stage, to_clear
from crossdock.lifecycle.lease import Standing
from crossdock.lifecycle.stopping import Ender, Stopping
from crossdock.records import Owner
from crossdock.store.layout import place_of

OLD = 1e9


class NobodyIsAsked(Stopping):
    """Takes everybody for stopped."""

    accepted = True  # type: ignore[assignment]

    def stopped(self, now: float) -> float:
        return min(self._began, now)


class ClearsAtOnce(Stopping):
    """Lets the store be cleared before any worker has agreed."""

    accepted = True  # type: ignore[assignment]


class WaitsForNoLease(Stopping):
    """Takes those that do not answer for stopped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "lease_seconds": 0.0})


class TrustsTime(Stopping):
    """Waits a lease out also where the owner may speak to a worker that is cut off."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "ender": Ender.OWNER})


class ForgetsTheGone(Stopping):
    """Takes those that are left for all that ever wrote."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "everybody": True})


class OneListing(Deletion):
    """Believes the first empty listing."""

    def cleared(self, action: Clear, **found: Any) -> None:
        super().cleared(action, **found)
        self._empty *= 2


class EarlyListings(Deletion):
    """Counts listings from before the store has settled."""

    def __init__(self, stopping: Stopping, **kwargs: Any) -> None:
        super().__init__(stopping, **{**kwargs, "timing": replace(TIMING, settle_seconds=0.0)})


class DeletedIsProved(Deletion):
    """Takes what was deleted once for proved, when it begins anew."""

    def __init__(self, stopping: Stopping, **kwargs: Any) -> None:
        super().__init__(stopping, **kwargs)
        if kwargs.get("emptied"):
            self._empty = 2


class IntentsFirst(Deletion):
    """Deletes intents with all the rest."""

    def step(self, now: float) -> list[Action]:
        return [Clear(intents=True) if type(a) is Clear else a for a in super().step(now)]


def blind_write(standing: Standing, *args: Any, shuffle: tuple[str, int]) -> bool:
    facts = standing.facts
    return facts.stage is Stage.LIVE and not facts.is_released(*shuffle)


def blind_publish(standing: Standing, *args: Any, shuffle: tuple[str, int], **_: Any) -> bool:
    return blind_write(standing, shuffle=shuffle)


def any_epoch(*args: Any, epoch: int, **kwargs: Any) -> bool:
    return lease.may_publish(*args, epoch=1 << 62, **kwargs)


def in_no_time(*args: Any, timing: Any, **kwargs: Any) -> bool:
    return lease.may_publish(*args, timing=replace(timing, settle_seconds=0.0), **kwargs)


def of_released(standing: Standing, *args: Any, **kwargs: Any) -> bool:
    facts = standing.facts._replace(released={})
    return lease.may_write(replace(standing, facts=facts), *args, **kwargs)


def one_more(facts: Facts) -> dict[str, range]:
    """Clear a generation that was not released."""
    return {n: range(g.start, g.stop + 1) for n, g in to_clear(facts).items()}


def as_process(decide: Callable[..., Any]) -> Callable[..., Any]:
    """Treat the operator's silence like a process's."""

    def judged(standing: Standing, *args: Any, **kwargs: Any) -> Any:
        return decide(replace(standing, owner=Owner.DRIVER), *args, **kwargs)

    return judged


def alone(decide: Callable[..., Any]) -> Callable[..., Any]:
    """Ask no peer whether the owner was heard."""

    def judged(standing: Standing, around: lease.Surroundings, *args: Any, **kwargs: Any) -> Any:
        return decide(standing, around._replace(answered=lease.ALWAYS), *args, **kwargs)

    return judged


def ageless(decide: Callable[..., Any]) -> Callable[..., Any]:
    return lambda what, _, **kwargs: decide(what, OLD, **kwargs)


def any_cluster(key: str, age: float, *, cluster: str, **kwargs: Any) -> sweep.Verdict:
    place = place_of(key)
    return sweep.judge_key(key, age, cluster=place.cluster if place else cluster, **kwargs)


def empty_for_unknown(*args: Any, **kwargs: Any) -> sweep.LiveJobs:
    return sweep.live_jobs(*args, **kwargs) or sweep.LiveJobs(frozenset(), 0.0)


def any_uptime(answers: Any, **kwargs: Any) -> sweep.LiveJobs | None:
    return sweep.live_jobs(answers, **{**kwargs, "longest_seconds": 0.0})


def those_that_answer(answers: Any, **kwargs: Any) -> sweep.LiveJobs | None:
    return sweep.live_jobs([a for a in answers if a], **kwargs)


def never_waits(*, record_is_there: bool, record_was_sent: bool, settled: bool) -> runs.Leftover:
    return runs.leftover(record_is_there=record_is_there, record_was_sent=True, settled=True)


def forgets_fence(kept: Facts) -> Facts:
    return kept._replace(stage=Stage.LIVE)


def from_arrival(as_of: float | None, now: float) -> words.Heard:
    return words.Heard(now, now)


def relayed_from_arrival(told: words.Ages, *, asked: float, now: float) -> words.Heard:
    return words.relayed(told, asked=now, now=now)


def always_settled(*, kept_disk: bool, peers: Any) -> lease.Surroundings:
    return lease.surroundings(kept_disk=True, peers=peers)


REAL: Final = Decisions()
FORGETS_WHAT_WAS_SENT: Final = replace(
    REAL, idle_since=lambda ended, _: words.NEVER if ended is None else ended
)
"""A worker that starts takes nothing for sent before."""
FORGETS_THE_GONE: Final = replace(REAL, stopping=ForgetsTheGone)
MUTANTS: Final[dict[str, Decisions]] = {
    "no fence": replace(REAL, stopping=NobodyIsAsked),
    "no lease check before writes": replace(REAL, may_write=blind_write, may_publish=blind_publish),
    "uploads not aborted": replace(REAL, aborts_uploads=False),
    "sweep without age": replace(
        REAL, judge=ageless(sweep.judge), judge_key=ageless(sweep.judge_key)
    ),
    "sweep without cluster": replace(REAL, judge_key=any_cluster),
    "job prefix without its end": replace(REAL, job_prefix=lambda c, j: f"{c}/{j}"),
    "one empty listing is enough": replace(REAL, deletion=OneListing),
    "settle time not waited": replace(REAL, deletion=EarlyListings),
    "epoch not compared": replace(REAL, is_stale=lambda *_: False, may_publish=any_epoch),
    "operator's silence ends jobs": replace(
        REAL,
        lease_state=as_process(lease.lease_state),
        must_clean=as_process(lease.must_clean),
    ),
    "intents deleted too early": replace(REAL, deletion=IntentsFirst),
    "what was deleted once taken for proved": replace(REAL, deletion=DeletedIsProved),
    "a run's intent deleted too early": replace(REAL, may_forget=lambda **_: True),
    "fence lost at restart": replace(REAL, restored=forgets_fence),
    "sweep takes intents of what is too young": replace(
        REAL, spent_intents=lambda intents, _: intents
    ),
    "unknown live jobs taken for none": replace(REAL, live_jobs=empty_for_unknown),
    "live jobs of those that answer": replace(REAL, live_jobs=those_that_answer),
    "live jobs of workers that just began": replace(REAL, live_jobs=any_uptime),
    "lease of silent workers not waited": replace(REAL, stopping=WaitsForNoLease),
    "what was just written taken for settled": replace(REAL, idle_since=lambda *_: words.NEVER),
    "time proves it for everybody": replace(REAL, stopping=TrustsTime),
    "store cleared before anybody agreed": replace(REAL, stopping=ClearsAtOnce),
    "word counted from its arrival": replace(REAL, direct=from_arrival),
    "relayed word counted from its arrival": replace(REAL, relayed=relayed_from_arrival),
    "silence here is silence everywhere": replace(
        REAL, lease_state=alone(lease.lease_state), must_clean=alone(lease.must_clean)
    ),
    "silence before the start": replace(
        REAL, unheard=lambda _: words.Heard(words.NEVER, words.NEVER)
    ),
    "time away counted as silence": replace(REAL, resumed=lambda kept, away: kept + away),
    "run undone while its record may come": replace(REAL, leftover=never_waits),
    "publication while the lease ends": replace(REAL, may_publish=in_no_time),
    "release not looked at": replace(REAL, may_write=of_released),
    "the next generation cleared too": replace(REAL, to_clear=one_more),
    "released shuffles left to others": replace(REAL, is_turn_to_clear=lambda *_, **__: False),
    "empty disk trusted": replace(REAL, surroundings=always_settled),
    "clocks taken for exact": replace(REAL, timing=replace(TIMING, clock_margin=0.0)),
}

HINTS: Final[dict[str, int]] = {
    "no fence": 32,
    "no lease check before writes": 1,
    "uploads not aborted": 92,
    "sweep without age": 230,
    "sweep without cluster": 7,
    "job prefix without its end": 0,
    "one empty listing is enough": 3450,
    "settle time not waited": 1203,
    "epoch not compared": 11,
    "operator's silence ends jobs": 2,
    "intents deleted too early": 1442,
    "what was deleted once taken for proved": 117,
    "a run's intent deleted too early": 2,
    "fence lost at restart": 1941,
    "sweep takes intents of what is too young": 25063,
    "unknown live jobs taken for none": 11,
    "live jobs of those that answer": 907,
    "live jobs of workers that just began": 359,
    "lease of silent workers not waited": 6993,
    "what was just written taken for settled": 1203,
    "time proves it for everybody": 1998,
    "store cleared before anybody agreed": 32,
    "word counted from its arrival": 4834,
    "relayed word counted from its arrival": 1215,
    "silence here is silence everywhere": 1,
    "silence before the start": 28,
    "time away counted as silence": 470,
    "run undone while its record may come": 24,
    "publication while the lease ends": 12,
    "release not looked at": 12,
    "the next generation cleared too": 6,
    "released shuffles left to others": 5,
    "empty disk trusted": 578,
    "clocks taken for exact": 420,
}
"""Seeds that catch them, as long as nothing is drawn in another order."""

PLAYED: Final[dict[str, int]] = {"sweep takes intents of what is too young": 1_000_017}
"""Of those that are rare: what the history of that seed is played by, in place of the same seed."""
