"""One job on a worker: its record, shuffles, releases and seals.

{data_dir}/jobs/{uid}/job.json                 the record as registered, and whether by a task
{data_dir}/jobs/{uid}/released.json, in-store.json    what it has released (released.py)
{data_dir}/jobs/{uid}/seals-closed             there once this worker makes no seals of it any more
{data_dir}/jobs/{uid}/stored                   there before this worker first writes it to the store
{data_dir}/jobs/{uid}/shuffles/{name}/{generation}/   a ShuffleLog, and its seal
"""

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from crossdock.errors import (
    CrossdockError,
    JobFenced,
    LeaseEnded,
    SealHomeClosed,
    ShuffleReleased,
    ShuffleUnknown,
    StaleEpoch,
)
from crossdock.lifecycle.facts import Facts, Stage
from crossdock.lifecycle.lease import Lease, Standing
from crossdock.records import JobRecord
from crossdock.store import seals
from crossdock.store.marks import mark_in
from crossdock.views import ShuffleKey
from crossdock.wire.names import U64_MAX
from crossdock.wire.tables import Table
from crossdock_worker.attempts import GivenUp
from crossdock_worker.demands import Demands
from crossdock_worker.files import make_directory, subdirs, write_atomically, write_json, writing
from crossdock_worker.leave import Leaves
from crossdock_worker.life import Life
from crossdock_worker.released import NOTHING, Released
from crossdock_worker.shuffle_log import ShuffleLog
from crossdock_worker.space import remove_log
from crossdock_worker.trash import Trash

log = structlog.get_logger()

_SEALS_CLOSED: Final = "seals-closed"


