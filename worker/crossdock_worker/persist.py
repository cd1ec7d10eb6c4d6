"""Persisting: frames from this disk become segments in the store, one run at a time per shuffle.

A run is, in this order: an intent on this disk and one in the store; the segments, a few at once;
the record in the store, which makes them count; the record on this disk; the end of the intents.
Killed anywhere, it is either finished by its record at the next start, or all of it is deleted.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import structlog

from crossdock.errors import AttemptsElsewhere, CrossdockError, Gone, Missing
from crossdock.lifecycle.timing import Timing
from crossdock.store.api import Store
from crossdock.store.layout import ShuffleLayout
from crossdock.store.records import Record
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock.wire.tables import Table
from crossdock_worker.leave import Leave
from crossdock_worker.log_writer import CheckRoom, LogWriter
from crossdock_worker.persist_run import PersistRun
from crossdock_worker.policy import Trigger
from crossdock_worker.recovery import Recovery
from crossdock_worker.rows import FrameId
from crossdock_worker.runs import Finished
from crossdock_worker.shuffle_log import ShuffleLog

log = structlog.get_logger()

_RUNS_AT_ONCE: Final = 2

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Progress:
    """How far a run is."""

    total_bytes: int
    trigger: Trigger = Trigger.ASKED
    persisted_bytes: int = 0
    begun: bool = False
    """Whether it has a thread: few runs go on at once, and the others wait in order."""
    future: "Future[Record]" = field(default_factory=Future)

    def sent(self, nbytes: int) -> None:
        """Note what was sent; its run locks."""
        self.persisted_bytes += nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What is known of frames that shall be persisted."""

    runs: list[Finished]
    """That have them."""
    progress: Progress | None
    """Of the run that brings what is missing; None when nothing is."""


