"""The jobs a worker knows, on disk and in memory.

{data_dir}/jobs/{uid}/           a job (job.py)
{data_dir}/tombstones/{uid}.json    a job that was ended (tombstones.py)
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from crossdock.errors import (
    DataCorrupt,
    JobFenced,
    JobUnknown,
    Overloaded,
    ProtocolError,
)
from crossdock.gossip import Told
from crossdock.lifecycle.facts import Facts, Stage
from crossdock.lifecycle.lease import Lease, Standing
from crossdock.records import JobRecord
from crossdock.store.marks import job_directory
from crossdock_worker.changes import Changes
from crossdock_worker.damaged import Damaged
from crossdock_worker.files import make_directory, subdirs
from crossdock_worker.job import Job
from crossdock_worker.life import Conditions, Life
from crossdock_worker.released import NOTHING
from crossdock_worker.running import RunningTime
from crossdock_worker.shuffle_log import ShuffleLog
from crossdock_worker.tombstones import Tombstones
from crossdock_worker.trash import Trash
from crossdock_worker.writes import Writes

log = structlog.get_logger()


def _nobody() -> bool:
    return False


class Jobs:
    """All jobs of a worker."""

    def __init__(
        self, data_dir: Path, *, max_shuffles: int, conditions: Conditions | None = None
    ) -> None:
        """Replay what an earlier process left in `data_dir`, even if it is over the limit.

        Args:
            data_dir: of the worker.
            max_shuffles: no more are taken.
            conditions: what the jobs live under; None: those of a worker without peers.
        """
        self.max_shuffles = max_shuffles
        self.conditions = conditions or Conditions()
        self._data_dir = data_dir
        self._dir = data_dir / "jobs"
        self._dir.mkdir(parents=True, exist_ok=True)
        self._trash = Trash(data_dir / "trash")
        ran = RunningTime(data_dir / "ran-seconds")
        self.tombstones = Tombstones(data_dir / "tombstones", self._trash, ran)
        self.writes = Writes()
        """When something was last sent to the store, by job."""
        self.changes = Changes()
        """Of which jobs peers have to be told."""
        self._lock = threading.RLock()
        """Of who comes and goes; held while that is written down."""
        self._jobs: dict[str, Job] = {}
        self._damaged = Damaged(self._trash, self.conditions)
        self._writing: dict[str, Callable[[], bool]] = {}
        """Of fenced jobs, whether requests to the store are under way."""
        for directory in subdirs(self._dir):
            self._load(directory)
        for uid in (*(stone.uid for stone in self.tombstones), *self._jobs):
            self.changes.note(uid)

    def _load(self, directory: Path) -> None:
        if directory.name in self.tombstones or not (directory / "job.json").exists():
            shutil.rmtree(directory, ignore_errors=True)
            return
        try:
            self._jobs[directory.name] = self._replay(directory)
        except (ValueError, TypeError, KeyError, AttributeError, ProtocolError) as error:
            # The others live. Nothing is deleted: an admin may know better, and ends the job else.
            self._damaged.add(directory, error)
        else:
            for shuffle in self._jobs[directory.name].shuffles.values():
                _report_damage(shuffle)

    def _replay(self, directory: Path) -> Job:
        data = json.loads((directory / "job.json").read_text())
        introduced = bool(data.pop("introduced", False))
        record = JobRecord.from_json(data)
        job = self._make(directory, record)
        job.introduced = introduced
        try:
            job.load()
        except BaseException:
            job.close()
            raise
        return job

    def _make(self, directory: Path, record: JobRecord) -> Job:
        uid = directory.name
        return Job(
            uid,
            directory,
            record,
            self._trash,
            self._check_room,
            Life.begin(self.conditions, directory),
            changed=partial(self.changes.note, uid),
        )

    def register(self, uid: str, record: JobRecord) -> tuple[Job, bool]:
        """Make a job or renew its record, in its owner's name; returns it and whether it is new.

        A higher epoch takes it over, a lower one is refused. Homes never change. What a task
        introduced gives way, whatever its epoch and homes: only the owner's word holds.
        """
        with self._lock:
            job, new = self.introduce(uid, record)
        with job.lock:
            if not job.introduced:
                job.check_epoch(record.epoch)
                record = replace(record, homes=job.record.homes or record.homes)
            if record != job.record or job.introduced:
                job.save(record, introduced=False)
        return job, new

    def introduce(self, uid: str, record: JobRecord) -> tuple[Job, bool]:
        """Make a job that is not known here, in a task's name; a known one stays as it is."""
        with self._lock:
            self._check_sound(uid)
            job = self._jobs.get(uid)
            if job is not None:
                return job, False
            directory = job_directory(self._data_dir, uid)
            make_directory(directory)
            job = self._make(directory, record)
            job.save(record, introduced=True)
            self._jobs[uid] = job
            return job, True

    def hear_of(self, told: Told) -> Job | None:
        """Take what a peer tells of a live job; returns the job unless it was ended here.

        Raises:
            DataCorrupt: its files here are damaged.
        """
        if told.record is None or told.uid in self.tombstones:
            return None
        self._damaged.hear_epoch(told.uid, told.facts.epoch)
        job, _ = self.introduce(told.uid, told.record)
        with job.lock:
            record, own = told.record, job.record
            if not told.introduced and (job.introduced or record.epoch > own.epoch):
                if not job.introduced:
                    record = replace(record, homes=own.homes or record.homes)
                job.save(record, introduced=False)
        return job

    def told(self, uid: str) -> Told | None:
        """Return what peers are told of a job; None if nothing is known of it any more."""
        stone = self.tombstones.get(uid)
        if stone is not None:
            age = self.tombstones.fenced_seconds(stone)
            return Told(uid, stone.record, introduced=False, facts=stone.facts, fenced_seconds=age)
        job = self._jobs.get(uid)
        return None if job is None else Told(uid, job.record, job.introduced, job.facts)

    def get(self, uid: str) -> Job:
        """Return a live job, or raise `JobFenced`, `JobUnknown` or `DataCorrupt`."""
        self._check_sound(uid)
        job = self._jobs.get(uid)
        if job is None:
            raise JobUnknown(f"this worker knows no job {uid!r}")
        return job

    def _check_sound(self, uid: str) -> None:
        if uid in self.tombstones:
            raise JobFenced(f"job {uid} was ended")
        self._damaged.check(uid)

    def learn_released(
        self, uid: str, facts: Facts, *, emptied: Mapping[str, int] = NOTHING
    ) -> Job | None:
        """Take what somebody who may know says of a job's releases.

        Args:
            uid: of the job.
            facts: what is released, and proved to be clear.
            emptied: see `Released.learn`.

        Returns:
            The job; None if its files are damaged: see `Damaged.learn_released`.

        Raises:
            JobFenced: it was ended.
            JobUnknown: nobody has told this worker of it.
            CrossdockError: the disk does not take it.
        """
        with self._lock:
            if uid not in self.tombstones and self._damaged.learn_released(uid, facts.released):
                return None
        job = self.get(uid)
        job.learn(facts, emptied=emptied)
        return job

    def held(self) -> list[tuple[str, Job | None]]:
        """Return all jobs that have files here, by uid; None for those whose files are damaged."""
        damaged: dict[str, Job | None] = dict.fromkeys(self._damaged)
        return sorted({**damaged, **self._jobs}.items(), key=lambda pair: pair[0])

    def stored(self, uid: str) -> bool | None:
        """Return whether a fenced job may have been written to the store here; None: not known."""
        stone = self.tombstones.get(uid)
        return None if stone is None else stone.stored

    def fence(self, uid: str, epoch: int) -> Callable[[], bool]:
        """Take and serve nothing of a job any more; survives restarts. Idempotent.

        Returns:
            Tells whether requests to the store for it may be under way still.
        """
        with self._lock:
            job = self._jobs.get(uid)
            if uid not in self.tombstones:
                if job is not None and not job.introduced:
                    job.check_epoch(epoch)
                self._damaged.check_epoch(uid, epoch)
                self._bury(uid, Facts(epoch, Stage.FENCED), None)
        writing = self._writing.get(uid, _nobody)
        if not writing():
            self._writing.pop(uid, None)
        return writing

    def _bury(
        self, uid: str, facts: Facts, record: JobRecord | None, fenced_seconds: float = 0.0
    ) -> bool:
        """Write down that a job has ended, and let it; returns whether anything of that is new."""
        job = self._jobs.get(uid)
        if job is None:
            stored = None if uid in self._damaged else False
            news = self.tombstones.bury(
                uid, facts, record, stored=stored, fenced_seconds=fenced_seconds
            )
        else:
            with job.lock:  # so that no first write to the store is noted in between
                news = self.tombstones.bury(
                    uid, facts, job.record, stored=job.stored, fenced_seconds=fenced_seconds
                )
                if not job.fenced:
                    self._writing[uid] = job.leaves.are_held
                    job.stop_writes()
        if news:
            self.changes.note(uid)
            log.info("job is fenced", job=uid, stage=facts.stage.name.lower())
        return news

    def learn_ended(
        self, uid: str, facts: Facts, record: JobRecord | None, fenced_seconds: float = 0.0
    ) -> bool:
        """Take from somebody who knows that a job has ended; its files go.

        Args:
            uid: of the job.
            facts: what is known of it; at least that it is fenced.
            record: of the job, if it is known.
            fenced_seconds: for how long it is fenced.

        Returns:
            Whether that is new here.
        """
        with self._lock:
            news = self._bury(uid, facts, record, fenced_seconds)
        self._remove(uid)
        return news

    def abandon(self, uid: str) -> bool:
        """End a job whose owner was silent everywhere; returns False if it has spoken since."""
        with self._lock:
            job = self._jobs.get(uid)
            if job is not None and job.life.lease(job.standing) is not Lease.EXPIRED:
                return False
            facts = Facts(0 if job is None else job.record.epoch, Stage.FENCED)
            self._bury(uid, facts, None)
        self._remove(uid)
        return True

    def standings(self) -> Iterator[tuple[str, Standing, float]]:
        """Yield each job that may have to be cleaned up: its uid, how it stands, since when.

        The last is when this disk learnt that it was ended, for those that were.
        """
        for job in self:
            yield job.uid, job.standing, job.life.since
        for stone in self.tombstones:
            if stone.stage is not Stage.CLEAN:
                yield stone.uid, stone.standing, stone.since

    def forget_old(self) -> None:
        """Forget jobs that were ended and clean long ago."""
        with self._lock:
            for uid in self.tombstones.forget_old():
                self.changes.forget(uid)
                self.writes.forget(uid)

    def delete(self, uid: str, epoch: int) -> int:
        """Fence a job and remove its files; returns the bytes freed. Idempotent."""
        self.fence(uid, epoch)
        return self._remove(uid)

    def _remove(self, uid: str) -> int:
        if self._damaged.discard(uid):
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
        return iter([job for job in list(self._jobs.values()) if job.uid not in self.tombstones])

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
        self.tombstones.keep_time()
        for job in self._jobs.values():
            job.close()


def _report_damage(shuffle: ShuffleLog) -> None:
    try:
        shuffle.raise_damage()
    except DataCorrupt as error:
        log.error(  # noqa: TRY400 -- where it was found says nothing
            "shuffle is damaged", job=shuffle.key.job, shuffle=shuffle.key.name,
            generation=shuffle.key.generation, problem=str(error),
        )  # fmt: skip
