"""The jobs a worker knows: their records, shuffles, releases and tombstones, on disk and in memory.

{data_dir}/identity                            who this worker is
{data_dir}/jobs/{uid}/job.json                 the record as registered
{data_dir}/jobs/{uid}/released.json            {shuffle: first generation that is not released}
{data_dir}/jobs/{uid}/shuffles/{name}/{generation}/   a ShuffleLog, and its seal
{data_dir}/tombstones/{uid}.json               the epoch at which a job was fenced
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import structlog

from crossdock.errors import (
    ConfigError,
    DataCorrupt,
    JobFenced,
    JobUnknown,
    QuotaExceeded,
    ShuffleMismatch,
    ShuffleReleased,
    ShuffleUnknown,
    StaleEpoch,
)
from crossdock.records import JobRecord
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock.wire.tables import Table
from crossdock_worker.shuffle_log import ShuffleLog

log = structlog.get_logger()

FORMAT_VERSION: Final = 1
_BEFORE_IDENTITY: Final = {"lock", "lost+found", ".identity.new"}
"""What an empty volume, or a start that was killed at once, leaves behind."""


@dataclass(slots=True)
class Job:
    """One job on this worker. `lock` guards all that changes."""

    uid: str
    directory: Path
    record: JobRecord
    renewed: float = field(default_factory=time.monotonic)
    """When its owner was last heard, on the monotonic clock."""
    released: dict[str, int] = field(default_factory=dict)
    shuffles: dict[tuple[str, int], ShuffleLog] = field(default_factory=dict)
    fenced: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def check_epoch(self, epoch: int) -> None:
        """Raise `StaleEpoch` for a lower epoch than the job's."""
        if epoch < self.record.epoch:
            raise StaleEpoch(
                f"job {self.uid} is at epoch {self.record.epoch}, this call is from {epoch}"
            )

    def shuffle(self, name: str, generation: int) -> ShuffleLog:
        """Return a shuffle that has frames here, or raise what readers should know."""
        with self.lock:
            self._check_released(name, generation)
            found = self.shuffles.get((name, generation))
        if found is None:
            raise ShuffleUnknown(f"no frame of shuffle {name!r} generation {generation} is here")
        return found

    def shuffle_for_writing(self, name: str, generation: int, partitions: int) -> ShuffleLog:
        """Return a shuffle, made if need be."""
        with self.lock:
            if self.fenced:
                raise JobFenced(f"job {self.uid} was ended")
            self._check_released(name, generation)
            found = self.shuffles.get((name, generation))
            if found is None:
                path = self._shuffle_dir(name, generation)
                found = ShuffleLog.create(path, self._key(name, generation), partitions)
                found.advance(self.record.epoch)
                self.shuffles[name, generation] = found
        found.raise_damage()
        if found.partitions != partitions:
            raise ShuffleMismatch(
                f"shuffle {name!r} has {found.partitions} partitions, not {partitions}"
            )
        return found

    def stop_writes(self) -> None:
        """Let no frame under way become visible any more: the job is fenced."""
        with self.lock:
            self.fenced = True
            for shuffle in self.shuffles.values():
                shuffle.close(JobFenced)

    def _check_released(self, name: str, generation: int) -> None:
        if generation < self.released.get(name, 0):
            raise ShuffleReleased(f"shuffle {name!r} generation {generation} was released")

    def _key(self, name: str, generation: int) -> ShuffleKey:
        return ShuffleKey(self.uid, name, generation)

    def _shuffle_dir(self, name: str, generation: int) -> Path:
        return self.directory / "shuffles" / name / str(generation)

    def release(self, name: str, generation: int) -> None:
        """Drop a shuffle's generations up to and with this one, for good."""
        with self.lock:
            self.released[name] = max(self.released.get(name, 0), generation + 1)
            _write_json(self.directory / "released.json", self.released)
            for key in [k for k in self.shuffles if k[0] == name and k[1] <= generation]:
                self.shuffles.pop(key).close()
            for directory in _subdirs(self.directory / "shuffles" / name):  # seals without frames
                if int(directory.name) <= generation:
                    shutil.rmtree(directory, ignore_errors=True)

    def seal(self, name: str, generation: int, winners: Table) -> tuple[Table, bool]:
        """Store a seal unless there is one; return the one that holds, and whether it is new."""
        with self.lock:
            self._check_released(name, generation)
            existing = self.read_seal(name, generation)
            if existing is not None:
                return existing, False
            path = self._seal_file(name, generation)
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_atomically(path, tables.encode(winners))
            return winners, True

    def read_seal(self, name: str, generation: int) -> Table | None:
        """Return the seal of a shuffle, if it is stored here."""
        with self.lock:
            self._check_released(name, generation)
            path = self._seal_file(name, generation)
            if not path.exists():
                return None
            return tables.decode(tables.ATTEMPT, path.read_bytes(), what=str(path))

    def _seal_file(self, name: str, generation: int) -> Path:
        return self._shuffle_dir(name, generation) / "seal"

    @property
    def disk_bytes(self) -> int:
        """Bytes of all its shuffles on this disk."""
        with self.lock:
            return sum(s.disk_bytes for s in self.shuffles.values())

    def check_quota(self, more: int, default_quota_bytes: int) -> None:
        """Raise `QuotaExceeded` when `more` bytes would be over the quota."""
        quota = self.record.quota_bytes or default_quota_bytes
        if quota and self.disk_bytes + more > quota:
            raise QuotaExceeded(
                f"job {self.uid} has {self.disk_bytes} bytes here and its quota is {quota}"
            )

    def describe(self) -> dict[str, object]:
        """Return what `GET /v1/jobs/{uid}` answers."""
        with self.lock:
            shuffles = []
            for (name, generation), shuffle in sorted(self.shuffles.items()):
                frames, pieces = shuffle.counts
                shuffles.append(
                    {
                        "name": name,
                        "generation": generation,
                        "partitions": shuffle.partitions,
                        "frames": frames,
                        "pieces": pieces,
                        "disk_bytes": shuffle.disk_bytes,
                    }
                )
            return {
                "uid": self.uid,
                "record": self.record.to_json(),
                "silent_seconds": round(time.monotonic() - self.renewed, 3),
                "disk_bytes": self.disk_bytes,
                "released": self.released,
                "shuffles": shuffles,
            }

    def load(self) -> None:
        """Replay all shuffles of the job after a restart."""
        path = self.directory / "released.json"
        if path.exists():
            self.released = {str(k): int(v) for k, v in json.loads(path.read_text()).items()}
        for name_dir in _subdirs(self.directory / "shuffles"):
            for directory in _subdirs(name_dir):
                name, generation = name_dir.name, int(directory.name)
                if generation < self.released.get(name, 0):
                    shutil.rmtree(directory, ignore_errors=True)
                    continue
                shuffle = ShuffleLog.open(directory, self._key(name, generation))
                if shuffle is not None:
                    shuffle.advance(self.record.epoch)
                    self.shuffles[name, generation] = shuffle
                    self._report_damage(shuffle)

    def _report_damage(self, shuffle: ShuffleLog) -> None:
        try:
            shuffle.raise_damage()
        except DataCorrupt as error:
            log.error(  # noqa: TRY400 -- where it was found says nothing
                "shuffle is damaged", job=self.uid, shuffle=shuffle.key.name,
                generation=shuffle.key.generation, problem=str(error),
            )  # fmt: skip


