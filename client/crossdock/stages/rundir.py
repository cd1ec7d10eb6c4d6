"""The directory of a run: what a later runner needs to go on, and what must be cleared away.

    (itself)          locked by the runner
    lock              locked by the runner, and by its nanny until the last process has ended
    job.yaml          the job file as it was
    run.json          whose run it is, its epoch, and what it has put elsewhere
    checkpoint.json   what was planned and recorded
    key, token        of this run's workers
    worker/           the worker's data
    stages/ done/ logs/

Without a given directory it lies below one of the user's own for temporary runs; every runner
clears from there what dead ones have left.
"""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from crossdock.errors import ConfigError
from crossdock.stages.outputs import Output, missing_parents

_VERSION: Final = 1
_ENDING_SECONDS: Final = 15.0
"""For the processes of a dead runner to end: they have `nanny.GRACE_SECONDS` after SIGTERM."""
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What `run.json` says."""

    job: str
    """The job's uid."""
    source: str
    """The job file."""
    data_root: str
    overwrite: bool
    """Whether results may replace files."""
    epoch: int = 0
    outputs: tuple[str, ...] = ()
    """Directories of results; what is not published yet lies beside them."""
    store: str = ""
    """URL of the worker's store; "": none."""
    store_options: tuple[str, ...] = ()
    """NAME=VALUE, of the store."""
    store_settle_seconds: float = 30.0
    """A request to the store takes effect within this time, or never."""
    made: tuple[str, ...] = ()
    """Directories that were not there before: the run's, and those above it and the outputs."""
    version: int = _VERSION

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        tuples = {name: tuple(value.get(name, ())) for name in ("outputs", "made", "store_options")}
        return cls(**{**value, **tuples})


class RunDirectory:
    """A locked directory of one run."""

    def __init__(self, path: Path, lock: int, *, made: Sequence[Path]) -> None:
        """Use `fresh` or `existing`."""
        self.path = path
        self.lock = lock
        """Descriptor of the lock; whoever has it open holds it."""
        self._runner = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._runner, fcntl.LOCK_EX)  # at most a moment: others only try it
        self.made = made
        """Directories that were made for it, the outermost first; they go with it."""
        for name in ("stages", "done", "logs"):
            (path / name).mkdir(exist_ok=True)

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def record(self) -> RunRecord:
        """Return what the run is."""
        return RunRecord.from_json(json.loads((self.path / "run.json").read_bytes()))

    def write_record(self, record: RunRecord) -> None:
        self.write("run.json", asdict(record))

    def write(self, name: str, value: object) -> None:
        """Write JSON to a file of the directory, whole or not at all."""
        write_atomically(self.path / name, json.dumps(value).encode())

    def read(self, name: str) -> Any | None:
        """Return the JSON of a file; None if there is none."""
        try:
            return json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return None

    def done_file(self, stage: str, index: int, attempt: int) -> Path:
        """Return what marks a task that has succeeded."""
        directory = self.path / "done" / stage
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"{index}-{attempt}"

    def done(self, stage: str, *, since: int = 0) -> dict[int, int]:
        """Return index → attempt of the tasks that have succeeded, by attempts from `since` on."""
        directory = self.path / "done" / stage
        if not directory.is_dir():
            return {}
        pairs = (file.name.split("-") for file in sorted(directory.iterdir()))
        return {int(index): int(attempt) for index, attempt in pairs if int(attempt) >= since}

    def known_record(self) -> RunRecord | None:
        """Return what a run was; None if it had not come so far, or is of another release."""
        return _record_in(self.path)

    def remove(self) -> None:
        """Delete everything of the run, and the directories that were made for it."""
        try:
            _clear(self.path)
            _remove_empty(self.made)
            if self.path.parent == _temporary_base():
                _remove_base()
        finally:
            self.leave()

    def leave(self) -> None:
        """Unlock it as it is: who comes later goes on with it, or clears it."""
        os.close(self._runner)
        os.close(self.lock)

    @classmethod
    def fresh(cls, path: Path | None, *, clear: Callable[[Path, RunRecord], None]) -> Self:
        """Make the directory of a new run.

        Args:
            path: where; None: below the user's directory for temporary runs.
            clear: deletes what a dead run there has elsewhere than in files.

        Raises:
            ConfigError: the place is taken, by a run that goes on or by other files.
            CrossdockError: of `clear`.
        """
        if path is None:
            with _base_locked() as base:
                directory = Path(tempfile.mkdtemp(prefix="run-", dir=base))
                return cls(directory, _locked(directory), made=[directory])
        made = missing_parents([path / "lock"])
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        dead = (path / "run.json").exists()
        if not dead and any(path.iterdir()):
            raise ConfigError(
                f"{path} has files that are of no run", hint="choose a new or empty directory"
            )
        lock = _locked(path)
        record = _record_in(path) if dead else None
        if record is not None:
            try:
                clear(path, record)
            except BaseException:
                os.close(lock)
                raise
            made = [Path(each) for each in record.made]
        _clear(path, keep_lock=True)
        return cls(path, lock, made=made)

    @classmethod
    def existing(cls, path: Path) -> Self:
        """Open the directory of a run whose runner died.

        Raises:
            ConfigError: there is none, or its runner lives.
        """
        if not (path / "run.json").exists():
            raise ConfigError(
                f"{path} has no run to go on with",
                hint="a run that ends by itself, or by Ctrl-C, leaves nothing",
            )
        return cls(path, _locked(path), made=_made_by(path))


