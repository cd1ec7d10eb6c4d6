"""What a worker may do for a job now, and when it holds the job for abandoned."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from crossdock.lifecycle.facts import Facts, Stage, is_stale
from crossdock.lifecycle.timing import Timing
from crossdock.lifecycle.words import NEVER, Ages, Heard
from crossdock.records import Owner
from crossdock.wire.names import U64_MAX

ALWAYS: Final = float("inf")
"""When the peers were last heard where there are none."""


@dataclass(slots=True)
class Standing:
    """One job as one worker knows it."""

    owner: Owner
    lease_seconds: float
    grace_seconds: float
    heard: Heard
    """From the owner itself, and by peers."""
    itself: float
    """When the owner was heard here last, or since when this process knows of the job."""
    facts: Facts

    def ages(self, now: float) -> Ages:
        """Return what to tell peers of it."""
        return Ages(now - self.heard.surely, now - self.itself)


class Peer(NamedTuple):
    """The newest answer of a peer; peers that were declared gone are not peers."""

    asked: float
    """When the question was sent that it answered, on this worker's clock; NEVER for none."""
    settled: bool
    """Whether it said that it is settled in."""
    hears: bool | None = True
    """Whether it may have heard owners since. One that has drained says that it does not; None: it
    is of a version that does not say, and may hear them as long as it is there."""


class Surroundings(NamedTuple):
    """What a worker knows of its peers, as far as jobs depend on it."""

    settled: bool
    """Whether this worker knows all facts that others rely on it to know."""
    answered: float
    """Since when every peer has answered: when the one asked longest ago was asked."""


class Lease(StrEnum):
    """What a job may expect of a worker."""

    LIVE = "live"
    ENDED = "ended"
    """Take no frames, write nothing to the store, publish nothing. A word revives it."""
    EXPIRED = "expired"
    """No worker can have heard of its owner for lease and grace: it is to be deleted."""


def silence_ends(owner: Owner) -> bool:
    """Whether a job is over when its owner says nothing: a process has then died."""
    return owner is not Owner.CLUSTER


def surroundings(*, kept_disk: bool, peers: Iterable[Peer]) -> Surroundings:
    """Judge a worker's peers.

    A worker that starts on an empty disk has forgotten fences, releases and epochs that others
    count on it to know. It is settled in when a peer that is has told it, or when all have
    answered and none knows more.

    Args:
        kept_disk: this worker found its own disk when it started, or was settled in before.
        peers: all that are not declared gone.
    """
    known = list(peers)
    answered = min((p.asked for p in known), default=ALWAYS)
    told = any(p.settled and p.asked > NEVER for p in known)
    return Surroundings(kept_disk or told or answered > NEVER, answered)


def leaves_doubt(lost: Iterable[Peer]) -> bool:
    """Whether silence has to be counted from now, since somebody may have heard owners until now.

    Not if only peers are lost that had drained: what they answered then is all that they heard. So
    scaling down, however often, keeps no job of a dead owner.
    """
    return any(peer.hears is not False for peer in lost)


def has_told_all(peer: Peer) -> bool:
    """Whether nobody has to wait for what a peer that has drained may still hear.

    It says that it hears no more; or it is of a version that never says so. Then waiting would
    have no end, and its loss leaves doubt instead.
    """
    return peer.hears is not True


def rank_of(own: str, peers: Mapping[str, Peer]) -> int:
    """Return how many workers come before one when what nobody ends is to be deleted.

    Args:
        own: its id.
        peers: by id, all that are not declared gone. Those that have drained hold no job for
            abandoned, as they do not listen, and are about to go: nobody waits for them.
    """
    return sum(1 for id_, peer in peers.items() if id_ < own and peer.hears is not False)


