"""What becomes of persist runs whose end nobody knows: by a crash, or by answers that did not come.

Such a run counts only if its record is in the store, and all segments that it names: what came
before may have been deleted by whoever undid it. Nothing is deleted before the store has settled:
until then a request that was sent may still take effect, the record's too.
"""

import threading
import time
from collections import deque

import structlog

from crossdock.cancel import Cancel
from crossdock.cleanup.clearing import hidden_uploads
from crossdock.errors import CrossdockError, Gone
from crossdock.lifecycle.timing import Timing
from crossdock.store.api import Store
from crossdock.store.errors import ObjectMissing
from crossdock.store.layout import ShuffleLayout, place_of
from crossdock.store.objects import read_whole
from crossdock.store.records import Record
from crossdock_worker.shuffle_log import ShuffleLog

log = structlog.get_logger()


class Recovery:
    """Adopts or undoes runs. Thread-safe; a run is given to it once nobody works at it."""

    def __init__(self, store: Store, *, cluster: str, timing: Timing) -> None:
        """Args: `timing` says when what was sent has taken effect, or never does."""
        self._store = store
        self._cluster = cluster
        self._timing = timing
        self._cancel = Cancel("recovery is never cancelled")
        self._lock = threading.Lock()
        self._waiting: deque[tuple[float, ShuffleLog, str]] = deque()

    def add(self, shuffle: ShuffleLog, run: str) -> None:
        """Look after a run once the store has settled, and then until it is done."""
        with self._lock:
            self._waiting.append((time.monotonic() + self._timing.settled_after, shuffle, run))

    def due(self) -> list[tuple[ShuffleLog, str]]:
        """Take out what is to be settled now."""
        found = []
        with self._lock:
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, shuffle, run = self._waiting.popleft()
                found.append((shuffle, run))
        return found

    def adopt(self, shuffle: ShuffleLog, run: str) -> Record | None:
        """Finish a run if it counts; delete nothing. Returns its record, None if it does not.

        Raises:
            ObjectDamaged: its record cannot be read: nobody knows, and nothing is deleted.
        """
        if any(each.run == run for each in shuffle.runs.finished()):
            return Record.decode(shuffle.runs.record(run), where=f"the record of run {run}")
        layout = ShuffleLayout.of(self._cluster, shuffle.key)
        key = layout.record(run)
        try:
            record = Record.decode(read_whole(self._store, key), where=key)
        except ObjectMissing:
            return None
        there = {info.key: info.size for info in self._store.list(layout.segments(run))}
        if any(there.get(info.key) != info.nbytes for info in record.segments):
            return None  # it was undone, and its record came late
        shuffle.runs.finish(record)
        shuffle.note_persisted(record.frames)
        return record

    def settle(self, shuffle: ShuffleLog, run: str) -> None:
        """Adopt or undo a run for good; when that fails, it is tried again later."""
        try:
            if run in shuffle.runs.unfinished:
                self._settle(shuffle, run)
        except Gone:  # released, or its job ended: all of it goes
            pass
        except CrossdockError as error:
            log.warning("a persist run is not cleaned up yet", run=run, problem=str(error))
            self.add(shuffle, run)

    def _settle(self, shuffle: ShuffleLog, run: str) -> None:
        layout = ShuffleLayout.of(self._cluster, shuffle.key)
        record = self.adopt(shuffle, run)
        named = set() if record is None else {info.key for info in record.segments}
        intents = [
            info.key
            for info in self._store.list(layout.intent(run))
            if (place := place_of(info.key)) is not None and place.run == run
        ]
        for prefix in (layout.segments(run), layout.intent(run), layout.record(run)):
            for upload in self._store.uploads(prefix):
                self._store.abort(upload)
        for upload in hidden_uploads(self._store, intents, self._cancel):
            self._store.abort(upload)
        if record is None:  # first, or the next look would find it without its segments
            self._store.delete([layout.record(run)])
        self._store.delete(
            info.key for info in self._store.list(layout.segments(run)) if info.key not in named
        )
        self._store.delete(sorted({layout.intent(run), *intents}))
        shuffle.runs.forget(run)
