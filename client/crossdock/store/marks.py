"""What a worker's disk says of its writes to the store: the one place that knows where.

A mark lies there before the first write for a job. So where a worker's disk has the job and no
mark, that worker has never sent anything of it, whatever crashed.
"""

from pathlib import Path
from typing import Final

STORED: Final = "stored"


def mark_in(job_directory: Path) -> Path:
    """Return the mark in a job's directory on a worker's disk."""
    return job_directory / STORED


def job_directory(data_dir: Path, job: str) -> Path:
    """Return where a worker with this data directory keeps a job."""
    return data_dir / "jobs" / job


def is_unmarked(data_dir: Path, job: str) -> bool:
    """Whether the disk of a worker that has ended says that it never wrote for a job."""
    if not data_dir.exists():  # it never began
        return True
    directory = job_directory(data_dir, job)
    return directory.exists() and not mark_in(directory).exists()
