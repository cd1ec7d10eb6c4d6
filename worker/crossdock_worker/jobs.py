"""The jobs a worker knows, on disk and in memory.

{data_dir}/jobs/{uid}/           a job (job.py)
{data_dir}/tombstones/{uid}.json    the epoch at which a job was fenced
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import structlog

from crossdock.errors import DataCorrupt, JobFenced, JobUnknown, Overloaded, ProtocolError
from crossdock.records import JobRecord
from crossdock.store.marks import job_directory
from crossdock_worker.files import make_directory, subdirs
from crossdock_worker.job import Job
from crossdock_worker.trash import Trash

log = structlog.get_logger()


class Jobs:
    """All jobs of a worker."""

    def __init__(self, data_dir: Path, *, max_shuffles: int) -> None:
        """Replay what an earlier process left in `data_dir`, even if it is over the limit."""
        self.max_shuffles = max_shuffles
        self._data_dir = data_dir
        self._dir = data_dir / "jobs"
        self._tombstones = data_dir / "tombstones"
        self._dir.mkdir(parents=True, exist_ok=True)
        self._tombstones.mkdir(exist_ok=True)
        self._trash = Trash(data_dir / "trash")
        self._jobs: dict[str, Job] = {}
        self._damaged: dict[str, DataCorrupt] = {}
        self._fenced = {p.stem for p in self._tombstones.glob("*.json")}
        for directory in subdirs(self._dir):
            self._load(directory)

    def _load(self, directory: Path) -> None:
        if directory.name in self._fenced or not (directory / "job.json").exists():
            shutil.rmtree(directory, ignore_errors=True)
            return
        try:
            self._jobs[directory.name] = self._replay(directory)
        except (ValueError, TypeError, AttributeError, ProtocolError) as error:
            # The others live. Nothing is deleted: an admin may know better, and ends the job else.
            self._damaged[directory.name] = DataCorrupt(
                f"the files of job {directory.name} in {directory} are damaged: {error}",
                hint="end the job and run it again under a new uid, or read other copies",
            )
            log.error(  # noqa: TRY400 -- where it was found says nothing
                "job is damaged", job=directory.name, problem=str(error)
            )

    def _replay(self, directory: Path) -> Job:
        data = json.loads((directory / "job.json").read_text())
        introduced = bool(data.pop("introduced", False))
        record = JobRecord.from_json(data)
        job = Job(directory.name, directory, record, self._trash, self._check_room)
        job.introduced = introduced
        try:
            job.load()
        except BaseException:
            job.close()
            raise
        return job

    def register(self, uid: str, record: JobRecord) -> tuple[Job, bool]:
        """Make a job or renew it, in its owner's name; returns it and whether it is new.

        A higher epoch takes it over, a lower one is refused. Homes never change. What a task
        introduced gives way, whatever its epoch and homes: only the owner's word holds.
        """
        job, new = self.introduce(uid, record)
        with job.lock:
            if not job.introduced:
                job.check_epoch(record.epoch)
                record = replace(record, homes=job.record.homes or record.homes)
            if record != job.record or job.introduced:
                job.save(record, introduced=False)
            job.renewed = time.monotonic()
        return job, new

    def introduce(self, uid: str, record: JobRecord) -> tuple[Job, bool]:
        """Make a job that is not known here, in a task's name; a known one stays as it is."""
        self._check_sound(uid)
        job = self._jobs.get(uid)
        if job is not None:
            return job, False
        directory = job_directory(self._data_dir, uid)
        make_directory(directory)
        job = Job(uid, directory, record, self._trash, self._check_room)
        job.save(record, introduced=True)
        self._jobs[uid] = job
        return job, True

    def get(self, uid: str) -> Job:
        """Return a live job, or raise `JobFenced`, `JobUnknown` or `DataCorrupt`."""
        self._check_sound(uid)
        job = self._jobs.get(uid)
        if job is None:
            raise JobUnknown(f"this worker knows no job {uid!r}")
        return job

    def _check_sound(self, uid: str) -> None:
        if uid in self._fenced:
            raise JobFenced(f"job {uid} was ended")
        if uid in self._damaged:
            raise self._damaged[uid]

    def knows(self, uid: str) -> bool:
        """Whether this disk has, or has had, anything of a job."""
        return uid in self._jobs or uid in self._fenced or uid in self._damaged

    def stored(self, uid: str) -> bool | None:
        """Return whether a fenced job may have been written to the store here; None: not known."""
        job = self._jobs.get(uid)
        return None if job is None else job.stored

    def fence(self, uid: str, epoch: int) -> None:
        """Take and serve nothing of a job any more; survives restarts. Idempotent."""
        if uid in self._fenced:
            return
        job = self._jobs.get(uid)
        if job is not None and not job.introduced:
            job.check_epoch(epoch)
        self._trash.write_down(self._tombstones / f"{uid}.json", {"epoch": epoch})
        self._fenced.add(uid)
        if job is not None:
            job.stop_writes()
        log.info("job is fenced", job=uid, epoch=epoch)

    def delete(self, uid: str, epoch: int) -> int:
        """Fence a job and remove its files; returns the bytes freed. Idempotent."""
        self.fence(uid, epoch)
        if self._damaged.pop(uid, None) is not None:
            self._trash.delete(self._trash.take(self._dir / uid))
            return 0
        job = self._jobs.pop(uid, None)
        if job is None:
            return 0
        with job.files_lock:  # what is being made is there by then, or never comes
            with job.lock:
                freed = job.disk_bytes
                for shuffle in job.shuffles.values():
                    shuffle.close()
                job.shuffles.clear()
            place = self._trash.take(job.directory)
        self._trash.delete(place)
        return freed

    def __iter__(self) -> Iterator[Job]:
        """Iterate over live jobs."""
        return iter([job for job in list(self._jobs.values()) if job.uid not in self._fenced])

    @property
    def shuffle_count(self) -> int:
        """Shuffles held, each with its files open."""
        return sum(len(job.shuffles) for job in list(self._jobs.values()))

    def _check_room(self) -> None:
        # Not exact when several come at once: as many more as there are threads.
        held = self.shuffle_count
        if held >= self.max_shuffles:
            raise Overloaded(
                f"this worker holds {held} shuffles, the limit is {self.max_shuffles}",
                retry_after_seconds=5,
                hint="release shuffles that are consumed, add workers, or raise --max-shuffles",
            )

    @property
    def disk_bytes(self) -> int:
        """Bytes of all jobs on this disk."""
        return sum(job.disk_bytes for job in list(self._jobs.values()))

    def close(self) -> None:
        """Close all files."""
        for job in self._jobs.values():
            job.close()
