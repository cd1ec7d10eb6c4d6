"""The decisions one by one: the line between yes and no of each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from crossdock.lifecycle import words
from crossdock.lifecycle.deletion import Clear, Deletion, Done, Tell, Wait
from crossdock.lifecycle.facts import NOTHING_KNOWN, Facts, Stage, is_stale, joined, to_clear
from crossdock.lifecycle.lease import (
    ALWAYS,
    Lease,
    Peer,
    Standing,
    Surroundings,
    has_told_all,
    is_turn_to_clear,
    lease_state,
    leaves_doubt,
    may_publish,
    may_write,
    must_clean,
    rank_of,
    surroundings,
)
from crossdock.lifecycle.runs import Leftover, intent_of, keys_of_intent, leftover, may_forget
from crossdock.lifecycle.stopping import Ender, Stopping, idle_since
from crossdock.lifecycle.sweep import (
    Known,
    LiveJobs,
    Verdict,
    age_seconds,
    judge_key,
    live_jobs,
    spent_intents,
)
from crossdock.lifecycle.timing import Timing
from crossdock.lifecycle.unproved import Unproved
from crossdock.lifecycle.words import NEVER, Ages, Heard
from crossdock.records import Owner
from crossdock.store.layout import (
    INTENT_ORDINALS,
    Place,
    ShuffleLayout,
    closed_homes,
    place_of,
)
from crossdock.views import ShuffleKey

TIMING = Timing(settle_seconds=10, clock_margin=0.125, relist_seconds=1)
ALONE = Surroundings(settled=True, answered=ALWAYS)
SHUFFLE = ("s", 0)


def standing(owner: Owner = Owner.RUNNER, heard: float = 0.0, **facts: object) -> Standing:
    return Standing(owner, 60, 40, Heard(heard, heard), heard, Facts(**facts))  # type: ignore[arg-type]


# -- words and facts ---------------------------------------------------------------------------


def test_a_word_without_a_reading_gives_no_right() -> None:
    assert words.direct(None, 5.0) == Heard(NEVER, 5.0)
    assert words.direct(3.0, 5.0) == Heard(3.0, 5.0)


def test_a_relayed_word_counts_from_before_the_question_and_until_the_answer() -> None:
    told = Ages(surely=4.0, itself=3.0)
    assert words.relayed(told, asked=100.0, now=101.0) == Heard(96.0, 98.0)
    assert words.later(Heard(1, 5), Heard(2, 4)) == Heard(2, 5)


@pytest.mark.parametrize(
    ("silent", "kept"), [(0, 0), (14.9, 0), (15, 15), (44.9, 30), (74.9, 60), (75, 70), (1e9, 70)]
)
def test_silence_is_kept_in_steps_and_never_so_much_that_a_start_ends_a_job(
    silent: float, kept: float
) -> None:
    """Of lease 60 and grace 40, half a lease has to be listened for after each start."""
    assert words.silence_to_keep(silent, lease_seconds=60, grace_seconds=40) == kept
    assert words.silence_to_keep(silent, lease_seconds=0, grace_seconds=0) == 0


def test_facts_are_joined_in_any_order() -> None:
    some = [
        Facts(3),
        Facts(1, Stage.FENCED),
        Facts(2, Stage.LIVE, {"a": 2}),
        Facts(released={"a": 1, "b": 1}, cleared={"b": 1}),
        Facts(cleared={"a": 1}, stored=True),
    ]
    whole = Facts(3, Stage.FENCED, {"a": 2, "b": 1}, {"a": 1, "b": 1}, stored=True)
    for start in range(5):
        known = NOTHING_KNOWN
        for facts in some[start:] + some[:start] + some:
            known = joined(known, facts)
        assert known == whole
    assert whole.is_released("a", 1)
    assert not whole.is_released("a", 2)
    assert is_stale(whole, 2)
    assert not is_stale(whole, 3)


def test_what_is_released_is_cleared_where_something_may_be_and_no_more() -> None:
    known = Facts(released={"a": 3, "b": 2, "c": 1}, cleared={"a": 1, "b": 2})
    assert to_clear(known) == {}, "nothing was ever written"
    stored = known._replace(stored=True)
    assert to_clear(stored) == {"a": range(1, 3), "c": range(1)}
    assert to_clear(stored._replace(stage=Stage.FENCED)) == {}, "all of the job goes"


def test_one_worker_clears_what_is_released_and_the_next_follows() -> None:
    def turn(now: float, rank: int) -> bool:
        return is_turn_to_clear(standing(), now, since=100, rank=rank, timing=TIMING)

    assert turn(100, rank=0)
    assert not turn(178.7, rank=1)
    assert turn(178.75, rank=1)
    assert not turn(257.4, rank=2)


def test_the_oldest_release_that_is_not_proved_counts_and_new_ones_are_looked_at_first() -> None:
    unproved = Unproved()
    for name, stop, now in (("a", 1, 10), ("b", 1, 11), ("a", 3, 12), ("a", 2, 13)):
        unproved.released(name, stop, now)
    assert (unproved.since("a"), unproved.since("b"), unproved.since("c")) == (10, 11, None)
    assert unproved.look(1) == ["b"]
    unproved.released("c", 1, 14)
    assert [unproved.look(2), unproved.look(2)] == [["c", "a"], ["b", "c"]]
    unproved.proved("a", 1)
    unproved.proved("b", 1)
    assert (unproved.since("a"), unproved.since("b"), len(unproved)) == (12, None, 2)
    unproved.proved("a", 3)
    unproved.proved("never", 3)
    assert unproved.look(9) == ["c"]


def test_what_was_cleared_once_is_asked_for_no_more_before_all_have_stopped() -> None:
    stopping = Stopping(["w1", "w2"], ender=Ender.OTHER, lease_seconds=60, began=0, timing=TIMING)
    deletion = Deletion(stopping, timing=TIMING, emptied=True)
    deletion.acked("w1", 1.0)
    assert deletion.step(1.0) == [Tell(frozenset({"w2"})), Wait(1.0)]
    deletion.acked("w2", 100.0)
    assert deletion.step(100.0) == [Wait(TIMING.settled_after)]
    assert deletion.step(111.25) == [Clear(intents=False)]


def test_only_the_loss_of_a_peer_that_listened_leaves_doubt() -> None:
    drained = Peer(5.0, settled=True, hears=False)
    assert not leaves_doubt([])
    assert not leaves_doubt([drained, drained])
    assert leaves_doubt([drained, Peer(5.0, settled=True)])


def test_of_an_older_version_nobody_waits_to_hear_that_it_hears_no_more() -> None:
    """It never says so. What it may hear until its end leaves doubt instead."""
    older = Peer(5.0, settled=True, hears=None)
    assert has_told_all(older)
    assert leaves_doubt([older])
    assert has_told_all(older._replace(hears=False))
    assert not has_told_all(older._replace(hears=True))


def test_who_has_drained_comes_before_nobody() -> None:
    heard = Peer(5.0, settled=True)
    peers = {"a": heard, "b": heard._replace(hears=False), "c": heard._replace(hears=None)}
    assert [rank_of(own, peers) for own in ("a", "b", "c", "d")] == [0, 1, 1, 2]


def test_whoever_waits_for_the_store_does_so_on_every_clock() -> None:
    assert TIMING.settled_after == 11.25


# -- leases ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "state"),
    [(59.9, Lease.LIVE), (60, Lease.ENDED), (112.4, Lease.ENDED), (112.5, Lease.EXPIRED)],
)
def test_a_process_is_dead_after_lease_and_grace_on_every_clock(now: float, state: Lease) -> None:
    assert lease_state(standing(), ALONE, now, TIMING) is state


def test_the_operators_silence_ends_nothing() -> None:
    job = standing(Owner.CLUSTER)
    assert lease_state(job, ALONE, 1e9, TIMING) is Lease.LIVE
    assert may_write(job, ALONE, 1e9, shuffle=SHUFFLE)


def test_a_job_expires_only_when_all_peers_have_said_since_that_they_heard_nothing() -> None:
    around = Surroundings(settled=True, answered=112)
    assert lease_state(standing(), around, 1e9, TIMING) is Lease.ENDED
    assert lease_state(standing(), around._replace(answered=112.5), 1e9, TIMING) is Lease.EXPIRED


def test_what_the_operator_does_not_say_peers_make_up_for_if_all_answer() -> None:
    job = standing(Owner.CLUSTER)
    around = Surroundings(settled=True, answered=100)
    assert may_write(job, around, 159, shuffle=SHUFFLE)
    assert not may_write(job, around, 160, shuffle=SHUFFLE)
    assert not may_write(standing(), around, 159, shuffle=SHUFFLE)


def test_writes_need_a_lease_an_unfenced_job_and_a_worker_that_is_settled_in() -> None:
    assert may_write(standing(), ALONE, 59.9, shuffle=SHUFFLE)
    assert not may_write(standing(), ALONE, 60, shuffle=SHUFFLE)
    assert not may_write(standing(stage=Stage.FENCED), ALONE, 1, shuffle=SHUFFLE)
    assert not may_write(standing(released={"s": 1}), ALONE, 1, shuffle=SHUFFLE)
    assert may_write(standing(released={"s": 1}), ALONE, 1, shuffle=("s", 1))
    assert not may_write(standing(), ALONE._replace(settled=False), 1, shuffle=SHUFFLE)


def test_publications_land_within_the_lease_and_under_the_newest_epoch() -> None:
    def may(now: float, epoch: int = 2) -> bool:
        job = standing(epoch=2)
        return may_publish(job, ALONE, now, shuffle=SHUFFLE, epoch=epoch, timing=TIMING)

    assert may(48.7)
    assert not may(48.75)
    assert not may(1, epoch=1)


def test_an_empty_disk_is_settled_in_when_one_that_is_has_told_it_or_all_have() -> None:
    told, new = Peer(5.0, settled=True), Peer(4.0, settled=False)
    silent = Peer(NEVER, settled=True)
    assert not surroundings(kept_disk=False, peers=[silent, new]).settled
    assert surroundings(kept_disk=False, peers=[silent, told]) == (True, NEVER)
    assert surroundings(kept_disk=False, peers=[new, new]) == (True, 4.0)
    assert surroundings(kept_disk=False, peers=[]) == (True, ALWAYS)
    assert surroundings(kept_disk=True, peers=[silent]).settled


def test_one_worker_cleans_up_and_the_next_follows_if_it_dies() -> None:
    def must(job: Standing, now: float, rank: int = 0, fenced: float = 0.0) -> bool:
        return must_clean(job, ALONE, now, fenced=fenced, rank=rank, timing=TIMING)

    assert not must(standing(), 112)
    assert must(standing(), 112.5)
    assert not must(standing(), 112.5, rank=1)
    assert must(standing(), 112.5 + 78.75, rank=1)
    fenced = standing(stage=Stage.FENCED)
    assert not must(fenced, 303.4, fenced=191)
    assert must(fenced, 303.5, fenced=191)
    assert not must(standing(stage=Stage.CLEAN), 1e9)
    assert not must(standing(Owner.CLUSTER, stage=Stage.FENCED), 1e9)


# -- runs --------------------------------------------------------------------------------------


def test_a_run_is_undone_only_when_its_record_cannot_come_any_more() -> None:
    def judged(there: bool, sent: bool, settled: bool) -> Leftover:
        return leftover(record_is_there=there, record_was_sent=sent, settled=settled)

    assert judged(False, True, False) is Leftover.WAIT
    assert judged(False, True, True) is Leftover.UNDO
    assert judged(False, False, False) is Leftover.UNDO
    assert judged(True, True, False) is Leftover.FINISH
    assert not may_forget(unsure=True, settled=False)
    assert may_forget(unsure=True, settled=True)
    assert may_forget(unsure=False, settled=False)


def test_a_runs_keys_are_those_of_its_layout() -> None:
    layout = ShuffleLayout.of("c1", ShuffleKey("j1", "s", 3))
    keys = list(keys_of_intent(layout, "r", ordinals=2))
    assert keys == [layout.segment("r", 0), layout.segment("r", 1), layout.record("r")]
    assert {place_of(k) for k in keys} == {Place("c1", "j1", "r", is_intent=False)}
    assert place_of(layout.intent("r")) == Place("c1", "j1", "r", is_intent=True)
    assert place_of(layout.intent("r", 3)) == Place("c1", "j1", "r", is_intent=True, part=3)
    assert list(keys_of_intent(layout, "r", 3, ordinals=2)) == [
        layout.segment("r", 6), layout.segment("r", 7), layout.record("r"),
    ]  # fmt: skip
    for ordinal in (0, INTENT_ORDINALS - 1, INTENT_ORDINALS, 9 * INTENT_ORDINALS):
        key = layout.segment("r", ordinal)
        assert key in keys_of_intent(layout, "r", intent_of(ordinal))
    assert place_of(layout.manifest("ab")) == Place("c1", "j1", "", is_intent=False)
    assert place_of(layout.log("r")) == Place("c1", "j1", "r", is_intent=False)
    assert place_of(layout.seal) == Place("c1", "j1", "", is_intent=False)
    assert place_of(f"{closed_homes('c1', 'j1')}w") == Place("c1", "j1", "", is_intent=False)
    for foreign in (
        "a/b/c",
        "c1/j1/zzzz/s/3/segments/r/0",
        f"x/{keys[0]}",
        "c1/j1/0000/s/3/segments/",
    ):
        assert place_of(foreign) is None


# -- stopping and deleting ---------------------------------------------------------------------


def stopping(ender: Ender, *workers: str) -> Stopping:
    return Stopping(workers, ender=ender, lease_seconds=60, began=100, timing=TIMING)


def test_all_have_stopped_when_the_last_has_answered() -> None:
    found = stopping(Ender.OTHER, "a", "b")
    found.acked("a", 101)
    assert found.stopped(1e9) is None
    found.acked("b", 105)
    found.acked("b", 109)
    assert found.stopped(110) == 105


def test_who_does_not_answer_stops_a_lease_later_once_one_has() -> None:
    owner, operator = stopping(Ender.OWNER, "a", "b"), stopping(Ender.OPERATOR, "a", "b")
    for found in (owner, operator):
        assert found.stopped(1e9) is None
        assert not found.accepted
        found.acked("a", 110)
        assert found.accepted
    assert owner.stopped(167.4) is None
    assert owner.stopped(167.5) == 167.5
    assert operator.stopped(177.4) is None
    assert operator.stopped(177.5) == 177.5


def test_who_has_written_nothing_for_long_stopped_then_if_nobody_else_wrote() -> None:
    def last(*, everybody: bool) -> float | None:
        found = Stopping(
            "ab", ender=Ender.OWNER, lease_seconds=60, began=100, timing=TIMING, everybody=everybody
        )
        found.acked("a", 101, idle_seconds=45)  # 40 s of this clock, at least
        assert found.stopped(102) is None
        found.acked("b", 102, idle_seconds=9)
        return found.stopped(102)

    assert last(everybody=True) == 94
    assert last(everybody=False) == 100
    nobody = Stopping(
        "", ender=Ender.OWNER, lease_seconds=60, began=100, timing=TIMING, everybody=True
    )
    assert nobody.stopped(101) == 100
    assert idle_since(None, 50) == 50
    assert idle_since(70, 50) == 70


def test_a_deletion_waits_for_what_is_left_of_the_settle_time() -> None:
    machine = Deletion(
        Stopping(
            "a", ender=Ender.OWNER, lease_seconds=60, began=100, timing=TIMING, everybody=True
        ),
        timing=TIMING,
    )
    machine.acked("a", 101, idle_seconds=9)  # 8 s of 11.25
    cleared(machine, 101, objects=1)
    assert machine.step(102) == [Wait(2.25)]
    cleared(machine, 104.25)
    cleared(machine, 105.5)
    assert machine.step(106) == [Done(frozenset())]


def test_who_is_gone_is_not_waited_for() -> None:
    found = stopping(Ender.OTHER, "a")
    found.gone("a", 120)
    assert found.stopped(120) == 120


def cleared(
    machine: Deletion, now: float, *, objects: int = 0, uploads: int = 0, intents: int = 0
) -> None:
    [action] = machine.step(now)
    assert isinstance(action, Clear)
    machine.cleared(action, uploads=uploads, objects=objects, intents=intents, began=now)


def test_a_deletion_ends_with_two_empty_listings_after_the_store_has_settled() -> None:
    machine = Deletion(stopping(Ender.OTHER, "a"), timing=TIMING)
    assert machine.step(100) == [Tell(frozenset("a")), Wait(1.0)]
    machine.acked("a", 101)
    cleared(machine, 101, objects=3, uploads=1)
    [wait] = machine.step(102)
    assert wait == Wait(10.25)
    cleared(machine, 113, objects=1)
    assert isinstance(machine.step(114)[0], Wait)
    cleared(machine, 114.5)
    assert isinstance(machine.step(115)[0], Wait)
    cleared(machine, 116)
    assert machine.step(116) == [Done(frozenset())]


def test_intents_go_last_and_are_looked_for_again() -> None:
    machine = Deletion(stopping(Ender.OTHER), timing=TIMING)
    cleared(machine, 100, intents=1)
    for now in (112, 114):
        cleared(machine, now, intents=1)
    assert machine.step(116) == [Clear(intents=True)]
    cleared(machine, 116, intents=1)
    for now in (118, 120):
        cleared(machine, now)
    assert isinstance(machine.step(120)[0], Done)


def test_a_deletion_names_who_never_answered() -> None:
    machine = Deletion(stopping(Ender.OWNER, "a", "b"), timing=TIMING)
    machine.acked("a", 101)
    assert machine.step(101) == [Tell(frozenset("b")), Clear(intents=False)]
    machine.cleared(Clear(intents=False), uploads=0, objects=0, intents=0, began=101)
    assert machine.step(170) == [Tell(frozenset("b")), Wait(1.0)]
    for now in (179, 181):
        machine.cleared(Clear(intents=False), uploads=0, objects=0, intents=0, began=now)
    assert machine.step(183)[-1] == Done(frozenset("b"))


# -- sweeping ----------------------------------------------------------------------------------


KEY = ShuffleLayout.of("c1", ShuffleKey("j1", "s", 0)).segment("r", 0)
NOBODY = LiveJobs(frozenset(), 0.0)


@pytest.mark.parametrize(
    ("key", "age", "live", "verdict"),
    [
        (KEY, 112.5, NOBODY, Verdict.ORPHAN),
        (KEY, 112.4, NOBODY, Verdict.YOUNG),
        (KEY, 230.0, LiveJobs(frozenset(), 200.0), Verdict.YOUNG),
        (KEY, 1e9, LiveJobs(frozenset({"j1"}), 0.0), Verdict.LIVE),
        (KEY, 1e9, LiveJobs(frozenset({"j10"}), 0.0), Verdict.ORPHAN),
        (KEY, 1e9, None, Verdict.UNKNOWN),
        (KEY, None, NOBODY, Verdict.UNKNOWN),
        (KEY.replace("c1/", "c10/"), 1e9, NOBODY, Verdict.FOREIGN),
        ("c1/j1/notes.txt", 1e9, NOBODY, Verdict.FOREIGN),
    ],
)
def test_only_what_is_ours_old_and_of_no_live_job_is_an_orphan(
    key: str, age: float | None, live: LiveJobs | None, verdict: Verdict
) -> None:
    found = judge_key(key, age, cluster="c1", live=live, grace_seconds=100, timing=TIMING)
    assert found is verdict


def test_live_jobs_are_known_only_if_all_workers_answer_and_remember_enough() -> None:
    one, two = Known(frozenset("a"), 500), Known(frozenset("b"), 100)

    def live(*answers: Known | None) -> LiveJobs | None:
        return live_jobs(answers, longest_seconds=100, age_seconds=2)

    assert live(one, two) == LiveJobs(frozenset("ab"), 2)
    assert live(one, None) is None
    assert live(one, replace(two, uptime_seconds=99)) is None
    assert live() is None


def test_an_intent_stays_as_long_as_anything_of_its_run() -> None:
    layout = ShuffleLayout.of("c1", ShuffleKey("j1", "s", 0))
    one, two = layout.intent("one"), layout.intent("two")
    others = [layout.segment("one", 3), layout.manifest("ab"), "c1.txt"]
    assert spent_intents([one, two], others) == [two]
    assert spent_intents([one, two], [layout.record("two"), *others]) == []
    more = layout.intent("two", 1)
    assert spent_intents([one, two, more], others) == [two, more]


def test_ages_are_the_stores() -> None:
    then = datetime(2001, 1, 1, tzinfo=UTC)
    assert age_seconds(then, then + timedelta(seconds=5)) == 5
    assert age_seconds(None, then) is None
