"""The write side: rows come in as they are, leave as blocks of a good size, in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crossdock.arrow.messages import SCHEMA_PARTITION, WireSchema
from crossdock.arrow.partitioning import Given, Hash, Ids, Partitioning
from crossdock.arrow.plain import plain_schema
from crossdock.arrow.runs import (
    GROUP_BYTES,
    Chunk,
    Encoded,
    Run,
    check_ids,
    compacted,
    encode,
    groups,
    largest,
    sort_chunk,
)
from crossdock.arrow.schemas import conform
from crossdock.arrow.sizes import plain_bytes
from crossdock.arrow.targets import PieceWriter, Target
from crossdock.errors import ConfigError
from crossdock.shuffle import Shuffle

T = TypeVar("T")
MIB: Final = 2**20
Compression = Literal["zstd", "lz4", "none"]
Data: TypeAlias = (
    pa.RecordBatch | pa.Table | pa.RecordBatchReader | Iterable[pa.RecordBatch | pa.Table]
)

_CHUNK_ROWS: Final = 65_536
"""Rows that are sorted at once: their columns about fit a core's cache."""
_MAX_CHUNK_ROWS: Final = 2**20
_SLICE_ROWS: Final = 512
"""Rows of one partition in a chunk, on average: slices cost time by number, not by rows."""
_CHUNKS: Final = 8
_CHUNKS_PER_THREAD: Final = 4
"""In how many chunks, at least, the memory for rows is filled: a few for each thread, as every
thread has some under way that come on top."""
_MAX_THREADS: Final = 8


def writer(
    target: Target | tuple[Shuffle, int, int | None],
    schema: pa.Schema,
    *,
    keys: Sequence[str] | None = None,
    partitioning: Partitioning | None = None,
    compression: Compression | None = None,
    block_bytes: int = MIB,
    buffer_bytes: int = 256 * MIB,
    threads: int | None = None,
) -> "ArrowWriter":
    """Return a writer of Arrow data for one attempt of one map; use it as a context manager.

    Args:
        target: a task's shuffle output, or (shuffle, map id, attempt); attempt None is random.
        schema: of all rows. Columns of encoded types (dictionary, view, run-end encoded) travel
            as the values they stand for, and readers see the plain type.
        keys: short for `partitioning=Hash(keys)`.
        partitioning: `Hash`, `Range`, `RoundRobin`, `Given`, or anything with their `assign`.
        compression: of the buffers within a message: "zstd", "lz4" or "none"; default what the
            target says, else "zstd".
        block_bytes: what a message shall have before compression, if memory allows.
        buffer_bytes: rows held back to fill blocks, counted as they travel. To sort and encode
            them can take as much again, some `block_bytes` a thread at least, and the client's
            own `Options.buffer_bytes` come on top. Blocks get small when it is less than
            partitions × `block_bytes`.
        threads: that sort and encode; default one per usable core, at most 8.

    Raises:
        ConfigError: an argument is wrong, a type cannot travel, or a key column is not there.
    """
    if (keys is None) == (partitioning is None):
        raise ConfigError("pass either keys= or partitioning=")
    chosen = Hash(tuple(keys)) if keys is not None and not isinstance(keys, str) else partitioning
    if chosen is None:
        raise ConfigError(f"keys {keys!r} is no list of column names", hint='keys=["a"]')
    packing = _checked_compression(compression or getattr(target, "compression", "zstd"))
    if isinstance(target, tuple):
        shuffle, map_id, attempt = target
        partitions = shuffle.partitions
        pieces: PieceWriter = shuffle.writer(map_id=map_id, attempt=attempt)
    else:
        partitions, pieces = target.partitions, target.writer()
    try:
        return ArrowWriter(
            pieces,
            schema,
            partitions=partitions,
            partitioning=chosen,
            compression=packing,
            block_bytes=block_bytes,
            buffer_bytes=buffer_bytes,
            threads=_usable_cores() if threads is None else threads,
        )
    except BaseException:
        pieces.abort()
        raise


