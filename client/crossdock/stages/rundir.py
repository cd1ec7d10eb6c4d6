"""The directory of a run: what a later runner needs to go on, and what must be cleared away.

    lock              held by the runner, and by its nanny until the last process has ended
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from crossdock.errors import ConfigError
from crossdock.stages.outputs import Output, missing_parents

_VERSION: Final = 1


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
    made: tuple[str, ...] = ()
    """Directories above those and the run's that were not there before, the outermost first."""
    version: int = _VERSION

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        tuples = {name: tuple(value.get(name, ())) for name in ("outputs", "made")}
        return cls(**{**value, **tuples})


class RunDirectory:
    """A locked directory of one run."""

    def __init__(self, path: Path, lock: int, *, made: bool, above: Sequence[Path] = ()) -> None:
        """Use `fresh` or `existing`."""
        self.path = path
        self.lock = lock
        """Descriptor of the lock; whoever has it open holds it."""
        self._made = made
        self.above = above
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

    def remove(self) -> None:
        """Delete everything of the run, and the directory unless it was there before."""
        _clear(self.path)
        if self._made:
            self.path.rmdir()
            _remove_empty(self.above)
            if self.path.parent == _temporary_base():
                _remove_base()
        os.close(self.lock)

    @classmethod
    def fresh(cls, path: Path | None) -> Self:
        """Make the directory of a new run.

        Args:
            path: where; None: below the user's directory for temporary runs.

        Raises:
            ConfigError: the place is taken, by a run that goes on or by other files.
        """
        if path is None:
            with _base_locked() as base:
                directory = Path(tempfile.mkdtemp(prefix="run-", dir=base))
                return cls(directory, _locked(directory), made=True)
        made, above = not path.exists(), missing_parents([path])
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not made and any(path.iterdir()) and not (path / "run.json").exists():
            raise ConfigError(
                f"{path} has files that are of no run", hint="choose a new or empty directory"
            )
        lock = _locked(path)
        _clear(path, keep_lock=True)
        return cls(path, lock, made=made, above=above)

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
        run = cls(path, _locked(path), made=True)
        run.above = [Path(made) for made in run.record().made]
        return run


def clear_dead_runs() -> tuple[list[Path], list[str]]:
    """Delete temporary runs whose runners died; return their directories, and what went wrong."""
    cleared, problems = [], []
    with _base_locked() as base:
        for directory in sorted(base.glob("run-*")):
            try:
                lock = _locked(directory)
            except ConfigError:
                continue
            try:
                _clear(directory)
                directory.rmdir()
                cleared.append(directory)
            except OSError as error:  # not what this run is about
                problems.append(f"cannot clear what a dead run left in {directory}: {error}")
            finally:
                os.close(lock)
    _remove_base()
    return cleared, problems


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it has all of `data`, or what it had before."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    fresh.replace(path)


def _clear(directory: Path, *, keep_lock: bool = False) -> None:
    """Delete a run's files here and elsewhere; the lock file last."""
    try:
        record = RunRecord.from_json(json.loads((directory / "run.json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        record = None
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


def _remove_empty(directories: Sequence[Path]) -> None:
    """Remove directories, the last first, but for those that have something."""
    for directory in reversed(directories):
        with suppress(OSError):
            directory.rmdir()


def _locked(directory: Path) -> int:
    path = directory / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(fd)):
            raise BlockingIOError  # its last holder is just removing the directory
    except OSError as error:
        os.close(fd)
        if not isinstance(error, BlockingIOError | FileNotFoundError):
            raise
        raise ConfigError(
            f"a run is under way in {directory}", hint="wait for it, or choose another directory"
        ) from None
    return fd


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
