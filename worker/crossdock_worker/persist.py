"""Persisting: frames from this disk become segments in the store, one run at a time per shuffle.

A run is, in this order: an intent on this disk and one in the store; the segments, a few at once;
the record in the store, which makes them count; the record on this disk; the end of the intents.
Killed anywhere, it is either finished by its record at the next start, or all of it is deleted.
"""

import json
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import structlog

from crossdock.errors import AttemptsElsewhere, CrossdockError, DataCorrupt, Missing
from crossdock.store.api import Store
from crossdock.store.errors import ObjectDamaged, ObjectMissing, StoreUnsure
from crossdock.store.layout import ShuffleLayout, new_run
from crossdock.store.objects import read_whole
from crossdock.store.records import Members, Record, SegmentInfo, shuffle_to_json
from crossdock.store.segment import BATCH
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock.wire.tables import Table
from crossdock_worker import segments, selection
from crossdock_worker.rows import frames_of
from crossdock_worker.segments import SegmentPlan
from crossdock_worker.shuffle_log import ShuffleLog

log = structlog.get_logger()

_RUNS_AT_ONCE: Final = 2
_TRIES: Final = 3
"""How often a write whose answer did not come is done again under a new key."""


@dataclass(slots=True)
class Progress:
    """How far a run is."""

    total_bytes: int
    persisted_bytes: int = 0
    future: "Future[Record]" = field(default_factory=Future)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What is known of frames that shall be persisted."""

    records: list[Record]
    """Of the runs that have them."""
    progress: Progress | None
    """Of the run that brings what is missing; None when nothing is."""


class Persister:
    """Persists shuffles to one store. Thread-safe."""

    def __init__(
        self, store: Store, *, cluster: str, worker: str, segment_bytes: int, uploads: int
    ) -> None:
        """Make one.

        Args:
            store: where to.
            cluster: uid of the cluster; the first part of all keys.
            worker: id of this worker.
            segment_bytes: no segment is larger.
            uploads: segments that are sent at once, over all runs.
        """
        self.store = store
        self._cluster = cluster
        self._worker = worker
        self._segment_bytes = segment_bytes
        self._runs = ThreadPoolExecutor(_RUNS_AT_ONCE, thread_name_prefix="persist")
        self._uploads = ThreadPoolExecutor(uploads, thread_name_prefix="upload")
        self._ahead = uploads
        self._lock = threading.Lock()
        self._under_way: dict[ShuffleKey, Progress] = {}
        self._closed = threading.Event()

    def layout(self, key: ShuffleKey) -> ShuffleLayout:
        """Return where a shuffle lies in the store."""
        return ShuffleLayout.of(self._cluster, key)

    def persist(self, shuffle: ShuffleLog, keys: Table) -> Outcome:
        """Begin to persist frames, unless they are or a run is under way; does not wait.

        A run that failed raises its error once, to whoever asks next; then it is tried again.

        Raises:
            AttemptsElsewhere: frames with these keys are not here.
            PlacesUnknown: these are more frames than are here.
        """
        snapshot, missing = shuffle.snapshot(keys)
        if len(missing):
            lacking = sorted({(int(k["map"]), int(k["attempt"])) for k in missing})
            raise AttemptsElsewhere([Missing(m, a, "not on this worker") for m, a in lacking])
        frames = frames_of(snapshot.rows)
        frames = frames[tables.sort_order(frames)]
        with self._lock:
            progress = self._under_way.get(shuffle.key)
            if progress is not None and progress.future.done():
                del self._under_way[shuffle.key]
                progress.future.result()  # raises why it failed
            elif progress is not None:
                return Outcome([], progress)
            records, left = shuffle.runs.covering(frames)
            if not len(left):
                return Outcome(records, None)
            progress = Progress(int(left["payload_bytes"].sum(dtype=np.uint64)))
            self._under_way[shuffle.key] = progress
        self._runs.submit(self._run, shuffle, tables.frame_keys(left), progress)
        return Outcome(records, progress)

    def _run(self, shuffle: ShuffleLog, keys: Table, progress: Progress) -> None:
        try:
            record = _Run(self, shuffle, keys, progress).record()
        except BaseException as error:  # noqa: BLE001 -- whoever asks next hears of it
            log.warning(
                "persisting failed", job=shuffle.key.job, shuffle=shuffle.key.name,
                generation=shuffle.key.generation, problem=str(error),
            )  # fmt: skip
            progress.future.set_exception(error)
        else:
            progress.future.set_result(record)

    def upload(self, work: Callable[[], SegmentInfo]) -> "Future[SegmentInfo]":
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

    def recover(self, shuffle: ShuffleLog, runs: list[str]) -> None:
        """Finish or undo the runs that an earlier process left: nothing half-done stays.

        Only those: runs of this process look alike, and are alive.

        A write that the dead process had sent may still land after this, so it is to be done
        again once the store has settled; only `forget_settled` drops the intents.
        """
        layout = self.layout(shuffle.key)
        for run in set(runs) & set(shuffle.runs.unfinished):
            record = self._find_record(layout, run)
            if record is not None:
                shuffle.runs.finish(record)
            named = set() if record is None else {info.key for info in record.segments}
            self._delete_under(layout.segments(run), but=named)
            for key in (layout.intent(run), layout.record(run)):
                self._abort_under(key)

    def forget_settled(self, shuffle: ShuffleLog, runs: list[str]) -> None:
        """Undo runs for good: what they might still have written has landed by now."""
        self.recover(shuffle, runs)
        layout = self.layout(shuffle.key)
        for run in set(runs) & set(shuffle.runs.unfinished):
            self.store.delete([layout.intent(run)])
            shuffle.runs.forget(run)

    def _delete_under(self, prefix: str, *, but: set[str]) -> None:
        self._abort_under(prefix)
        self.store.delete(o.key for o in self.store.list(prefix) if o.key not in but)

    def _abort_under(self, prefix: str) -> None:
        for upload in self.store.uploads(prefix):
            self.store.abort(upload)

    def _find_record(self, layout: ShuffleLayout, run: str) -> Record | None:
        key = layout.record(run)
        try:
            return Record.decode(read_whole(self.store, key), where=key)
        except (ObjectMissing, ObjectDamaged):
            return None

    def close(self) -> None:
        """End the runs under way soon, and wait for it."""
        self._closed.set()
        self._runs.shutdown(cancel_futures=True)
        self._uploads.shutdown()
        self.store.close()


class _Run:
    """One persist run."""

    def __init__(
        self, owner: Persister, shuffle: ShuffleLog, keys: Table, progress: Progress
    ) -> None:
        self._owner = owner
        self._store = owner.store
        self._shuffle = shuffle
        self._progress = progress
        self._layout = owner.layout(shuffle.key)
        self._run = new_run(owner.worker)
        self._snapshot = shuffle.snapshot(np.sort(keys, order=("map", "attempt", "seq")))[0]
        self._ordinal = 0
        self._lock = threading.Lock()
        self._unsure = False

    def record(self) -> Record:
        """Do it all; on failure nothing of it stays, unless the store does not let it go now."""
        self._shuffle.runs.begin(self._run)
        try:
            self._write_intent()
            infos, plans = self._write_segments()
            record = self._make_record(infos, plans)
            self._write_record(record)
        except BaseException:
            self._undo()
            raise
        self._shuffle.runs.finish(record)
        if not self._unsure:  # else the next start has to look for what may still come
            self._store.delete([self._layout.intent(self._run)])
            self._shuffle.runs.forget(self._run)
        log.info(
            "persisted", job=record.shuffle.job, shuffle=record.shuffle.name,
            generation=record.shuffle.generation, run=self._run, segments=len(infos),
            payload_bytes=record.payload_bytes,
        )  # fmt: skip
        return record

    def _write_intent(self) -> None:
        intent = {
            "run": self._run,
            "worker": self._owner.worker,
            **shuffle_to_json(self._shuffle.key),
            "segments": self._layout.segments(self._run),
            "record": self._layout.record(self._run),
        }
        self._store.put(self._layout.intent(self._run), json.dumps(intent).encode())

    def _write_segments(self) -> tuple[list[SegmentInfo], list[tuple[Table, Members]]]:
        """Plan and send segments, in order, a few at once; return them, and what is in each."""
        contents: list[tuple[Table, Members]] = []
        sent: list[SegmentInfo] = []
        under_way: deque[Future[SegmentInfo]] = deque()
        cursor = None
        try:
            while True:
                self._check()
                plan = segments.plan(
                    self._snapshot,
                    partitions=self._shuffle.partitions,
                    cursor=cursor,
                    segment_bytes=self._owner.segment_bytes,
                )
                if plan is None:
                    break
                plan.batches["segment"] = len(contents)
                contents.append((plan.batches, plan.members))
                under_way.append(self._owner.upload(partial(self._send, plan)))
                if len(under_way) >= self._owner.ahead:
                    sent.append(under_way.popleft().result())
                if plan.end:
                    break
                cursor = plan.cursor
            sent += [future.result() for future in under_way]
        finally:
            for future in under_way:
                if not future.cancel():
                    future.exception()  # it is over before its segment is undone
        return sent, contents

    def _send(self, plan: SegmentPlan) -> SegmentInfo:
        for tries_left in reversed(range(_TRIES)):
            self._check()
            key = self._next_key()
            try:
                info = self._store.put(key, plan.source, crc32c=plan.crc32c)
            except StoreUnsure:
                self._unsure = True
                if not tries_left:
                    raise
            except ObjectDamaged as error:
                self._raise_damage(error)
            else:
                with self._lock:
                    self._progress.persisted_bytes += plan.payload_bytes
                return SegmentInfo(key, plan.source.nbytes, info.etag, plan.crc32c)
        raise AssertionError

    def _raise_damage(self, error: ObjectDamaged) -> None:
        """The store got other bytes than the writers sent: find where on this disk, if it is."""
        raise DataCorrupt(
            f"{self._shuffle.payload.path} or the way to the store: {error}"
        ) from error

    def _next_key(self) -> str:
        with self._lock:
            ordinal, self._ordinal = self._ordinal, self._ordinal + 1
        return self._layout.segment(self._run, ordinal)

    def _make_record(
        self, infos: list[SegmentInfo], contents: list[tuple[Table, Members]]
    ) -> Record:
        rows = self._snapshot.rows
        return Record(
            self._run,
            self._owner.worker,
            self._shuffle.key,
            self._shuffle.partitions,
            infos,
            frames_of(rows),  # sorted, as the keys of the snapshot were
            np.concatenate([np.empty(0, BATCH), *(batches for batches, _ in contents)]),
            np.array([members for _, members in contents], bool).reshape(-1, len(rows)),
            selection.statistics(self._snapshot, self._shuffle.partitions),
        )

    def _write_record(self, record: Record) -> None:
        self._check()
        key, data = self._layout.record(self._run), record.encode()
        for tries_left in reversed(range(_TRIES)):
            try:
                self._store.put(key, data)
            except StoreUnsure:
                # The same key once more, for once: whichever lands, it says the same.
                self._unsure = True
                if not tries_left:
                    raise
            else:
                return

    def _check(self) -> None:
        """Raise when the shuffle was released, the job fenced, or the worker ends."""
        self._owner.check_open()
        self._shuffle.check_maps(self._snapshot)

    def _undo(self) -> None:
        """Delete what was written; what cannot be deleted now, the next start does."""
        layout = self._layout
        try:
            keys = [layout.record(self._run)]
            keys += [layout.segment(self._run, i) for i in range(self._ordinal)]
            self._store.delete(keys)
            if self._unsure:  # something may still land: the intents stay, and say what
                return
            self._store.delete([layout.intent(self._run)])
        except CrossdockError as error:
            log.warning("a failed run was not cleaned up yet", run=self._run, problem=str(error))
            return
        self._shuffle.runs.forget(self._run)
