"""What happens to a staged job, and what its machine wants done.

An action that is answered by an event has a number, `ask`, and its answer repeats it. An answer to
what is no longer asked counts for nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Share = Mapping[str, object]
"""What one task reads, as JSON; opaque to the machine (shares.py)."""


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """One try of one task."""

    stage: str
    index: int
    attempt: int
    """u64, never used again: the runner's epoch and a count."""


# -- events --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observed:
    """Answers `Observe`: tasks of a stage that were complete before this runner began."""

    stage: str
    complete: Mapping[int, int]
    """Index → attempt whose output is whole."""
    ask: int = 0
    running: Mapping[int, int] = field(default_factory=dict)
    """Index → attempt that an earlier runner started, and that goes on: where tasks outlive it."""


@dataclass(frozen=True, slots=True)
class Planned:
    """Answers `Plan`: what each task of a stage reads."""

    stage: str
    shares: tuple[Share, ...]
    ask: int = 0


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task ended by itself, or was stopped."""

    task: TaskId
    failure: str | None
    """One line that says why it failed; None: it succeeded."""


@dataclass(frozen=True, slots=True)
class InputsChecked:
    """Answers `CheckInputs`, or `Plan` where a view could not be made."""

    stage: str
    missing: Mapping[str, frozenset[int]]
    """Earlier stage → its tasks whose output is lost."""
    ask: int = 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """Answers `Record`: the winners are written down, and everything of them is there."""

    stage: str
    contents: Mapping[int, str] = field(default_factory=dict)
    """Index → digest of what the winner wrote."""
    ask: int = 0
    winners: Mapping[int, int] = field(default_factory=dict)
    """Index → attempt that wrote it, where that is another number than the try was started with."""


@dataclass(frozen=True, slots=True)
class OutputMissing:
    """Answers `Record` where attempts that ended well left nothing, or it was lost since."""

    stage: str
    missing: Mapping[int, str]
    """Index → why."""
    ask: int = 0


@dataclass(frozen=True, slots=True)
class Broken:
    """An action failed in a way that no further try mends."""

    stage: str
    reason: str
    ask: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """The user, a signal or a deadline ends the job."""

    reason: str


Answer = Observed | Planned | InputsChecked | Recorded | OutputMissing | Broken
Event = Answer | TaskEnded | Stop

# -- actions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Observe:
    """Find out which tasks of a stage were complete already."""

    stage: str
    since: int
    """Attempts below this one are of an earlier plan: they count for nothing."""
    ask: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Work out the tasks of a stage from its inputs."""

    stage: str
    ask: int


@dataclass(frozen=True, slots=True)
class Start:
    """Run a task."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class Kill:
    """End a running task; it answers with `TaskEnded`, which then counts for nothing."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class CheckInputs:
    """A task failed: look whether what it reads is still there."""

    stage: str
    ask: int


@dataclass(frozen=True, slots=True)
class Record:
    """Write down a stage's winners; publish them, where they are the job's output."""

    stage: str
    winners: Mapping[int, int]
    ask: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing more comes."""

    failure: str | None
    task: TaskId | None = None
    """The task that failed too often, if that is why."""


Ask = Observe | Plan | CheckInputs | Record
Action = Ask | Start | Kill | Finish
