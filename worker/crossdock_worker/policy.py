"""When frames are persisted and freed without being asked for: a pure function of what is known.

Pressure: from `Rules.persist_bytes` on the disk, and then until it is below `relief_bytes`, what
is in the store already is freed, least recently read first. If that is not enough, complete
attempts are persisted in the same order and freed: what makes a segment at least, so that few
requests bring much; from `urgent_bytes` on whatever there is, unfinished attempts last. Age,
`Eager` and `BeforeAck` (whose frames lie in many small objects before) persist, and free nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Final

from crossdock.records import Persistence
from crossdock.views import ShuffleKey

RELIEF_SHARE: Final = 0.9
"""Of the mark at which pressure begins: where it ends."""

_SOON: Final = frozenset({Persistence.EAGER, Persistence.BEFORE_ACK})


class Trigger(StrEnum):
    """Why frames are persisted."""

    ASKED = "asked"
    PRESSURE = "pressure"
    AGE = "age"
    EAGER = "eager"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleState:
    """What counts of one shuffle. Bytes are on this disk, times monotonic."""

    key: ShuffleKey
    persistence: Persistence
    complete_bytes: int = 0
    """Of attempts whose frames have all come here, not in the store."""
    unfinished_bytes: int = 0
    """Of other attempts, not in the store: still being written, or on several workers."""
    persisted_bytes: int = 0
    """In the store too."""
    oldest: float | None = None
    """When the first frame came that is not in the store; None if all are."""
    last_write: float = 0.0
    last_read: float = 0.0
    busy: bool = False
    """Whether a run is under way: then it is left alone."""
    not_before: float = float("-inf")
    """After a failure: until when it is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Marks and times of one worker."""

    persist_bytes: float
    """Use of the disk at which pressure begins."""
    urgent_bytes: float
    """Use from which also small things go: frames are about to be pushed back."""
    segment_bytes: int
    persist_after_seconds: float
    """0: age does not count."""
    eager_quiet_seconds: float

    @property
    def relief_bytes(self) -> float:
        """Use below which pressure ends."""
        return RELIEF_SHARE * self.persist_bytes


@dataclass(frozen=True, slots=True)
class Free:
    """Drop what the store has of a shuffle."""

    key: ShuffleKey


@dataclass(frozen=True, slots=True)
class Persist:
    """Bring frames of a shuffle into the store."""

    key: ShuffleKey
    trigger: Trigger
    complete_only: bool
    """Whether only attempts whose frames have all come; else everything."""

    @property
    def then_free(self) -> bool:
        """Whether to drop them here then."""
        return self.trigger is Trigger.PRESSURE


Action = Free | Persist


def is_pressed(use_bytes: float, rules: Rules, *, before: bool) -> bool:
    """Whether the disk is to be relieved.

    Args:
        use_bytes: of the disk, without what is about to go.
        rules: of this worker.
        before: whether it was so at the last look: then it is until the relief is reached.
    """
    return use_bytes >= (rules.relief_bytes if before else rules.persist_bytes)


def decide(
    shuffles: Iterable[ShuffleState], *, use_bytes: float, pressed: bool, rules: Rules, now: float
) -> list[Action]:
    """Return what to do now, most urgent first.

    Args:
        shuffles: all that are here.
        use_bytes: of the disk, without what is about to go.
        pressed: what `is_pressed` says.
        rules: of this worker.
        now: monotonic.
    """
    open_ = sorted(
        (
            s
            for s in shuffles
            if s.persistence is not Persistence.NEVER and not s.busy and s.not_before <= now
        ),
        key=attrgetter("last_read", "last_write", "key.job", "key.name", "key.generation"),
    )
    actions = _relieve(open_, use_bytes, rules) if pressed else []
    chosen = {a.key for a in actions if isinstance(a, Persist)}
    for shuffle in open_:
        if shuffle.key not in chosen:
            actions += _in_time(shuffle, rules, now)
    return actions


def _relieve(shuffles: Sequence[ShuffleState], use_bytes: float, rules: Rules) -> list[Action]:
    """Choose what goes, least recently read first, until use would fall below the relief."""
    urgent = use_bytes >= rules.urgent_bytes
    frees: list[Action] = []
    persists: dict[ShuffleKey, Persist] = {}
    left = use_bytes
    for shuffle in shuffles:
        if left >= rules.relief_bytes and shuffle.persisted_bytes:
            frees.append(Free(shuffle.key))
            left -= shuffle.persisted_bytes
    least = 1 if urgent else rules.segment_bytes
    for shuffle in shuffles:
        if left >= rules.relief_bytes and shuffle.complete_bytes >= least:
            persists[shuffle.key] = Persist(shuffle.key, Trigger.PRESSURE, complete_only=True)
            left -= shuffle.complete_bytes
    for shuffle in shuffles:
        # Where there are several workers, all attempts look unfinished here.
        if left >= rules.relief_bytes and shuffle.unfinished_bytes >= least:
            persists[shuffle.key] = Persist(shuffle.key, Trigger.PRESSURE, complete_only=False)
            left -= shuffle.unfinished_bytes
    return [*frees, *persists.values()]


def _in_time(shuffle: ShuffleState, rules: Rules, now: float) -> list[Action]:
    """Choose what has waited long enough, however empty the disk is."""
    after, oldest = rules.persist_after_seconds, shuffle.oldest
    if after and oldest is not None and now - oldest >= after:
        return [Persist(shuffle.key, Trigger.AGE, complete_only=False)]
    if shuffle.persistence not in _SOON:
        return []
    quiet = now - shuffle.last_write >= rules.eager_quiet_seconds
    # Other workers have frames of an attempt that looks unfinished here, where there are several.
    rest = shuffle.unfinished_bytes
    if rest and (quiet or rest >= rules.segment_bytes):
        return [Persist(shuffle.key, Trigger.EAGER, complete_only=False)]
    if shuffle.complete_bytes and (quiet or shuffle.complete_bytes >= rules.segment_bytes):
        return [Persist(shuffle.key, Trigger.EAGER, complete_only=True)]
    return []