class Persister:
    """Persists shuffles to one store. Thread-safe."""

    def __init__(
        self,
        store: Store,
        *,
        cluster: str,
        worker: str,
        segment_bytes: int,
        uploads: int,
        timing: Timing,
        leave: Callable[[ShuffleKey], Leave] = Leave.always,
        check_room: CheckRoom = lambda *_: None,
        compress_in: Path | None = None,
        on_end: Callable[[Trigger, Record | None], None],
    ) -> None:
        """Make one.

        Args:
            store: where to.
            cluster: uid of the cluster; the first part of all keys.
            worker: id of this worker.
            segment_bytes: no segment is larger.
            uploads: segments that are sent at once, over all runs.
            timing: when what was sent to the store has taken effect, or never does.
            leave: returns what says whether a shuffle may be written for.
            check_room: raises `QuotaExceeded` where so many bytes more are too many.
            compress_in: where there is room to compress segments; None: they are not.
            on_end: told of each run that ended, with its record, or None if it failed.
        """
        self.store = store
        self.leave = leave
        self._check_room = check_room
        self._cluster = cluster
        self._worker = worker
        self._segment_bytes = segment_bytes
        self._runs = ThreadPoolExecutor(_RUNS_AT_ONCE, thread_name_prefix="persist")
        self._uploads = ThreadPoolExecutor(uploads, thread_name_prefix="upload")
        self.log_threads = ThreadPoolExecutor(uploads, thread_name_prefix="ack-log")
        self._logs = LogWriter(
            store,
            cluster=cluster,
            worker=worker,
            segment_bytes=segment_bytes,
            timing=timing,
            leave=leave,
            check_room=check_room,
        )
        self.recovery = Recovery(store, cluster=cluster, timing=timing)
        self.compress_in = compress_in
        self._ahead = uploads
        self._on_end = on_end
        self._lock = threading.Lock()
        self._under_way: dict[ShuffleKey, Progress] = {}
        self._closed = threading.Event()

    def layout(self, key: ShuffleKey) -> ShuffleLayout:
        """Return where a shuffle lies in the store."""
        return ShuffleLayout.of(self._cluster, key)

    def persist(
        self,
        shuffle: ShuffleLog,
        keys: Table,
        *,
        trigger: Trigger = Trigger.ASKED,
        done: Callable[[BaseException | None], None] | None = None,
    ) -> Outcome:
        """Begin to persist frames, unless they are or a run is under way; does not wait.

        A run that was asked for and failed raises its error once, to whoever asks next; then it
        is tried again.

        Args:
            shuffle: whose frames.
            keys: `tables.FRAME_KEY`s. Frames that were freed are in the store, and count as here.
            trigger: why.
            done: called at the end of a run that this call begins, in its thread, with its error.

        Raises:
            AttemptsElsewhere: frames with these keys are not here.
            LeaseEnded: nothing may be written for the job now.
            QuotaExceeded: the job has too much in the store.
        """
        frames = _frames_with(shuffle, keys)
        with self._lock:
            progress = self._under_way.get(shuffle.key)
            if progress is not None and progress.future.done():
                del self._under_way[shuffle.key]
                progress.future.result()  # raises why it failed
            elif progress is not None:
                return Outcome([], progress)
            runs, left = shuffle.runs.covering(frames)
            if not len(left):
                return Outcome(runs, None)
            self.leave(shuffle.key).check()
            total = int(left["payload_bytes"].sum(dtype=np.uint64))
            if trigger is not Trigger.DRAIN:  # what is acked must not be lost for a quota
                self._check_room(shuffle.key, total + self._coming(shuffle.key.job, left, shuffle))
            progress = Progress(total, trigger)
            self._under_way[shuffle.key] = progress
        self._runs.submit(self._run, shuffle, tables.frame_keys(left), progress, done)
        return Outcome(runs, progress)

    def _coming(self, job: str, left: Table, shuffle: ShuffleLog) -> int:
        """Return bytes that runs under way will add for a job, less those counted already.

        Frames that a log object has are counted with it, and a run only packs them.
        """
        running = [p for key, p in self._under_way.items() if key.job == job]
        more = sum(p.total_bytes for p in running if not p.future.done())
        return more - int(left["payload_bytes"][shuffle.runs.logged(left)].sum(dtype=np.uint64))

    def under_way(self, key: ShuffleKey) -> Progress | None:
        """Return the run of a shuffle that is under way, if one is."""
        with self._lock:
            progress = self._under_way.get(key)
        return None if progress is None or progress.future.done() else progress

    def queued(self, progress: Progress) -> int:
        """Return the place of a run among those that wait, from 1 on; 0 once it has begun."""
        with self._lock:
            waiting = [p for p in self._under_way.values() if not p.begun]
        return waiting.index(progress) + 1 if progress in waiting else 0

    def _run(
        self,
        shuffle: ShuffleLog,
        keys: Table,
        progress: Progress,
        done: Callable[[BaseException | None], None] | None,
    ) -> None:
        progress.begun = True
        problem: BaseException | None = None
        record: Record | None = None
        try:
            with shuffle.space.pins.held():
                record = PersistRun(self, shuffle, keys, progress.sent).record()
            shuffle.note_persisted(record.frames)
            if shuffle.runs.logs():
                self.drop_logs(shuffle)
        except BaseException as error:  # noqa: BLE001 -- whoever waits for the run hears of it
            problem = error
        self._on_end(progress.trigger, record)
        if record is not None or progress.trigger is not Trigger.ASKED:
            with self._lock:
                self._under_way.pop(shuffle.key, None)
        elif problem is not None:
            log.warning(
                "persisting failed", job=shuffle.key.job, shuffle=shuffle.key.name,
                generation=shuffle.key.generation, problem=str(problem),
            )  # fmt: skip
        if problem is not None:
            progress.future.set_exception(_without_frames(problem))
        elif record is not None:
            progress.future.set_result(record)
        if done is not None:
            done(problem)

    def write_log(self, shuffle: ShuffleLog, frames: list[FrameId]) -> None:
        """Bring frames into the store at once; see `LogWriter.write`."""
        with shuffle.space.pins.held():
            self._logs.write(shuffle, frames)

    def look_after(self) -> None:
        """Begin to clean up after runs whose requests have taken effect by now, or never."""
        for shuffle, run in self.recovery.due():
            self._runs.submit(self.recovery.settle, shuffle, run)

    def drop_logs(self, shuffle: ShuffleLog) -> None:
        """Begin to delete the log objects that are not needed any more."""
        self._runs.submit(self._drop_logs, shuffle)

    def _drop_logs(self, shuffle: ShuffleLog) -> None:
        try:
            self._logs.delete_covered(shuffle)
        except Gone:  # released, or its job ended: all of it goes
            pass
        except CrossdockError as error:  # tried again in a later round
            log.warning("log objects stay", shuffle=shuffle.key.name, problem=str(error))

    def upload(self, work: Callable[[], T]) -> "Future[T]":
        """Have a thread send a segment."""
        return self._uploads.submit(work)

    @property
    def ahead(self) -> int:
        """Segments of one run that are planned or being sent at once."""
        return self._ahead

    @property
    def worker(self) -> str:
        """Id of this worker."""
        return self._worker

    @property
    def segment_bytes(self) -> int:
        """No segment is larger."""
        return self._segment_bytes

    def check_open(self) -> None:
        """Raise when the worker ends: what is half done is cleaned up at its next start."""
        if self._closed.is_set():
            raise CrossdockError("the worker ends")

    def close(self) -> None:
        """End the runs under way soon, and wait for it."""
        self._closed.set()
        self._runs.shutdown(cancel_futures=True)
        self._uploads.shutdown()
        self.log_threads.shutdown()
        self.store.close()


def _without_frames(error: BaseException) -> BaseException:
    """Let go of what an error's tracebacks hold: the maps of logs that may be deleted by now."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def _frames_with(shuffle: ShuffleLog, keys: Table) -> Table:
    """Return the frames with these keys, sorted; raises `AttemptsElsewhere`."""
    held = shuffle.frames()
    frames = held[np.isin(tables.frame_keys(held).view("V16"), keys.view("V16"))]
    if len(frames) < len(keys):
        known = tables.frame_keys(frames).view("V16")
        frames = np.concatenate(
            (frames, shuffle.runs.named(keys[~np.isin(keys.view("V16"), known)]))
        )
        known = tables.frame_keys(frames).view("V16")
        missing = keys[~np.isin(keys.view("V16"), known)]
        if len(missing):
            lacking = sorted({(int(k["map"]), int(k["attempt"])) for k in missing})
            raise AttemptsElsewhere([Missing(m, a, "not on this worker") for m, a in lacking])
    return frames[tables.sort_order(frames)]