def dead_runs() -> tuple[list[RunDirectory], list[str]]:
    """Return temporary runs whose runners died, locked, and what is wrong with others."""
    found, problems = [], []
    with _base_locked() as base:
        for directory in sorted(base.glob("run-*")):
            try:
                found.append(RunDirectory(directory, _locked(directory), made=[directory]))
            except ConfigError:
                continue
            except OSError as error:  # not what this run is about
                problems.append(f"cannot clear what a dead run left in {directory}: {error}")
    _remove_base()
    return found, problems


def worker_data(path: Path) -> Path:
    """Return the data directory of the worker of the run in `path`."""
    return path / "worker"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it has all of `data`, or what it had before."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    fresh.replace(path)


def _clear(directory: Path, *, keep_lock: bool = False) -> None:
    """Delete a run's files here and elsewhere; the lock file last."""
    record = _record_in(directory)
    if record is not None:
        for output in record.outputs:
            Output(Path(output), record.job).clear()
        _remove_empty([Path(made) for made in record.made])
    for entry in directory.iterdir():
        if entry.name in {"lock", "run.json"}:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    (directory / "run.json").unlink(missing_ok=True)
    if not keep_lock:
        (directory / "lock").unlink(missing_ok=True)


def _record_in(directory: Path) -> RunRecord | None:
    """Return what the run is; None if it had not come so far, or is of another release."""
    try:
        return RunRecord.from_json(json.loads((directory / "run.json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _made_by(directory: Path) -> list[Path]:
    """Return the directories that a dead run has made."""
    record = _record_in(directory)
    return [] if record is None else [Path(made) for made in record.made]


def _remove_empty(directories: Sequence[Path]) -> None:
    """Remove directories, the last first, but for those that have something."""
    for directory in reversed(directories):
        with suppress(OSError):
            directory.rmdir()


def _locked(directory: Path) -> int:
    """Lock the directory of a run that nobody runs; return the lock's descriptor.

    The processes of a runner that was killed end by themselves; for these it waits a moment.

    Raises:
        ConfigError: a runner is at work, or what a dead one left does not end.
    """
    until = time.monotonic() + _ENDING_SECONDS
    while (fd := _try_lock(directory)) is None:
        if _runner_lives(directory):
            raise ConfigError(
                f"a run is under way in {directory}",
                hint="wait for it, or choose another directory",
            )
        if time.monotonic() > until:
            raise ConfigError(
                f"processes of a run that was killed have not ended yet in {directory}",
                hint="try again in a moment",
            )
        time.sleep(_POLL_SECONDS)
    return fd


def _try_lock(directory: Path) -> int | None:
    """Return the descriptor of the directory's lock; None if it is taken."""
    path = directory / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # its last holder has just removed the directory
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(fd)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _runner_lives(directory: Path) -> bool:
    """Return whether a runner has the directory, or nobody can have it any more."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _temporary_base() -> Path:
    return Path(tempfile.gettempdir()) / f"crossdock-{os.getuid()}"


@contextmanager
def _base_locked() -> Iterator[Path]:
    """Yield the directory of temporary runs while nobody else begins or clears one."""
    base = _temporary_base()
    fd = None
    while fd is None:
        with suppress(FileNotFoundError):  # another run has just removed it
            fd = _locked_base(base)
    try:
        yield base
    finally:
        os.close(fd)


def _locked_base(base: Path) -> int | None:
    """Return the descriptor of the locked directory; None if it was removed meanwhile."""
    base.mkdir(mode=0o700, exist_ok=True)
    status = base.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or base.is_symlink():
        raise ConfigError(
            f"{base} is not a directory of yours alone", hint="remove it, or set TMPDIR"
        )
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.samestat(base.stat(), os.fstat(fd)):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _remove_base() -> None:
    try:
        _temporary_base().rmdir()
    except OSError:
        return  # others have runs there
