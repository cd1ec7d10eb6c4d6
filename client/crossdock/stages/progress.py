"""How far a job has come, for displays and the final table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """One stage at one moment."""

    name: str
    phase: str
    tasks: int = 0
    """How many there are; 0 until the stage is planned."""
    done: int = 0
    running: int = 0
    attempts: int = 0
    """Tries of all tasks so far."""
    bytes_in: int = 0
    """Of its shuffles and files."""
    bytes_out: int = 0
    """Of its shuffle on the workers, or of its files once they are published."""
    partitions: int = 0
    """Of its shuffle."""
    largest_bytes: int = 0
    """Its largest partition; 0 until it is recorded."""
    median_bytes: int = 0
    seconds: float = 0.0
    """Since it was planned."""

    @property
    def skew(self) -> float | None:
        """Largest partition ÷ median; None when there is none, or the median is empty."""
        return self.largest_bytes / self.median_bytes if self.median_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """A job at one moment."""

    name: str
    stages: tuple[StageProgress, ...]
    seconds: float
