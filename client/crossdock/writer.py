"""The write side: pieces become frames, frames are pushed in the background, bounded in memory."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from crossdock import placement
from crossdock.cancel import Cancel
from crossdock.errors import (
    BlocksLost,
    ConfigError,
    CrossdockError,
    Missing,
    Unavailable,
)
from crossdock.framing import MAX_PIECES, FrameBuffer, Run
from crossdock.push import Ack, Push
from crossdock.retry import patiently
from crossdock.threads import result_of
from crossdock.wire import frame, names
from crossdock.wire.crc import BytesLike
from crossdock.wire.frame import WRITER_BYTES

if TYPE_CHECKING:
    from crossdock.shuffle import Shuffle


@dataclass(frozen=True, slots=True)
class _Cut:
    """A frame's contents and whom it is meant for, before it has a number."""

    worker: int
    contents: Run


class Writer:
    """Writes one attempt of one map. Leaving the `with` block commits; an exception aborts.

    Not thread-safe: one task writes.
    """

    def __init__(self, shuffle: "Shuffle", *, map_id: int, attempt: int, replicas: int) -> None:
        """Use `Shuffle.writer`."""
        self.map_id = names.check_u32("map", map_id)
        self.attempt = names.check_u64("attempt", attempt)
        self.partition_bytes = np.zeros(shuffle.partitions, np.uint64)
        """Bytes written per partition."""
        self._shuffle = shuffle
        self._options = shuffle.job.cluster.options
        self._replicas = replicas
        self._writer_id = os.urandom(WRITER_BYTES)
        members = patiently(
            shuffle.job.cluster.members, deadline_seconds=self._options.deadline_seconds
        )
        self._workers = sorted(members.reachable)
        key = f"{shuffle.key.job}/{shuffle.key.name}"
        owner = placement.assign(key, shuffle.partitions, self._workers)
        self._owner = owner
        self._owner_list: list[int] = owner.tolist()
        self._buffers = [FrameBuffer() for _ in self._workers]
        self._buffered = 0
        self._seq = 0
        self._pending: deque[tuple[Future[list[Ack]], int]] = deque()
        self._pushing = 0
        self._held: _Cut | None = None
        self._acked: dict[str, str] = {}
        self._cancel = Cancel("the attempt was given up", parent=shuffle.job.cluster.pool.cancel)
        self._open = True
        self._last_pushed = False

    @property
    def piece_bytes(self) -> int:
        """Largest piece that `write_batch` takes; `write` makes several of longer data."""
        return self._options.frame_bytes

    def write(self, partition: int, data: BytesLike, *, rows: int = 0) -> None:
        """Append a piece to a block.

        Args:
            partition: 0 to P - 1.
            data: opaque bytes; copied unless they are `bytes`.
            rows: how many rows they hold, summed into the statistics; 0 to 2**32 - 1.
        """
        self._check_open()
        if not 0 <= partition < len(self._owner_list):
            raise ConfigError(
                f"partition {partition} is not one of the shuffle's {len(self._owner_list)}"
            )
        names.check_u32("rows", rows)
        piece = data if isinstance(data, bytes) else bytes(data)
        bound = self._options.frame_bytes
        if len(piece) > bound:
            for at in range(0, len(piece), bound):
                self.write(partition, piece[at : at + bound], rows=rows if at == 0 else 0)
            return
        owner = self._owner_list[partition]
        self._make_room(owner, len(piece), 1)
        self._buffered += self._buffers[owner].add(partition, piece, rows)
        self._check_buffered()

    def _make_room(self, owner: int, nbytes: int, pieces: int) -> None:
        """Flush a worker's buffer if so much more would not fit one frame."""
        buffer = self._buffers[owner]
        full = buffer.nbytes + nbytes > self._options.frame_bytes
        if full or buffer.pieces + pieces > MAX_PIECES:
            self._flush(owner)

    def _check_buffered(self) -> None:
        """Push the fullest buffer when all of them are over the bound."""
        if self._buffered + self._pushing > self._options.buffer_bytes:
            self._flush(max(range(len(self._buffers)), key=lambda i: self._buffers[i].held_bytes))

    def write_batch(
        self,
        partitions: npt.NDArray[np.integer],
        data: BytesLike,
        lengths: npt.NDArray[np.integer],
        rows: npt.NDArray[np.integer] | None = None,
    ) -> None:
        """Append many pieces at once: no loop over pieces, and no copy of the data.

        Args:
            partitions: of each piece; must not fall.
            data: the pieces back to back. It must not change until the attempt is committed.
            lengths: of each piece; adds up to `data`.
            rows: of each piece; default 0.
        """
        self._check_open()
        partitions, lengths = np.asarray(partitions), np.asarray(lengths)
        rows = np.zeros(len(partitions), np.uint32) if rows is None else np.asarray(rows)
        self._check_batch(partitions, data, lengths, rows)
        view = memoryview(data).cast("B")
        ends = np.cumsum(lengths, dtype=np.int64)
        first = 0
        for last in self._batch_cuts(partitions, ends):
            cut = slice(first, last)
            payload = view[int(ends[first] - lengths[first]) : int(ends[last - 1])]
            owner = int(self._owner[partitions[first]])
            self._make_room(owner, len(payload), last - first)
            run = Run(partitions[cut], lengths[cut], rows[cut], payload)
            self._buffered += self._buffers[owner].add_run(run)
            self._check_buffered()
            first = last

    def _check_batch(
        self,
        partitions: npt.NDArray[np.integer],
        data: BytesLike,
        lengths: npt.NDArray[np.integer],
        rows: npt.NDArray[np.integer],
    ) -> None:
        if not len(partitions) == len(lengths) == len(rows):
            raise ConfigError("partitions, lengths and rows differ in length")
        if not len(partitions):
            return
        if (partitions[1:] < partitions[:-1]).any():
            raise ConfigError("partitions of a batch must not fall", hint="sort the pieces first")
        if partitions[0] < 0 or partitions[-1] >= self._shuffle.partitions:
            raise ConfigError(f"a partition is not one of the {self._shuffle.partitions}")
        if lengths.min() < 0 or lengths.max() > self._options.frame_bytes:
            raise ConfigError(
                f"a piece is longer than frame_bytes {self._options.frame_bytes}, or negative"
            )
        if int(lengths.sum()) != memoryview(data).nbytes:
            raise ConfigError(f"lengths add up to {int(lengths.sum())}, not to the data's")
        if rows.min() < 0 or rows.max() > names.U32_MAX:
            raise ConfigError("rows of a piece do not fit 32 unsigned bits")

    def _batch_cuts(
        self, partitions: npt.NDArray[np.integer], ends: npt.NDArray[np.int64]
    ) -> Iterator[int]:
        """Yield where runs end: at another worker's partitions, or at the frame size."""
        if not len(partitions):
            return
        owners = self._owner[partitions]
        stops = np.flatnonzero(owners[1:] != owners[:-1]) + 1
        first, begin = 0, 0
        for stop in [*stops.tolist(), len(partitions)]:
            while first < stop:
                fits = int(np.searchsorted(ends, begin + self._options.frame_bytes, side="right"))
                first = min(stop, fits, first + MAX_PIECES)
                begin = int(ends[first - 1])
                yield first

    def _flush(self, owner: int) -> None:
        """Push what is buffered for a worker as a frame."""
        buffer = self._buffers[owner]
        if not buffer.pieces:
            return
        self._buffered -= buffer.held_bytes
        contents = buffer.take()
        np.add.at(self.partition_bytes, contents.partition, contents.length.astype(np.uint64))
        # The frame before this one goes: whether a frame is the last is known at the end.
        held, self._held = self._held, _Cut(owner, contents)
        if held is not None:
            self._push(held, count=0)

    def _push(self, cut: _Cut, *, count: int) -> None:
        contents, size = cut.contents, len(cut.contents.payload)
        budget = self._options.buffer_bytes
        self._collect(until_below=max(0, budget - size - self._buffered))
        job, key = self._shuffle.job, self._shuffle.key
        seq, self._seq = self._seq, self._seq + 1

        def build_and_push() -> list[Ack]:
            parts = frame.build(
                payload=contents.payload,
                partition=contents.partition,
                length=contents.length,
                rows=contents.rows,
                partitions=self._shuffle.partitions,
                map_id=self.map_id,
                attempt=self.attempt,
                seq=seq,
                count=count,
                writer=self._writer_id,
                generation=key.generation,
                epoch=job.epoch,
            )
            first = self._workers[cut.worker]
            others = placement.ranked(f"{key.job}/{key.name}/{cut.worker}", self._workers)
            preferred = [first, *(w for w in others if w != first)]
            target = f"{self._shuffle.path}/frames"
            return Push(job, target, parts, preferred, self._replicas, self._cancel).run()

        self._pushing += size
        self._pending.append((job.cluster.pushers.submit(build_and_push), size))

    def _collect(self, *, until_below: int) -> None:
        """Take finished pushes off, and wait until few enough bytes are under way."""
        while self._pending:
            done = [entry for entry in self._pending if entry[0].done()]
            for entry in done:
                self._pending.remove(entry)
                self._pushing -= entry[1]
                self._note(result_of(entry[0]))
            if not self._pushing or self._pushing <= until_below:
                return
            if not done:
                wait([f for f, _ in self._pending], return_when=FIRST_COMPLETED)

    def _note(self, acks: list[Ack]) -> None:
        """Remember who acked; notice a worker that came back without its disk.

        Another id at the same URL alone says nothing: a load balancer may stand there.
        """
        for ack in acks:
            known, self._acked[ack.url] = self._acked.get(ack.url, ack.worker), ack.worker
            if known != ack.worker and self._replicas == 1 and self._is_lost(known):
                why = f"the worker at {ack.url} lost its disk while this attempt was written"
                raise BlocksLost([Missing(self.map_id, self.attempt, why)])

    def _is_lost(self, worker: str) -> bool:
        cluster = self._shuffle.job.cluster
        try:
            return worker in cluster.members(fresh=True, cancel=self._cancel).lost_ids
        except Unavailable:  # nobody can say: whoever makes a view learns it
            return False

    def commit(self) -> None:
        """Push what is left and wait until all is acked; then the attempt is complete.

        Raises:
            Unavailable: not acked before the deadline. The attempt may still be complete.
            AttemptConflict: another writer used this (map, attempt).
            BlocksLost: a worker lost its disk meanwhile; run the map again.
        """
        self._check_open()
        for owner in range(len(self._buffers)):
            self._flush(owner)
        none = np.empty(0, np.int64)
        last = self._held or _Cut(self._home(), Run(none, none, none, b""))
        self._held = None
        self._last_pushed = True
        self._push(last, count=self._seq + 1)
        self._collect(until_below=0)
        while self._pending:  # frames without payload
            wait([f for f, _ in self._pending])
            self._collect(until_below=0)
        self._open = False

    def _home(self) -> int:
        """Return the worker for the frame of an attempt without data."""
        return self.map_id % len(self._workers)

    def abort(self) -> None:
        """Give the attempt up; its frames are dropped where workers can be reached. Idempotent.

        Pushes under way end at once. It takes no longer than workers need to answer one call.
        """
        if not self._open:
            return
        if self._last_pushed:  # it may be committed already, and somebody may read it
            self._give_up()
            return
        self._buffers = []
        self._held = None
        self._give_up()
        self._pending.clear()
        if not self._seq:
            return
        target = f"{self._shuffle.path}/attempts/{self.map_id}/{self.attempt}"
        target += f"?writer={self._writer_id.hex()}&epoch={self._shuffle.job.epoch}"
        cluster = self._shuffle.job.cluster

        def call(url: str) -> None:
            with cluster.pool.call("DELETE", url, target) as response:
                response.read()

        with suppress(CrossdockError):  # only space is at stake: nobody reads an incomplete attempt
            cluster.each_worker(cluster.members(), call)

    def _check_open(self) -> None:
        if not self._open:
            raise ConfigError("the attempt is committed or aborted already")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit; abort on an exception, or when committing fails for good."""
        if kind is not None and self._last_pushed:
            self._give_up()
        elif kind is not None:
            self.abort()
        elif self._open:
            try:
                self.commit()
            except BaseException:
                self._give_up()
                raise

    def _give_up(self) -> None:
        """Stop pushing. After the last frame was pushed it may be in, so nothing is dropped."""
        self._open = False
        self._cancel.set()
        for future, _ in self._pending:
            future.cancel()
        wait([f for f, _ in self._pending])
