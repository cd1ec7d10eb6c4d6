"""One persist run: from the intent to the record, or to nothing at all."""

import json
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from crossdock.errors import CrossdockError, DataCorrupt, Gone, LeaseEnded
from crossdock.lifecycle.runs import Leftover, intent_of, leftover, may_forget
from crossdock.store.errors import ObjectDamaged, StoreUnsure
from crossdock.store.layout import INTENT_ORDINALS, new_run
from crossdock.store.records import Members, Record, SegmentInfo, shuffle_to_json
from crossdock.store.segment import BATCH
from crossdock.wire.tables import Table
from crossdock_worker import segments, selection
from crossdock_worker.compression import Outgoing, outgoing
from crossdock_worker.rows import frames_of
from crossdock_worker.segments import SegmentPlan
from crossdock_worker.shuffle_log import ShuffleLog

if TYPE_CHECKING:
    from crossdock_worker.persist import Persister

log = structlog.get_logger()

Sent = tuple[SegmentInfo, Table]
"""A segment that is in the store, and its `segment.BATCH`es as they lie there."""

_TRIES: Final = 3
"""How often a write whose answer did not come is done again under a new key."""


class PersistRun:
    """One run. The caller has pinned the log."""

    def __init__(
        self,
        owner: "Persister",
        shuffle: ShuffleLog,
        keys: Table,
        on_sent: Callable[[int], None],
    ) -> None:
        """Prepare a run; nothing is written yet.

        Args:
            owner: whose store and threads it uses.
            shuffle: whose frames.
            keys: `tables.FRAME_KEY`s of frames that are held.
            on_sent: told the bytes of payload of each segment that was sent.
        """
        self._owner = owner
        self._leave = owner.leave(shuffle.key)
        self._epoch = shuffle.epoch
        self._store = owner.store.stopped_by(self._leave)
        self._published = owner.store.stopped_by(self._leave.publishing(self._epoch))
        self._shuffle = shuffle
        self._on_sent = on_sent
        self._layout = owner.layout(shuffle.key)
        self._run = new_run(owner.worker)
        self._snapshot = shuffle.snapshot(np.sort(keys, order=("map", "attempt", "seq")))[0]
        self._ordinal = 0
        self._lock = threading.Lock()
        self._intents = 0
        """That may be in the store."""
        self._intents_lock = threading.Lock()
        """Held while one is written: no segment that it allows for is sent before."""
        self._unsure = False
        self._record_sent = False

    def record(self) -> Record:
        """Do it all; on failure nothing of it stays, unless the store does not let it go now.

        Raises:
            LeaseEnded: the job's owner was not heard for its lease, or not lately enough.
        """
        begun, record = False, None
        try:
            with self._leave.held():
                self._shuffle.runs.begin(self._run)
                begun = True
                record = self._written()
                self._shuffle.runs.finish(record)
        except BaseException:
            if record is not None:  # a full disk: it is adopted later
                self._owner.recovery.add(self._shuffle, self._run)
            elif begun:
                self._conclude()
            raise
        if may_forget(unsure=self._unsure, settled=False):
            self._drop_intent()
        else:
            self._owner.recovery.add(self._shuffle, self._run)
        log.info(
            "persisted", job=record.shuffle.job, shuffle=record.shuffle.name,
            generation=record.shuffle.generation, run=self._run,
            segments=len(record.segments), payload_bytes=record.payload_bytes,
        )  # fmt: skip
        return record

    def _written(self) -> Record:
        """Write everything but what this disk keeps of it."""
        self._write_intents(0)
        sent, members = self._write_segments()
        record = self._make_record(sent, members)
        self._write_record(record)
        return record

    def _drop_intent(self) -> None:
        try:
            self._store.delete(self._intent_keys())
        except CrossdockError as error:
            log.warning("an intent stays for now", run=self._run, problem=str(error))
            self._owner.recovery.add(self._shuffle, self._run)
        else:
            self._shuffle.runs.forget(self._run)

    def _intent_keys(self) -> list[str]:
        return [self._layout.intent(self._run, part) for part in range(self._intents)]

    def _write_intents(self, ordinal: int) -> None:
        """Have the intents in the store that allow for a segment."""
        with self._intents_lock:
            while self._intents <= intent_of(ordinal):
                part, self._intents = self._intents, self._intents + 1
                try:
                    self._write_intent(part)
                except StoreUnsure:
                    self._unsure = True
                    raise

    def _write_intent(self, part: int) -> None:
        first = part * INTENT_ORDINALS
        intent = {
            "run": self._run,
            "worker": self._owner.worker,
            **shuffle_to_json(self._shuffle.key),
            "segments": self._layout.segments(self._run),
            "ordinals": [first, first + INTENT_ORDINALS],
            "record": self._layout.record(self._run),
        }
        self._store.put(self._layout.intent(self._run, part), json.dumps(intent).encode())

    def _write_segments(self) -> tuple[list[Sent], list[Members]]:
        """Plan and send segments, in order, a few at once; return them, and what is in each."""
        members: list[Members] = []
        sent: list[Sent] = []
        under_way: deque[Future[Sent]] = deque()
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
                plan.batches["segment"] = len(members)
                members.append(plan.members)
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
        return sent, members

    def _send(self, plan: SegmentPlan) -> Sent:
        self._check()
        with outgoing(plan, self._owner.compress_in) as segment:
            return self._put(plan, segment)

    def _put(self, plan: SegmentPlan, segment: Outgoing) -> Sent:
        for tries_left in reversed(range(_TRIES)):
            self._check()
            ordinal = self._next_ordinal()
            self._write_intents(ordinal)
            key = self._layout.segment(self._run, ordinal)
            try:
                info = self._store.put(key, segment.source, crc32c=segment.crc32c)
            except StoreUnsure:
                self._unsure = True
                if not tries_left:
                    raise
            except ObjectDamaged as error:
                self._raise_damage(error)
            except (Gone, LeaseEnded):  # ended between two tries, or while it was sent
                self._unsure = True
                raise
            else:
                with self._lock:
                    self._on_sent(plan.payload_bytes)
                size = segment.source.nbytes
                return SegmentInfo(key, size, info.etag, segment.crc32c), segment.batches
        raise AssertionError

    def _raise_damage(self, error: ObjectDamaged) -> None:
        """The store got other bytes than the writers sent: find where on this disk, if it is."""
        raise DataCorrupt(
            f"payload*.log in {self._shuffle.directory} or the way to the store: {error}"
        ) from error

    def _next_ordinal(self) -> int:
        with self._lock:
            ordinal, self._ordinal = self._ordinal, self._ordinal + 1
            return ordinal

    def _make_record(self, sent: list[Sent], members: list[Members]) -> Record:
        rows = self._snapshot.rows
        return Record(
            self._run,
            self._owner.worker,
            self._shuffle.key,
            self._shuffle.partitions,
            [info for info, _ in sent],
            frames_of(rows),  # sorted, as the keys of the snapshot were
            np.concatenate([np.empty(0, BATCH), *(batches for _, batches in sent)]),
            np.array(members, bool).reshape(-1, len(rows)),
            selection.statistics(self._snapshot, self._shuffle.partitions),
        )

    def _write_record(self, record: Record) -> None:
        self._check()
        self._leave.wait_to_publish(self._epoch)
        key, data = self._layout.record(self._run), record.encode()
        for tries_left in reversed(range(_TRIES)):
            self._record_sent = True
            try:
                self._published.put(key, data)
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

    def _conclude(self) -> None:
        """Undo a run that failed, or leave it alone while its record may still come."""
        todo = leftover(record_is_there=False, record_was_sent=self._record_sent, settled=False)
        if todo is Leftover.UNDO:
            self._undo()
        else:
            self._owner.recovery.add(self._shuffle, self._run)

    def _undo(self) -> None:
        """Delete what was written; what cannot be deleted now is looked after later."""
        layout = self._layout
        try:
            self._store.delete([layout.record(self._run)])  # first: it makes the segments count
            self._store.delete(layout.segment(self._run, i) for i in range(self._ordinal))
            if self._unsure:  # something may still land: the intents stay, and say what
                self._owner.recovery.add(self._shuffle, self._run)
                return
            self._store.delete(self._intent_keys())
        except CrossdockError as error:
            log.warning("a failed run was not cleaned up yet", run=self._run, problem=str(error))
            self._owner.recovery.add(self._shuffle, self._run)
            return
        self._shuffle.runs.forget(self._run)