@dataclass(slots=True)
class Job:
    """One job on this worker.

    `lock` guards what memory holds, and is held for moments: the event loop takes it. `files_lock`
    is held, only by threads, while files come into being or go; it is taken before `lock`.
    """

    uid: str
    directory: Path
    record: JobRecord
    trash: Trash
    check_room: Callable[[], None]
    """Raises `Overloaded` when the worker takes no further shuffle."""
    life: Life
    shuffles: dict[tuple[str, int], ShuffleLog] = field(default_factory=dict)
    introduced: bool = False
    """Whether only a task told of it yet, not its owner: then its record is only hearsay."""
    seals_closed: bool = False
    """Whether this worker makes no seals of it any more: it drained once."""
    stored: bool = False
    """Whether this worker may have written something of it to the store."""
    fenced: bool = False
    writers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How many frames are being written to each shuffle."""
    given_up: GivenUp = field(default_factory=GivenUp)
    changed: Callable[[], None] = lambda: None
    """Called, from any thread, when something new is known of it that peers should be told."""
    demands: Demands = field(default_factory=Demands)
    leaves: Leaves = field(init=False)
    """To write to the store."""
    gone: Released = field(init=False)
    """What of it is released."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    files_lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.gone = Released(self.directory, self.trash)
        self.leaves = Leaves(self.uid, lambda: self.standing, self.life.conditions)

    def save(self, record: JobRecord, *, introduced: bool) -> None:
        """Write down a record, on disk first, and let it hold."""
        data = {**record.to_json(), "introduced": introduced}
        write_json(self.directory / "job.json", data)
        self.record, self.introduced = record, introduced
        for shuffle in self.shuffles.values():
            shuffle.advance(record.epoch)
        self.changed()

    @property
    def facts(self) -> Facts:
        """What is known of it and only grows. A task's word is no knowledge."""
        stage = Stage.FENCED if self.fenced else Stage.LIVE
        gone, epoch = self.gone, 0 if self.introduced else self.record.epoch
        stored = self.stored or gone.stored
        return Facts(epoch, stage, gone.generations, gone.cleared, stored)

    @property
    def standing(self) -> Standing:
        """The job as decisions see it."""
        return self.life.standing(self.record, self.facts)

    def check_lease(self) -> None:
        """Raise `LeaseEnded` while the owner is silent for longer than the lease."""
        if self.life.lease(self.standing) is not Lease.LIVE:
            raise LeaseEnded(f"the owner of job {self.uid} was not heard for its lease")

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
        if found is None or not found.begun:
            raise ShuffleUnknown(f"no frame of shuffle {name!r} generation {generation} is here")
        return found

    def check_unreleased(self, name: str, generation: int) -> None:
        """Raise for a shuffle that was released, or a job that was ended."""
        with self.lock:
            self.check_live()
            self._check_released(name, generation)

    def expect_frame(self, name: str, generation: int) -> None:
        """Refuse a frame before its bytes come when its shuffle is gone or finds no room."""
        with self.lock:
            self._check_released(name, generation)
            known = (name, generation) in self.shuffles
        if not known:
            self.check_room()

    @contextmanager
    def writing(self, name: str, generation: int) -> Iterator[ShuffleLog]:
        """Yield the shuffle that a frame belongs to, made if need be.

        One that was made, and has no visible frame when its last writer leaves, goes again.
        """
        found = self._join(name, generation)
        if found is None:
            found = self._make(name, generation)
        try:
            found.raise_damage()
            yield found
        finally:
            self._leave(name, generation, found)

    def _join(self, name: str, generation: int) -> ShuffleLog | None:
        """Count a writer of a shuffle that is here."""
        with self.lock:
            self.check_live()
            self._check_released(name, generation)
            found = self.shuffles.get((name, generation))
            if found is not None:
                self.writers[name, generation] += 1
            return found

    def _make(self, name: str, generation: int) -> ShuffleLog:
        directory = self._shuffle_dir(name, generation)
        with self.files_lock:
            found = self._join(name, generation)
            if found is not None:  # another thread was quicker
                return found
            self.check_room()
            try:
                made = ShuffleLog.create(directory, self._key(name, generation), self.given_up)
            except CrossdockError:
                remove_log(directory)
                raise
            with self.lock:
                if not self.fenced:
                    made.advance(self.record.epoch)
                    self.shuffles[name, generation] = made
                    self.writers[name, generation] += 1
                    return made
            made.close()
            remove_log(directory)
            raise JobFenced(f"job {self.uid} was ended")

    def _leave(self, name: str, generation: int, shuffle: ShuffleLog) -> None:
        key = (name, generation)
        with self.lock:
            self.writers[key] -= 1
            if not self.writers[key]:
                del self.writers[key]
            if self._is_needed(key, shuffle):
                return
        with self.files_lock:
            with self.lock:
                if self._is_needed(key, shuffle):
                    return
                del self.shuffles[key]
                shuffle.close()
            remove_log(shuffle.directory)

    def _is_needed(self, key: tuple[str, int], shuffle: ShuffleLog) -> bool:
        """Whether a shuffle has frames or writers, or was removed with all its files already."""
        return shuffle.begun or key in self.writers or self.shuffles.get(key) is not shuffle

    def abort(
        self, key: tuple[str, int], attempt: tuple[int, int], writer: bytes | None, *, epoch: int
    ) -> int:
        """Give up (map, attempt) of a shuffle's (name, generation); see `ShuffleLog.abort`."""
        if writer is not None:  # before the look for the shuffle: its first frame may come now
            self.given_up.note(key, attempt, writer)
        return self.shuffle(*key).abort(*attempt, writer, epoch=epoch)

    def stop_writes(self) -> None:
        """Let no frame under way become visible any more: the job is fenced."""
        with self.lock:
            self.fenced = True
            for shuffle in self.shuffles.values():
                shuffle.close(JobFenced)
        self.leaves.wake()

    def check_released(self, name: str, generation: int) -> None:
        """Raise `ShuffleReleased` if this generation of a shuffle was."""
        with self.lock:
            self._check_released(name, generation)

    def _check_released(self, name: str, generation: int) -> None:
        if generation < self.gone.generations.get(name, 0):
            raise ShuffleReleased(f"shuffle {name!r} generation {generation} was released")

    def _key(self, name: str, generation: int) -> ShuffleKey:
        return ShuffleKey(self.uid, name, generation)

    def _shuffle_dir(self, name: str, generation: int) -> Path:
        return self.directory / "shuffles" / name / str(generation)

    def release(self, name: str, generation: int, *, epoch: int) -> None:
        """Drop a shuffle's generations up to and with this one, for good.

        In the name of an epoch, like a seal: another owner may come while the lock is awaited.
        """
        self.learn_released({name: generation + 1}, epoch)

    def learn_released(self, released: Mapping[str, int], epoch: int = U64_MAX) -> None:
        """Drop by shuffle the generations below a number; of what is no news, what did not go."""
        with self.files_lock:
            self.check_live()
            self.check_epoch(epoch)
            news = self.gone.news(released)
            with self.lock:
                dropped = {k: s for k, s in self.shuffles.items() if k[1] < news.get(k[0], 0)}
            # On disk first: a restart brings nothing back of which a reader heard that it is gone.
            self.gone.write_down(news, dropped.values())
            with self.lock:
                self.gone.hold(news)
                for key in dropped:
                    self.shuffles.pop(key).close()
            self.leaves.wake(news)
            self.changed()
            places = [place for n in news or released for place in self._take_released(n)]
        for place in places:
            self.trash.delete(place)

    def learn(self, facts: Facts, *, emptied: Mapping[str, int] = NOTHING) -> None:
        """Take what somebody knows of a job that lives; raises as `check_live`."""
        if self.gone.news(facts.released):
            self.learn_released(facts.released)
        if not self.gone.knows(facts) or emptied:
            with self.files_lock:
                self.check_live()
                self.gone.learn(facts, emptied)
            self.changed()

    def _take_released(self, name: str) -> list[Path]:
        places = [
            self.trash.take(directory)  # those that have but a seal too
            for directory in subdirs(self.directory / "shuffles" / name)
            if int(directory.name) < self.gone.generations.get(name, 0)
        ]
        with suppress(OSError):  # later generations may be there
            (self.directory / "shuffles" / name).rmdir()
        return places

    def seal(
        self, name: str, generation: int, winners: Table, *, epoch: int, closed: bool = False
    ) -> tuple[Table, bool]:
        """Store a seal unless there is one; return the one that holds, and whether it is new.

        Args:
            name: of the shuffle.
            generation: of the shuffle.
            winners: the seal.
            epoch: of the caller.
            closed: also where no seals are made any more: the caller knows that nobody else does.
        """
        with self.files_lock:
            self.check_live()
            self.check_epoch(epoch)
            existing = self._read_seal(name, generation)
            if existing is not None:
                return existing, False
            if self.seals_closed and not closed:
                raise SealHomeClosed(f"this worker makes no seals of job {self.uid} any more")
            path = self._seal_file(name, generation)
            make_directory(path.parent)
            write_atomically(path, seals.encode(winners))
            return winners, True

    def close_seals(self) -> None:
        """Make no seals any more, for good: who asks goes to the next home. Idempotent."""
        with self.files_lock:
            self.check_live()
            path = self.directory / _SEALS_CLOSED
            with writing(path):
                path.touch()
            self.seals_closed = True

    def sealed(self) -> list[ShuffleKey]:
        """Return the shuffles whose seals are stored here."""
        with self.files_lock:
            return [
                self._key(name_dir.name, int(directory.name))
                for name_dir in subdirs(self.directory / "shuffles")
                for directory in subdirs(name_dir)
                if (directory / "seal").exists()
            ]

    def seal_bytes(self, name: str, generation: int) -> int:
        """Return about how much room a shuffle's seal takes; 0 when none is stored here."""
        with suppress(FileNotFoundError):
            return self._seal_file(name, generation).stat().st_size
        return 0

    def read_seal(self, name: str, generation: int) -> Table | None:
        """Return the seal of a shuffle, if it is stored here; raises where none will ever be."""
        with self.files_lock:
            seal = self._read_seal(name, generation)
            if seal is None and self.seals_closed:
                raise SealHomeClosed(f"this worker makes no seals of job {self.uid} any more")
            return seal

    def _read_seal(self, name: str, generation: int) -> Table | None:
        self._check_released(name, generation)
        path = self._seal_file(name, generation)
        if not path.exists():
            return None
        return seals.decode(path.read_bytes(), where=str(path))

    def check_live(self) -> None:
        """Raise `JobFenced` once the job was ended."""
        if self.fenced:
            raise JobFenced(f"job {self.uid} was ended")

    def _seal_file(self, name: str, generation: int) -> Path:
        return self._shuffle_dir(name, generation) / "seal"

    @property
    def disk_bytes(self) -> int:
        """Bytes of all its shuffles on this disk."""
        with self.lock:
            return sum(s.disk_bytes for s in self.shuffles.values())

    def logs(self) -> list[ShuffleLog]:
        """Return its shuffles that have frames here."""
        with self.lock:
            return [s for s in self.shuffles.values() if s.begun]

    def load(self) -> None:
        """Replay all shuffles of the job after a restart."""
        self.gone.load()
        self.seals_closed = (self.directory / _SEALS_CLOSED).exists()
        self.stored = mark_in(self.directory).exists()
        for name_dir in subdirs(self.directory / "shuffles"):
            for directory in subdirs(name_dir):
                name, generation = name_dir.name, int(directory.name)
                if generation < self.gone.generations.get(name, 0):
                    shutil.rmtree(directory, ignore_errors=True)
                    continue
                shuffle = ShuffleLog.open(directory, self._key(name, generation), self.given_up)
                if shuffle is None:
                    remove_log(directory)
                else:
                    shuffle.advance(self.record.epoch)
                    self.shuffles[name, generation] = shuffle

    def close(self) -> None:
        """Close all files."""
        for shuffle in self.shuffles.values():
            shuffle.close()
