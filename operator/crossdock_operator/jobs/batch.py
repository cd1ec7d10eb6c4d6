"""Jobs of Kubernetes as the runs of stages see them: which tasks each has, and how they ended."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final

from crossdock.stages.events import TaskId
from crossdock_operator.api.common import GROUP
from crossdock_operator.kinds import JOB, Object

STAGE: Final = f"{GROUP}/stage"
ROLE: Final = f"{GROUP}/role"
ATTEMPT: Final = f"{GROUP}/attempt"
INDEX: Final = f"{GROUP}/index"
TASKS: Final = f"{GROUP}/tasks"
_PREFIX_CHARACTERS: Final = 24
_STAGE_CHARACTERS: Final = 16


class Role(StrEnum):
    """What the pods of a Job do."""

    TASKS = "tasks"
    LIST = "list"
    """Find the files that a stage reads: only its pods see them."""
    PUBLISH = "publish"
    """Make the files of a stage's winners the result."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tasks that one Job runs: all of a stage, or one."""

    role: Role
    stage: str
    attempt: int
    """That all its tasks were started with; no other Job of the stage has it."""
    tasks: int
    index: int | None = None
    """Of its only task; None: it has tasks 0 to `tasks`, each under its own index."""
    active: int = 0
    """Pods that run."""
    suspended: bool = False
    completed: str = ""
    """Indexes of the Job that succeeded, such as 1,3-5."""
    failed: str = ""
    over: str = ""
    """Why the Job failed as a whole, if it did."""

    @cached_property
    def done(self) -> frozenset[int]:
        """Return the tasks that succeeded."""
        return self._tasks(self.completed)

    @cached_property
    def lost(self) -> frozenset[int]:
        """Return the tasks that failed."""
        failed = self._tasks(self.failed)
        return failed if not self.over else frozenset(self.indexes()) - self.done

    def indexes(self) -> range:
        """Return its tasks' indexes."""
        return range(self.tasks) if self.index is None else range(self.index, self.index + 1)

    def ids(self) -> Iterator[TaskId]:
        """Yield its tasks' tries."""
        return (TaskId(self.stage, index, self.attempt) for index in self.indexes())

    def name(self, job: str, uid: str) -> str:
        """Return the name of its Job, short enough for names of pods and hosts."""
        key = f"{uid}/{self.role}/{self.stage}/{self.attempt}"
        head = job[:_PREFIX_CHARACTERS].rstrip("-")
        stage = self.stage[:_STAGE_CHARACTERS].rstrip("-")
        return f"{head}-{stage}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"

    def annotations(self) -> dict[str, str]:
        """Return what is written on its Job, for a later operator."""
        found = {ROLE: str(self.role), ATTEMPT: str(self.attempt), TASKS: str(self.tasks)}
        return found if self.index is None else {**found, INDEX: str(self.index)}

    def _tasks(self, ranges: str) -> frozenset[int]:
        first = self.index or 0
        return frozenset(first + index for index in parse_indexes(ranges))


def batch_of(body: Object) -> Batch | None:
    """Return what a Job of ours runs; None for any other object."""
    metadata = body["metadata"]
    said = metadata.get("annotations") or {}
    stage = (metadata.get("labels") or {}).get(STAGE)
    if stage is None or ROLE not in said or body.get("kind", JOB.name) != JOB.name:
        return None
    spec, status = body["spec"], body.get("status") or {}
    over = [
        f"{c.get('reason', '')}: {c.get('message', '')}"
        for c in status.get("conditions") or ()
        if c["type"] == "Failed" and c["status"] == "True"
    ]
    return Batch(
        role=Role(said[ROLE]),
        stage=stage,
        attempt=int(said[ATTEMPT]),
        tasks=int(said[TASKS]),
        index=int(said[INDEX]) if INDEX in said else None,
        active=status.get("active", 0),
        suspended=bool(spec.get("suspend")),
        completed=status.get("completedIndexes", ""),
        failed=status.get("failedIndexes", ""),
        over=over[0] if over else "",
    )


def parse_indexes(text: str) -> Iterator[int]:
    """Yield the numbers of a text such as 1,3-5."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