class Jobs:
    """All jobs of a worker."""

    def __init__(self, data_dir: Path) -> None:
        """Replay what an earlier process left in `data_dir`."""
        self._dir = data_dir / "jobs"
        self._tombstones = data_dir / "tombstones"
        self._dir.mkdir(parents=True, exist_ok=True)
        self._tombstones.mkdir(exist_ok=True)
        self._jobs: dict[str, Job] = {}
        self._fenced = {p.stem for p in self._tombstones.glob("*.json")}
        for directory in _subdirs(self._dir):
            self._load(directory)

    def _load(self, directory: Path) -> None:
        path = directory / "job.json"
        if directory.name in self._fenced or not path.exists():
            shutil.rmtree(directory, ignore_errors=True)
            return
        record = JobRecord.from_json(json.loads(path.read_text()))
        job = Job(directory.name, directory, record)
        job.load()
        self._jobs[job.uid] = job

    def register(self, uid: str, record: JobRecord) -> tuple[Job, bool]:
        """Make a job or renew it; returns it and whether it is new.

        A higher epoch takes it over, a lower one is refused. Homes never change.
        """
        self._check_fence(uid)
        job = self._jobs.get(uid)
        if job is None:
            directory = self._dir / uid
            directory.mkdir(exist_ok=True)
            job = Job(uid, directory, record)
            _write_json(directory / "job.json", record.to_json())
            self._jobs[uid] = job
            return job, True
        with job.lock:
            job.check_epoch(record.epoch)
            record = replace(record, homes=job.record.homes or record.homes)
            if record != job.record:
                _write_json(job.directory / "job.json", record.to_json())
                job.record = record
                for shuffle in job.shuffles.values():
                    shuffle.advance(record.epoch)
            job.renewed = time.monotonic()
        return job, False

    def get(self, uid: str) -> Job:
        """Return a live job, or raise `JobFenced` or `JobUnknown`."""
        self._check_fence(uid)
        job = self._jobs.get(uid)
        if job is None:
            raise JobUnknown(f"this worker knows no job {uid!r}")
        return job

    def _check_fence(self, uid: str) -> None:
        if uid in self._fenced:
            raise JobFenced(f"job {uid} was ended")

    def fence(self, uid: str, epoch: int) -> None:
        """Take and serve nothing of a job any more; survives restarts. Idempotent."""
        if uid in self._fenced:
            return
        job = self._jobs.get(uid)
        if job is not None:
            job.check_epoch(epoch)
        _write_json(self._tombstones / f"{uid}.json", {"epoch": epoch})
        self._fenced.add(uid)
        if job is not None:
            job.stop_writes()
        log.info("job is fenced", job=uid, epoch=epoch)

    def delete(self, uid: str, epoch: int) -> int:
        """Fence a job and remove its files; returns the bytes freed. Idempotent."""
        self.fence(uid, epoch)
        job = self._jobs.pop(uid, None)
        freed = 0
        if job is not None:
            with job.lock:
                freed = job.disk_bytes
                for shuffle in job.shuffles.values():
                    shuffle.close()
                job.shuffles.clear()
        shutil.rmtree(self._dir / uid, ignore_errors=True)
        return freed

    def __iter__(self) -> Iterator[Job]:
        """Iterate over live jobs."""
        return iter([job for job in list(self._jobs.values()) if job.uid not in self._fenced])

    @property
    def disk_bytes(self) -> int:
        """Bytes of all jobs on this disk."""
        return sum(job.disk_bytes for job in list(self._jobs.values()))

    def close(self) -> None:
        """Close all files."""
        for job in self._jobs.values():
            for shuffle in job.shuffles.values():
                shuffle.close()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is. Another id at the same address means that the disk is another."""

    id: str
    incarnation: int

    @classmethod
    def claim(cls, data_dir: Path) -> Self:
        """Read the identity of a data directory, or make one; counts the start."""
        path = data_dir / "identity"
        if path.exists():
            try:
                data = json.loads(path.read_text())
                identity = cls(str(data["id"]), int(data["incarnation"]) + 1)
                version = int(data["format"])
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path} is damaged: {error}") from error
            if version != FORMAT_VERSION:
                raise ConfigError(
                    f"{data_dir} has format {version}, this worker writes {FORMAT_VERSION}",
                    hint="use a new data directory, or the version that made it",
                )
        elif any(p.name not in _BEFORE_IDENTITY for p in data_dir.iterdir()):
            raise ConfigError(
                f"--data-dir {data_dir} holds other files and no worker's identity",
                hint="name an empty directory, or one that a worker has used",
            )
        else:
            identity = cls(os.urandom(16).hex(), 1)
        _write_json(path, {**asdict(identity), "format": FORMAT_VERSION})
        return identity


def _subdirs(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []


def _write_json(path: Path, data: Any) -> None:
    _write_atomically(path, json.dumps(data, indent=1).encode())


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.replace(path)
