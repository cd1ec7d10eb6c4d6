"""The persist runs of one shuffle, as this worker's disk remembers them.

{shuffle directory}/runs/{run}.intent    begun; made before anything is written to the store
{shuffle directory}/runs/{run}.record    finished: the same bytes as the record in the store
{shuffle directory}/runs/{run}.log       a log object that may be in the store, and its record
"""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from crossdock.errors import DataCorrupt, ProtocolError
from crossdock.store.manifest import identities
from crossdock.store.records import Record
from crossdock.wire import tables
from crossdock.wire.tables import Table
from crossdock_worker.files import write_atomically, writing

_INTENT: Final = ".intent"
_RECORD: Final = ".record"
_LOG: Final = ".log"


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """What memory keeps of a finished run: its frames. The rest of its record is on disk."""

    run: str
    frames: Table
    """`tables.FRAME`s, sorted."""

    @property
    def payload_bytes(self) -> int:
        """Bytes of the frames."""
        return int(self.frames["payload_bytes"].sum(dtype=np.uint64))


class Runs:
    """What was persisted of a shuffle. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Read what earlier processes wrote down; a damaged record counts for nothing."""
        self._directory = directory
        self._lock = threading.Lock()
        self._open = {p.name.removesuffix(_INTENT) for p in directory.glob(f"*{_INTENT}")}
        self._finished = {run.run: run for run in _read_all(directory, _RECORD)}
        self._logs = {run.run: run for run in _read_all(directory, _LOG)}
        self.payload_bytes = sum(run.payload_bytes for run in self._finished.values())
        """Of all finished runs."""
        self._log_bytes = sum(run.payload_bytes for run in self._logs.values())

    @property
    def stored_bytes(self) -> int:
        """Bytes of payload that finished runs and log objects have in the store."""
        return self.payload_bytes + self._log_bytes

    @property
    def unfinished(self) -> list[str]:
        """Runs that were begun and are neither finished nor cleaned up."""
        with self._lock:
            return sorted(self._open)

    def finished(self) -> list[Finished]:
        """Return all finished runs."""
        with self._lock:
            return list(self._finished.values())

    def record(self, run: str) -> bytes:
        """Return the record of a finished run, as it lies in the store."""
        with self._lock:
            known = run in self._finished
        if not known:
            raise ProtocolError(f"this worker has finished no run {run!r} of this shuffle")
        return (self._directory / f"{run}{_RECORD}").read_bytes()

    def has(self, frames: Table) -> npt.NDArray[np.bool_]:
        """Return which of these very frames are in the store."""
        wanted = identities(frames)
        found = np.zeros(len(frames), bool)
        for run in self.finished():
            found |= np.isin(wanted, identities(run.frames))
        return found

    def logged(self, frames: Table) -> npt.NDArray[np.bool_]:
        """Return which of these very frames some log object has."""
        wanted = identities(frames)
        found = np.zeros(len(frames), bool)
        for each in self.logs():
            found |= np.isin(wanted, identities(each.frames))
        return found

    def covering(self, frames: Table) -> tuple[list[Finished], Table]:
        """Return the runs that have any of these frames, and the frames that none has."""
        wanted = identities(frames)
        open_ = np.ones(len(frames), bool)
        found = []
        for run in self.finished():
            mine = np.isin(wanted, identities(run.frames)) & open_
            if mine.any():
                found.append(run)
                open_ &= ~mine
        return found, frames[open_]

    def named(self, keys: Table) -> Table:
        """Return the `tables.FRAME`s with these keys that are in the store, each once."""
        wanted = keys.view("V16")
        parts = [np.empty(0, tables.FRAME)]
        for run in self.finished():
            mine = np.isin(tables.frame_keys(run.frames).view("V16"), wanted)
            parts.append(run.frames[mine])
        frames = np.concatenate(parts)
        return frames[np.unique(tables.frame_keys(frames), return_index=True)[1]]

    def begin(self, run: str) -> None:
        """Write down that a run begins; raises where the shuffle's directory is gone."""
        self._make()
        path = self._directory / f"{run}{_INTENT}"
        with writing(path):
            path.touch()
        with self._lock:
            self._open.add(run)

    def finish(self, record: Record) -> None:
        """Write down what a run has persisted; it is over once its intent in the store is gone."""
        write_atomically(self._directory / f"{record.run}{_RECORD}", record.encode())
        run = Finished(record.run, record.frames)
        with self._lock:
            known = self._finished.get(run.run)
            self._finished[run.run] = run
            self.payload_bytes += run.payload_bytes - (known.payload_bytes if known else 0)

    def begin_log(self, record: Record) -> None:
        """Write down that a log object is about to be written; raises as `begin`."""
        self._make()
        write_atomically(self._directory / f"{record.run}{_LOG}", record.encode())
        run = Finished(record.run, record.frames)
        with self._lock:
            self._logs[run.run] = run
            self._log_bytes += run.payload_bytes

    def _make(self) -> None:
        with writing(self._directory):  # not what is above it: that was deleted then
            self._directory.mkdir(exist_ok=True)

    def logs(self) -> list[Finished]:
        """Return the log objects that may be in the store."""
        with self._lock:
            return list(self._logs.values())

    def log_record(self, run: str) -> Record:
        """Return the record of a log object."""
        path = self._directory / f"{run}{_LOG}"
        return Record.decode(path.read_bytes(), where=str(path))

    def forget_log(self, run: str) -> None:
        """Drop a log object: it is deleted."""
        (self._directory / f"{run}{_LOG}").unlink(missing_ok=True)
        with self._lock:
            log = self._logs.pop(run, None)
            self._log_bytes -= log.payload_bytes if log is not None else 0

    def forget(self, run: str) -> None:
        """Drop the intent of a run: nothing is left in the store but what its record names."""
        (self._directory / f"{run}{_INTENT}").unlink(missing_ok=True)
        with self._lock:
            self._open.discard(run)


def _read_all(directory: Path, suffix: str) -> Iterator[Finished]:
    for path in sorted(directory.glob(f"*{suffix}")):
        with suppress(DataCorrupt):  # the store has it too; its frames are persisted once more
            record = Record.decode(path.read_bytes(), where=str(path))
            yield Finished(record.run, record.frames)
