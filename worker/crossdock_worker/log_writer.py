"""Log objects: a few frames, in the store at once, until longer runs have brought them there.

A log object is complete in itself (store/logs.py): one request, under the shuffle's prefix. So it
needs no intent in the store. The one on this disk says what may be there, for whoever deletes it.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from crossdock.errors import ConfigError, PlacesUnknown, Unavailable
from crossdock.lifecycle.timing import Timing
from crossdock.store import logs
from crossdock.store.api import Source, Store
from crossdock.store.bodies import BufferSource
from crossdock.store.errors import StoreUnsure
from crossdock.store.layout import LOG_SUFFIX, ShuffleLayout, new_run
from crossdock.store.manifest import identities
from crossdock.store.records import Record, SegmentInfo
from crossdock.store.segment import BATCH
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock_worker import segments, selection
from crossdock_worker.leave import Leave
from crossdock_worker.rows import FrameId, Snapshot, frames_of
from crossdock_worker.segments import SegmentPlan
from crossdock_worker.shuffle_log import ShuffleLog

CheckRoom = Callable[[ShuffleKey, int], None]
"""Asked before bytes of payload of a shuffle are brought into the store; may raise."""

_TRIES: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Log:
    """What goes into one log object."""

    snapshot: Snapshot
    plans: list[SegmentPlan]


class LogWriter:
    """Writes log objects to a store, and deletes them. Thread-safe."""

    def __init__(
        self,
        store: Store,
        *,
        cluster: str,
        worker: str,
        segment_bytes: int,
        timing: Timing,
        leave: Callable[[ShuffleKey], Leave] = Leave.always,
        check_room: CheckRoom = lambda *_: None,
    ) -> None:
        """Make one.

        Args:
            store: where to.
            cluster: uid of the cluster.
            worker: id of this worker.
            segment_bytes: no segment is larger.
            timing: when what was sent to the store has taken effect, or never does.
            leave: returns what says whether a shuffle may be written for.
            check_room: raises `QuotaExceeded` where so many bytes more are too many.
        """
        self._leave = leave
        self._check_room = check_room
        self._store = store
        self._timing = timing
        self._lock = threading.Lock()
        self._not_before: dict[str, float] = {}
        """Until when a request for a run may still take effect: it is not deleted before."""
        self._settled = time.monotonic() + timing.settled_after
        """The same for runs of an earlier process."""
        self._cluster = cluster
        self._worker = worker
        self._segment_bytes = segment_bytes

    def write(self, shuffle: ShuffleLog, frames: list[FrameId]) -> None:
        """Bring frames into the store, by one request unless they are too many for a segment.

        Raises:
            Unavailable: a frame was aborted meanwhile; or the store does not answer.
            LeaseEnded: nothing may be written for the job now.
            QuotaExceeded: the job has too much in the store.
        """
        leave = self._leave(shuffle.key)
        with leave.held():
            self._write(shuffle, frames, leave)

    def _write(self, shuffle: ShuffleLog, frames: list[FrameId], leave: Leave) -> None:
        keys = np.unique(np.array(frames, tables.FRAME_KEY))
        try:
            snapshot, missing = shuffle.snapshot(keys)
        except PlacesUnknown:  # they are more than are left
            missing = keys
        if len(missing):
            raise Unavailable("a frame went away before it was in the store")
        self._check_room(shuffle.key, int(snapshot.rows["payload_bytes"].sum(dtype=np.uint64)))
        for part in self._parts(shuffle, snapshot):
            self._write_part(shuffle, part, leave)

    def _write_part(self, shuffle: ShuffleLog, log: "_Log", leave: Leave) -> None:
        epoch = shuffle.epoch
        store = self._store.stopped_by(leave.publishing(epoch))
        for tries_left in reversed(range(_TRIES)):
            leave.wait_to_publish(epoch)
            try:
                self._put(store, shuffle, log)
            except StoreUnsure:  # under other keys: the old request may still land
                if not tries_left:
                    raise
            else:
                return

    def _parts(self, shuffle: ShuffleLog, snapshot: Snapshot) -> Iterator["_Log"]:
        """Yield log objects for frames: one, unless its record alone would be too long."""
        plans = list(self._plans(shuffle, snapshot))
        record = self._record(shuffle, snapshot, plans, new_run(self._worker))
        if logs.end_bytes(record) <= self._segment_bytes:
            yield _Log(snapshot, plans)
            return
        half = len(snapshot.rows) // 2
        if not half:
            raise ConfigError(
                f"the record of a frame of {snapshot.pieces} pieces has more than "
                f"{self._segment_bytes} bytes",
                hint="raise the worker's --segment-bytes over --max-frame-bytes",
            )
        for rows in (snapshot.rows[:half], snapshot.rows[half:]):
            yield from self._parts(shuffle, replace(snapshot, rows=rows))

    def _plans(self, shuffle: ShuffleLog, snapshot: Snapshot) -> Iterator[SegmentPlan]:
        cursor = None
        while True:
            plan = segments.plan(
                snapshot,
                partitions=shuffle.partitions,
                cursor=cursor,
                segment_bytes=self._segment_bytes,
            )
            if plan is None:
                return
            yield plan
            if plan.end:
                return
            cursor = plan.cursor

    def _put(self, store: Store, shuffle: ShuffleLog, log: "_Log") -> None:
        run = new_run(self._worker)
        record = self._record(shuffle, log.snapshot, log.plans, run)
        with self._lock:
            self._not_before[run] = math.inf
        answered = False
        try:
            shuffle.runs.begin_log(record)
            last: Source = BufferSource(b"")
            for info, plan in zip(record.segments, log.plans, strict=False):
                if info.key.endswith(LOG_SUFFIX):
                    last = plan.source
                else:
                    store.put(info.key, plan.source, crc32c=plan.crc32c)
            store.put(record.segments[-1].key, logs.joined(last, record))
            answered = True
        finally:
            with self._lock:
                settled = 0.0 if answered else self._timing.settled_after
                self._not_before[run] = time.monotonic() + settled

    def _record(
        self, shuffle: ShuffleLog, snapshot: Snapshot, plans: list[SegmentPlan], run: str
    ) -> Record:
        """Return the record of a log object, whose last segment is itself.

        If that with the record would be too long, it has the record alone, and its segment is
        empty.
        """
        layout = ShuffleLayout.of(self._cluster, shuffle.key)
        for number, plan in enumerate(plans):
            plan.batches["segment"] = number
        # Without ETags: they are not known yet, and no key is ever written twice.
        segments = [
            SegmentInfo(layout.segment(run, i), plan.source.nbytes, "", plan.crc32c)
            for i, plan in enumerate(plans)
        ]
        alone = Record(
            run,
            self._worker,
            shuffle.key,
            shuffle.partitions,
            [*segments, SegmentInfo(layout.log(run), 0, "", 0)],
            frames_of(snapshot.rows),
            np.concatenate([np.empty(0, BATCH), *(plan.batches for plan in plans)]),
            np.array([*(plan.members for plan in plans), np.zeros(len(snapshot.rows), bool)], bool),
            selection.statistics(snapshot, shuffle.partitions),
        )
        if not plans:
            return alone
        last = replace(segments[-1], key=layout.log(run))
        joined = replace(alone, segments=[*segments[:-1], last], members=alone.members[:-1])
        fits = last.nbytes + logs.end_bytes(joined) <= self._segment_bytes
        return joined if fits else alone

    def delete_covered(self, shuffle: ShuffleLog) -> None:
        """Delete the log objects whose frames are in the store otherwise, or aborted.

        Raises:
            StoreUnavailable: the store does not answer; what is left is deleted the next time.
        """
        layout = ShuffleLayout.of(self._cluster, shuffle.key)
        held = shuffle.frames()
        for each in shuffle.runs.logs():
            with self._lock:
                if self._not_before.get(each.run, self._settled) > time.monotonic():
                    continue
            mine = held[np.isin(identities(held), identities(each.frames))]
            if not len(shuffle.runs.covering(mine)[1]):
                segments_too = [s.key for s in shuffle.runs.log_record(each.run).segments]
                self._store.delete([layout.log(each.run), *segments_too])
                shuffle.runs.forget_log(each.run)
                with self._lock:
                    self._not_before.pop(each.run, None)
