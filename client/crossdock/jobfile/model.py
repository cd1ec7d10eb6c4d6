"""A job file as immutable values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """How the tasks of a stage share its input out; see `crossdock.stages.plan`."""

    target_task_bytes: int = 64 * 2**20
    """Bytes of partitioned input that a task should read. Smaller: more tasks, less memory each."""
    skew_factor: float = 5.0
    """A partition may be split when it is larger than this many medians of its input ..."""
    skew_floor_bytes: int = 256 * 2**20
    """... and larger than this."""
    max_tasks: int = 1000
    """The plan never makes more tasks than this; it raises the target instead."""