def _usable_cores() -> int:
    """Return how many threads are worth while."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return min(_MAX_THREADS, len(os.sched_getaffinity(0)))
    return min(_MAX_THREADS, os.cpu_count() or 1)


class ArrowWriter:
    """Writes tables and batches. Leaving the `with` block commits; an exception aborts.

    Not thread-safe: one task writes. Within a partition rows keep the order of writing.
    """

    def __init__(
        self,
        pieces: PieceWriter,
        schema: pa.Schema,
        *,
        partitions: int,
        partitioning: Partitioning,
        compression: Compression,
        block_bytes: int,
        buffer_bytes: int,
        threads: int,
    ) -> None:
        """Use `writer`."""
        if min(block_bytes, buffer_bytes, threads) <= 0:
            raise ConfigError("block_bytes, buffer_bytes and threads must be more than 0")
        if not len(schema):
            raise ConfigError("a schema without columns has nothing to write")
        self.schema = plain_schema(schema)
        """Of the rows as they travel."""
        self.rows = 0
        """Rows written so far."""
        self._pieces = pieces
        self._partitions = partitions
        self._partitioning = partitioning
        self._block_bytes = block_bytes
        self._buffer_bytes = buffer_bytes
        self._chunk_bytes = max(1, buffer_bytes // max(_CHUNKS, _CHUNKS_PER_THREAD * threads))
        self._wire = WireSchema.of(self.schema)
        self._options = pa.ipc.IpcWriteOptions(
            compression=None if compression == "none" else compression, use_threads=False
        )
        self._chunk_rows = min(max(_CHUNK_ROWS, _SLICE_ROWS * partitions), _MAX_CHUNK_ROWS)
        self._waiting: list[tuple[pa.RecordBatch, Ids | None]] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._sorting: deque[Future[list[Run]]] = deque()
        self._runs: list[Run] = []
        self._sizes = np.zeros(partitions, np.float64)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "crossdock-arrow") if threads > 1 else None
        self._open = True
        self._rows_lost = False
        if not isinstance(partitioning, Given):
            partitioning.assign(self._wire.nothing, partitions=partitions, first_row=0)
        pieces.write(SCHEMA_PARTITION, self._wire.piece())

    def write(self, data: Data, *, partitions: npt.ArrayLike | None = None) -> None:
        """Take rows in; blocks leave when `buffer_bytes` of them are held.

        Args:
            data: a batch, a table, a reader, or an iterable of batches and tables. Columns may
                come in any order.
            partitions: the partition of each row, with `partitioning=Given()` alone; `data` is a
                batch or a table then.

        Raises:
            SchemaMismatch: a column is missing, too many, or of another type; it says which.
            ConfigError: a partition id is wrong.
            CrossdockError: as `crossdock.Writer.write`. Rows are lost then: the attempt can only
                be aborted.
        """
        self._check_open()
        ids = self._given_ids(data, partitions)
        row = 0
        for batch in _batches(data):
            fitting = conform(batch, self.schema)
            part = None if ids is None else ids[row : row + batch.num_rows]
            row += batch.num_rows
            with self._all_or_broken():
                self._take_in(fitting, part)

    def _given_ids(self, data: Data, partitions: npt.ArrayLike | None) -> Ids | None:
        if isinstance(self._partitioning, Given) != (partitions is not None):
            raise ConfigError("rows come with partitions= if, and only if, partitioning is Given()")
        if partitions is None:
            return None
        ids = np.asarray(partitions)
        if not isinstance(data, pa.RecordBatch | pa.Table) or ids.shape != (data.num_rows,):
            raise ConfigError("partitions= has not one id for each row of a table or batch")
        return check_ids(ids, self._partitions)

    def _take_in(self, batch: pa.RecordBatch, ids: Ids | None) -> None:
        """Put rows to those that wait for their chunk to be full."""
        at = 0
        while at < batch.num_rows:
            count = min(self._chunk_rows - self._waiting_rows, batch.num_rows - at)
            part, size = self._fitting(batch.slice(at, count))
            self._waiting.append((part, None if ids is None else ids[at : at + part.num_rows]))
            self._waiting_rows += part.num_rows
            self._waiting_bytes += size
            self.rows += part.num_rows
            at += part.num_rows
            if self._waiting_rows >= self._chunk_rows or self._waiting_bytes >= self._chunk_bytes:
                self._sort_waiting()

    def _fitting(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """Return the first rows of a batch that fit the chunk, at least one; and their bytes."""
        room = self._chunk_bytes - self._waiting_bytes
        while True:
            size = self._plain_bytes(batch)
            if size <= room or batch.num_rows == 1:
                return batch, size
            count = max(1, min(batch.num_rows // 2, batch.num_rows * room // size))
            batch = batch.slice(0, count)

    def _plain_bytes(self, batch: pa.RecordBatch) -> int:
        if batch.schema.equals(self.schema):  # plain already
            return int(batch.nbytes)
        return sum(map(plain_bytes, batch.columns))

    def _sort_waiting(self) -> None:
        """Sort the rows that wait, in a thread; take sorted ones over in the order of writing."""
        if not self._waiting:
            return
        given = [ids for _, ids in self._waiting if ids is not None]
        first_row = self.rows - self._waiting_rows
        chunk = Chunk([batch for batch, _ in self._waiting], given, first_row)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        work = partial(sort_chunk, chunk, self.schema, self._partitioning, self._partitions)
        if self._pool is None:
            self._add(work())
            return
        self._sorting.append(self._pool.submit(work))
        while len(self._sorting) > self._threads:
            self._add(self._sorting.popleft().result())

    def _add(self, runs: list[Run]) -> None:
        """Hold sorted rows; free memory when they are too many."""
        for run in runs:
            self._runs.append(run)
            self._sizes += run.partition_bytes
        if self._sizes.sum() >= self._buffer_bytes:
            self._flush(largest(self._sizes, self._block_bytes))

    def _flush(self, chosen: npt.NDArray[np.bool_]) -> None:
        """Encode and write the chosen partitions' rows; hold on to the others."""
        partitions = np.flatnonzero(chosen).tolist()
        unit = min(GROUP_BYTES, self._chunk_bytes)
        cut = groups(self._runs, partitions, self._sizes, self._block_bytes, unit)
        for encoded in self._in_threads(
            partial(encode, group, self._wire, self._options) for group in cut
        ):
            self._send(encoded)
        self._runs = compacted(self._runs, ~chosen, self._chunk_bytes)
        self._sizes = np.zeros(self._partitions, np.float64)
        for run in self._runs:
            self._sizes += run.partition_bytes

    def _in_threads(self, works: Iterable[Callable[[], T]]) -> Iterator[T]:
        """Yield the results in order; a few more than there are threads are under way."""
        if self._pool is None:
            yield from (work() for work in works)
            return
        ahead: deque[Future[T]] = deque()
        for work in works:
            ahead.append(self._pool.submit(work))
            if len(ahead) > self._threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _send(self, encoded: Encoded) -> None:
        """Hand messages on; one that is longer than a piece may be goes in several."""
        data = memoryview(encoded.data)
        if int(encoded.lengths.max()) <= self._pieces.piece_bytes:
            self._pieces.write_batch(encoded.partitions, data, encoded.lengths, encoded.rows)
            return
        begin = 0
        for partition, length, rows in zip(
            encoded.partitions.tolist(),
            encoded.lengths.tolist(),
            encoded.rows.tolist(),
            strict=True,
        ):
            self._pieces.write(partition, data[begin : begin + length], rows=rows)
            begin += length

    def _finish(self) -> None:
        """Write out all that is held."""
        self._check_open()
        with self._all_or_broken():
            self._sort_waiting()
            while self._sorting:
                self._add(self._sorting.popleft().result())
            self._flush(self._sizes > 0)

    def commit(self) -> None:
        """Write out what is held and wait until all is acked; see `crossdock.Writer.commit`."""
        self._finish()
        self._pieces.commit()
        self._close()

    def abort(self) -> None:
        """Give the attempt up. Idempotent."""
        if self._open:
            self._close()
            self._pieces.abort()

    def _close(self) -> None:
        self._open = False
        self._waiting, self._runs = [], []
        self._sorting.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _check_open(self) -> None:
        if not self._open:
            raise ConfigError("the attempt is committed or aborted already")
        if self._rows_lost:
            raise ConfigError("rows of this attempt were lost by an error before", hint="abort it")

    @contextmanager
    def _all_or_broken(self) -> Iterator[None]:
        """Remember an error under way: what was in its hands is gone, so nobody may commit."""
        try:
            yield
        except BaseException:
            self._rows_lost = True
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit; abort on an exception, or when committing fails for good."""
        if not self._open:
            return
        if kind is not None:
            self.abort()
            return
        try:
            self.commit()
        except BaseException:
            self.abort()
            raise


def _checked_compression(name: object) -> Compression:
    for known in get_args(Compression):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"compression {name!r} is not zstd, lz4 or none")


def _batches(data: Data) -> Iterator[pa.RecordBatch]:
    """Yield the batches of whatever holds rows."""
    if isinstance(data, pa.RecordBatch):
        yield data
    elif isinstance(data, pa.Table):
        yield from data.to_batches()
    else:
        for part in data:
            if not isinstance(part, pa.RecordBatch | pa.Table):
                raise ConfigError(f"{type(part).__name__} is no batch and no table of Arrow")
            yield from _batches(part)
