"""Where tasks run. One narrow interface: processes here, pods on a cluster."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crossdock.stages.events import TaskEnded, TaskId

OnEnd = Callable[[TaskEnded], None]
"""Called from any thread when a task has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskProcess:
    """How a task is run as a process."""

    task: TaskId
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    done: Path | None = None
    """A file to be made when it has succeeded, for a later runner to find."""


class Backend(Protocol):
    """Runs tasks. Thread-safe."""

    def start(self, process: TaskProcess) -> None:
        """Run a task when there is room; `OnEnd` tells of its end."""

    def kill(self, task: TaskId) -> None:
        """End a task, running or waiting for room."""

    def running(self, stage: str) -> int:
        """Return how many tasks of a stage run now."""

    def log_tail(self, task: TaskId, lines: int) -> list[str]:
        """Return the last lines that a task wrote."""

    def close(self) -> None:
        """End all tasks; return when none is left."""
