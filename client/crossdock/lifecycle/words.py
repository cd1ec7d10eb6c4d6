"""When a job's owner was heard, as far as one worker knows.

Times are of the worker's own monotonic clock, in seconds. Each is kept as two bounds, since two
mistakes have to be avoided. A right to write must not begin later than the owner's word was sent:
else a word that was under way for an hour gives rights that everybody takes for over. And silence
must not begin earlier than the word came: else a live job is taken for abandoned.

The lower bound needs no clock but the worker's: its answers carry a reading, and the owner's next
word brings back the newest that it has. So the word was sent after that reading was taken.

An owner that takes a job over brings none back, and so gives no rights, until every worker has
agreed to its epoch: the one before may be ending the job just now, or be speaking to a worker that
is cut off. `stopping.py` with `Ender.OTHER` says when.
"""

from typing import Final, NamedTuple

NEVER: Final = float("-inf")

_LEAST_SHARE: Final = 0.5
"""Of a lease: for so long a process listens itself before it holds an owner for dead. Owners speak
more often than that."""
_STEP_SHARE: Final = 0.25
"""Of a lease: silence is kept in steps of so much. So nothing is written while owners speak."""


class Heard(NamedTuple):
    """When a job's owner spoke last."""

    surely: float
    """Not before this: what rights to write are counted from."""
    perhaps: float
    """Not after this: what silence is counted from."""


class Ages(NamedTuple):
    """What a worker tells its peers: how long ago, in seconds of its clock."""

    surely: float
    """Since the word that its right is counted from, whoever told it of that."""
    itself: float
    """Since it heard the owner itself, learnt of the job, or lost a peer that may have heard it.
    Not what others told: two workers that told each other would add the time on the way again and
    again, and never see silence. It goes on over restarts: see `silence_to_keep`."""


def unheard(knows: float) -> Heard:
    """Return what is known of a job whose owner was not heard.

    Args:
        knows: since when this process knows of the job, by whomever: its owner may have spoken
            to somebody until then, and peers that answered before may have answered before there
            was such a job. After a restart, its start less the silence that was kept.
    """
    return Heard(NEVER, knows)


def silence_to_keep(silent: float, *, lease_seconds: float, grace_seconds: float) -> float:
    """Return how much silence a process that starts again on this disk may count on.

    Only time in which a process listened counts: while none did, no owner could be heard, so what
    is kept is no time of day but a sum of seconds. A word voids it, and so does the loss of a
    peer that may have heard one.

    Args:
        silent: for how long processes on this disk have listened, and heard nothing.
        lease_seconds: of the job.
        grace_seconds: of the job.
    """
    step = lease_seconds * _STEP_SHARE
    if not step:
        return 0.0
    most = lease_seconds + grace_seconds - lease_seconds * _LEAST_SHARE
    return min(silent // step * step, most)


def direct(as_of: float | None, now: float) -> Heard:
    """Return what a word says that came from the owner itself.

    Args:
        as_of: the reading of this process's clock that the word brought back; None for none, or
            one of an earlier process.
        now: when the word came.
    """
    return Heard(NEVER if as_of is None else as_of, now)


def relayed(told: Ages, *, asked: float, now: float) -> Heard:
    """Return what a peer's answer says. Rates of clocks are allowed for where it is judged.

    Args:
        told: what it answered.
        asked: when it was asked, on this clock.
        now: when its answer came.
    """
    return Heard(asked - told.surely, now - told.itself)


def later(one: Heard, other: Heard) -> Heard:
    """Return both together."""
    return Heard(max(one.surely, other.surely), max(one.perhaps, other.perhaps))
