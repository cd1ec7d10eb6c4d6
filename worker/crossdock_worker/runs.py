"""The persist runs of one shuffle, as this worker's disk remembers them.

{shuffle directory}/runs/{run}.intent    begun; made before anything is written to the store
{shuffle directory}/runs/{run}.record    finished: the same bytes as the record in the store
"""

import threading
from pathlib import Path
from typing import Final

import numpy as np

from crossdock.errors import DataCorrupt
from crossdock.store.manifest import identities
from crossdock.store.records import Record
from crossdock.wire.tables import Table
from crossdock_worker.files import make_directory, write_atomically, writing

_INTENT: Final = ".intent"
_RECORD: Final = ".record"


class Runs:
    """What was persisted of a shuffle. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Read what earlier processes wrote down; a damaged record counts for nothing."""
        self._directory = directory
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._open = {p.name.removesuffix(_INTENT) for p in directory.glob(f"*{_INTENT}")}
        for path in sorted(directory.glob(f"*{_RECORD}")):
            try:
                record = Record.decode(path.read_bytes(), where=str(path))
            except DataCorrupt:  # the store has it too; its frames are persisted once more
                continue
            self._records[record.run] = record

    @property
    def unfinished(self) -> list[str]:
        """Runs that were begun and are neither finished nor cleaned up."""
        with self._lock:
            return sorted(self._open)

    def records(self) -> list[Record]:
        """Return the records of all finished runs."""
        with self._lock:
            return list(self._records.values())

    def frames(self) -> list[Table]:
        """Return the `tables.FRAME`s of each finished run."""
        return [record.frames for record in self.records()]

    def covering(self, frames: Table) -> tuple[list[Record], Table]:
        """Return the records that have any of these frames, and the frames that none has."""
        wanted = identities(frames)
        open_ = np.ones(len(frames), bool)
        found = []
        for record in self.records():
            mine = np.isin(wanted, identities(record.frames)) & open_
            if mine.any():
                found.append(record)
                open_ &= ~mine
        return found, frames[open_]

    def begin(self, run: str) -> None:
        """Write down that a run begins."""
        make_directory(self._directory)
        path = self._directory / f"{run}{_INTENT}"
        with writing(path):
            path.touch()
        with self._lock:
            self._open.add(run)

    def finish(self, record: Record) -> None:
        """Write down what a run has persisted."""
        write_atomically(self._directory / f"{record.run}{_RECORD}", record.encode())
        with self._lock:
            self._records[record.run] = record
        self.forget(record.run)

    def forget(self, run: str) -> None:
        """Drop the intent of a run: it is finished, or nothing of it is left in the store."""
        (self._directory / f"{run}{_INTENT}").unlink(missing_ok=True)
        with self._lock:
            self._open.discard(run)