def lease_state(standing: Standing, around: Surroundings, now: float, timing: Timing) -> Lease:
    """Return what a job's lease says.

    Expired means more than silence here: the owner may be cut off from this worker and speak to
    another. All peers were asked at `around.answered` or later, and `standing.heard` has what they
    said, so at that moment the owner had been silent everywhere since `standing.heard.perhaps`.
    """
    if not silence_ends(standing.owner):
        return Lease.LIVE
    perhaps = standing.heard.perhaps
    whole = standing.lease_seconds + standing.grace_seconds
    if min(now, around.answered) - perhaps >= timing.outlast(whole):
        return Lease.EXPIRED
    return Lease.LIVE if now - perhaps < standing.lease_seconds else Lease.ENDED


def right_since(standing: Standing, around: Surroundings) -> float:
    """Return what the right to write to the store counts from; it holds for a lease.

    Where the owner is the operator, its silence is made up for by all peers answering: then this
    worker is not cut off, and would know of a fence.
    """
    if silence_ends(standing.owner):
        return standing.heard.surely
    return max(standing.heard.surely, around.answered)


def may_write(
    standing: Standing, around: Surroundings, now: float, *, shuffle: tuple[str, int]
) -> bool:
    """Whether a write to the store may be sent now for (name, generation) of a job.

    Deletes and aborts of what this worker itself has written need no leave.
    """
    facts = standing.facts
    return (
        facts.stage is Stage.LIVE
        and not facts.is_released(*shuffle)
        and around.settled
        and now - right_since(standing, around) < standing.lease_seconds
    )


def may_publish(
    standing: Standing,
    around: Surroundings,
    now: float,
    *,
    shuffle: tuple[str, int],
    epoch: int,
    timing: Timing,
) -> bool:
    """Whether a record or manifest may be sent now, in the name of an epoch.

    It takes effect while the lease still holds, however long the request is under way. So a lease
    has to be longer than `settle_seconds` and the time between two words.
    """
    latest = now + timing.settled_after
    return not is_stale(standing.facts, epoch) and may_write(
        standing, around, latest, shuffle=shuffle
    )


def may_end_damaged(around: Surroundings, epoch: int, told: int) -> bool | None:
    """Whether a job whose files do not read may be ended by who comes with an epoch.

    Else an owner that was replaced would end its successor's job where the epoch is not known any
    more, and peers would hear of the fence. None: it is not known before all peers have answered.

    Args:
        around: what is known of peers.
        epoch: of who ends it; U64_MAX for who needs none.
        told: the highest epoch that peers have told.
    """
    if epoch == U64_MAX:
        return True
    return epoch >= told if around.answered > NEVER else None


def must_clean(
    standing: Standing,
    around: Surroundings,
    now: float,
    *,
    fenced: float,
    rank: int,
    timing: Timing,
) -> bool:
    """Whether this worker shall run the deletion of a job, since nobody else does.

    A worker does so for jobs of a process whose lease has expired, and for those that were fenced
    and not proved clean for as long. Others follow, by rank, if that one dies.

    Args:
        standing: the job.
        around: what is known of peers.
        now: this worker's time.
        fenced: when this process learnt of the fence; for jobs that are fenced.
        rank: how many workers come first: those of smaller id that are not declared gone.
        timing: what clocks and the store may do.
    """
    if not silence_ends(standing.owner) or standing.facts.stage is Stage.CLEAN:
        return False
    turn = rank * timing.outlast(standing.lease_seconds + timing.settle_seconds)
    if standing.facts.stage is Stage.LIVE:
        expired = lease_state(standing, around, now - turn, timing)
        return expired is Lease.EXPIRED
    whole = standing.lease_seconds + standing.grace_seconds
    return now - fenced >= timing.outlast(whole) + turn


def is_turn_to_clear(
    standing: Standing, now: float, *, since: float, rank: int, timing: Timing
) -> bool:
    """Whether this worker shall delete what a released shuffle has in the store.

    The first worker that has a store does it at once, the next one if that has not in the time that
    it may take.

    Args:
        standing: of the job.
        now: this worker's time.
        since: when this process learnt of the release.
        rank: how many workers with a store come first.
        timing: what clocks and the store may do.
    """
    turn = rank * timing.outlast(standing.lease_seconds + timing.settle_seconds)
    return now - since >= turn
