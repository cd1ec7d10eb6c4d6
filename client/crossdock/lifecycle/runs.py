"""What becomes of a persist run that nobody carries on, and which keys a run can have made."""

from collections.abc import Iterator
from enum import StrEnum

from crossdock.store.layout import INTENT_ORDINALS, ShuffleLayout


class Leftover(StrEnum):
    """What to do with a run that is neither finished nor undone."""

    WAIT = "wait"
    """Its record may still come, and would count: touch nothing."""
    FINISH = "finish"
    """Its record is there, so all its segments are: keep them."""
    UNDO = "undo"
    """Delete its segments, abort its uploads, then forget its intents."""


def leftover(*, record_is_there: bool, record_was_sent: bool, settled: bool) -> Leftover:
    """Judge a run that its process has left, or whose record got no answer.

    A record names segments. So they must not go while a request for it may still take effect: a
    reader would be told of blocks that are gone.

    Args:
        record_is_there: the store has the record, looked for after `settled` was judged.
        record_was_sent: whether it may have been; True where the process that knew has died.
        settled: whether the store's settle time has passed since the last request of the run.
    """
    if record_is_there:
        return Leftover.FINISH
    if record_was_sent and not settled:
        return Leftover.WAIT
    return Leftover.UNDO


def may_forget(*, unsure: bool, settled: bool) -> bool:
    """Whether a run's intents may go.

    Where uploads cannot be listed by prefix, the intent is all that tells of one. So it stays as
    long as a request without an answer may still bring one into being.
    """
    return settled or not unsure


def intent_of(ordinal: int) -> int:
    """Return which intent of a run has to be in the store before a segment is sent."""
    return ordinal // INTENT_ORDINALS


def keys_of_intent(
    layout: ShuffleLayout, run: str, part: int = 0, *, ordinals: int = INTENT_ORDINALS
) -> Iterator[str]:
    """Yield every key under which a run may have left an upload: one for a listing by key each.

    Args:
        layout: of the shuffle.
        run: its name.
        part: which of its intents tells of them.
        ordinals: how many segments an intent allows for.
    """
    for ordinal in range(part * ordinals, (part + 1) * ordinals):
        yield layout.segment(run, ordinal)
    yield layout.record(run)
