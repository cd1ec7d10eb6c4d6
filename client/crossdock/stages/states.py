"""What the machine knows of stages and tasks, and what of it must survive the runner."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeVar

from crossdock.stages.events import Share, TaskId

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRules:
    """What the machine must know of a stage."""

    name: str
    upstream: tuple[str, ...] = ()
    """Earlier stages whose shuffles it reads."""
    tries: int = 4
    """How often one task may run before the job fails; loss does not count."""
    final: bool = False
    """Whether its output is the job's result, which nobody reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCheckpoint:
    """What must survive the runner, of one stage."""

    shares: tuple[Share, ...] | None = None
    since: int = 0
    """The first attempt that these shares were given to."""
    winners: Mapping[int, int] | None = None
    contents: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What must survive the runner."""

    stages: Mapping[str, StageCheckpoint] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read the JSON object that `to_json` made, as it is or after a way through JSON."""
        return cls(
            stages={
                name: StageCheckpoint(
                    shares=None if stage["shares"] is None else tuple(stage["shares"]),
                    since=stage["since"],
                    winners=_by_index(stage["winners"]),
                    contents=_by_index(stage["contents"]) or {},
                )
                for name, stage in value["stages"].items()
            }
        )


def _by_index(value: Mapping[str, T] | None) -> dict[int, T] | None:
    """Return a mapping whose keys JSON has made into strings."""
    return None if value is None else {int(index): v for index, v in value.items()}


class Phase(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    PLANNING = "planning"
    OBSERVING = "observing"
    RUNNING = "running"
    RECORDING = "recording"
    DONE = "done"


@dataclass(slots=True)
class TaskState:
    """One task of a stage, over all its tries."""

    tries: int = 0
    failures: int = 0
    running: int | None = None
    """The attempt under way."""
    winner: int | None = None
    """The attempt that succeeded."""
    proven: bool = False
    """Whether the winner's output has been seen whole: if it is missing now, it was lost."""
    saw_repairs: int = 0
    """How often what it reads had been repaired when it started."""


@dataclass(slots=True)
class StageState:
    """One stage, as far as it has come."""

    rules: StageRules
    phase: Phase = Phase.WAITING
    shares: tuple[Share, ...] | None = None
    tasks: list[TaskState] = field(default_factory=list)
    since: int = 0
    contents: dict[int, str] = field(default_factory=dict)
    ask: int = 0
    """The question that is not answered yet; 0: none. While running: are the inputs there? While
    waiting: one asked before it began anew, whose answer is void."""
    asked_of: dict[str, int] = field(default_factory=dict)
    """Versions of the stages it reads, when that was asked."""
    suspects: dict[int, tuple[TaskId, str]] = field(default_factory=dict)
    """Tasks whose failure is not judged yet: by index, the attempt and its reason."""
    failed_since: bool = False
    """Whether a task has failed since it was asked about its inputs."""
    repairs: int = 0
    """How often its output was lost."""
    version: int = 0
    """Grows when its output is found lost, and when it is recorded."""
    attempts: int = 0
    """Tries of all its tasks, those of plans that no longer hold included."""

    @property
    def winners(self) -> dict[int, int]:
        return {i: t.winner for i, t in enumerate(self.tasks) if t.winner is not None}

    @property
    def complete(self) -> bool:
        """Whether every task of it has a winner."""
        return self.phase in {Phase.RUNNING, Phase.RECORDING, Phase.DONE} and all(
            t.winner is not None for t in self.tasks
        )
