"""Rows on their way to becoming blocks: sorted by partition in small runs, then cut into messages.

Rows are sorted in chunks that fit a core's cache, because taking rows out of large columns waits
for memory at every row. A partition's rows are then gathered from all runs at once, in the order
in which they were written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crossdock.arrow.hashing import I64
from crossdock.arrow.messages import HEADER_BYTES, Kind, WireSchema, header
from crossdock.arrow.partitioning import Ids, Partitioning
from crossdock.arrow.plain import plain_batch
from crossdock.errors import ConfigError

GROUP_BYTES: Final = 4 * 2**20
"""Messages that are encoded into one buffer: the unit of work of a thread."""

_END_BYTES: Final = 8
"""What a stream writes when it is closed."""

MEMORY: Final = pa.system_memory_pool()
"""Where rows and messages are put. Other allocators give what is free back to the system at once,
and to have it cleared and mapped again, page by page, takes longer than all copying."""


@dataclass(frozen=True, slots=True)
class Run:
    """Rows sorted by partition."""

    batch: pa.RecordBatch
    offsets: I64
    """i64[P + 1]: partition p has the rows from `offsets[p]` to `offsets[p + 1]`."""

    @property
    def partition_bytes(self) -> npt.NDArray[np.float64]:
        """f64[P]: about how many bytes each partition has here; more than 0 where it has rows."""
        # Columns of nulls, and no columns, take no bytes: their rows must leave all the same.
        row_bytes = max(1.0, self.batch.nbytes / max(1, self.batch.num_rows))
        sizes: npt.NDArray[np.float64] = np.diff(self.offsets) * row_bytes
        return sizes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that are to become a run."""

    batches: Sequence[pa.RecordBatch]
    ids: Sequence[Ids]
    """Of each batch's rows, if the caller gave them; else empty."""
    first_row: int


def sort_chunk(
    chunk: Chunk,
    schema: pa.Schema,
    partitioning: Partitioning,
    partitions: int,
) -> list[Run]:
    """Bring the rows of a chunk into the plain types of `schema`, and the order of partitions."""
    batches = [plain_batch(batch, schema) for batch in chunk.batches]
    whole = batches if len(batches) == 1 else _combined(pa.Table.from_batches(batches))
    given = np.concatenate(chunk.ids) if chunk.ids else None
    runs, row = [], 0
    for batch in whole:
        if given is None:
            first = chunk.first_row + row
            assigned = partitioning.assign(batch, partitions=partitions, first_row=first)
            ids = check_ids(assigned, partitions)
        else:
            ids = given[row : row + batch.num_rows]
        row += batch.num_rows
        if len(ids) != batch.num_rows:
            raise ConfigError(f"{len(ids)} partition ids came for {batch.num_rows} rows")
        runs.append(_sorted(batch, ids, partitions))
    return runs


def _combined(table: pa.Table) -> list[pa.RecordBatch]:
    """Return the rows in one batch; in several where strings of one would be over 2 GiB."""
    batches: list[pa.RecordBatch] = table.combine_chunks(memory_pool=MEMORY).to_batches()
    return batches


def check_ids(ids: Ids, partitions: int) -> Ids:
    """Refuse ids that are no partitions; return them in the type that sorts fastest."""
    if ids.dtype.kind not in "iu":
        raise ConfigError(f"partition ids are {ids.dtype}, not integers")
    if len(ids) and (ids.min() < 0 or ids.max() >= partitions):
        raise ConfigError(f"a partition id is not one of the shuffle's {partitions}")
    return ids.astype(np.min_scalar_type(partitions - 1), copy=False)


def _sorted(batch: pa.RecordBatch, ids: Ids, partitions: int) -> Run:
    offsets = np.zeros(partitions + 1, np.int64)
    np.cumsum(np.bincount(ids, minlength=partitions), out=offsets[1:])
    order = np.argsort(ids, kind="stable")  # radix sort up to 65,536 partitions
    rows = pa.array(order.astype(np.uint32))
    return Run(pc.take(batch, rows, boundscheck=False, memory_pool=MEMORY), offsets)


@dataclass(frozen=True, slots=True)
class Rows:
    """What is to be one message: rows of one partition, not yet brought together."""

    partition: int
    table: pa.Table


@dataclass(frozen=True, slots=True)
class Encoded:
    """Messages back to back, by rising partition."""

    data: pa.Buffer
    partitions: I64
    lengths: I64
    rows: I64


def rows_of(runs: Sequence[Run], partition: int) -> pa.Table | None:
    """Return the rows of one partition of all runs, where they lie; None if there are none."""
    slices = []
    for run in runs:
        first, last = int(run.offsets[partition]), int(run.offsets[partition + 1])
        if first < last:
            slices.append(run.batch.slice(first, last - first))
    return pa.Table.from_batches(slices) if slices else None


def groups(
    runs: Sequence[Run],
    partitions: Sequence[int],
    sizes: npt.NDArray[np.float64],
    block_bytes: int,
    group_bytes: int,
) -> Iterator[list[Rows]]:
    """Cut partitions into messages of about `block_bytes`, and these into units of work.

    Args:
        runs: where the rows are.
        partitions: which ones, rising.
        sizes: f64[P], about how many bytes each has.
        block_bytes: what a message shall have before compression.
        group_bytes: what a unit of work shall have, or one message if that is larger.
    """
    group: list[Rows] = []
    filled = 0.0
    for partition in partitions:
        table = rows_of(runs, partition)
        if table is None:
            continue
        size = float(sizes[partition])
        count = min(max(1, round(size / block_bytes)), table.num_rows)
        for i in range(count):
            first, last = (table.num_rows * k // count for k in (i, i + 1))
            group.append(Rows(partition, table.slice(first, last - first)))
            filled += size / count
            if filled >= group_bytes:
                yield group
                group, filled = [], 0.0
    if group:
        yield group


def encode(group: Sequence[Rows], wire: WireSchema, options: pa.ipc.IpcWriteOptions) -> Encoded:
    """Make messages of rows."""
    parts = [(part.partition, batch) for part in group for batch in _combined(part.table)]
    batches = [batch for _, batch in parts]
    if options.compression is None:
        # Memory of the right size at once: a stream that grows copies all again and again.
        sizes = [pa.ipc.get_record_batch_size(b) for b in (wire.nothing, *batches)]
        room = sum(sizes) + HEADER_BYTES * len(sizes) + len(wire.encoded) + _END_BYTES
        data = pa.allocate_buffer(room, MEMORY, resizable=False)
        with pa.FixedSizeBufferWriter(data) as fixed:
            ends = _write_messages(fixed, batches, wire, options)
    else:
        with pa.BufferOutputStream(MEMORY) as growing:
            ends = _write_messages(growing, batches, wire, options)
            data = growing.getvalue()
    return Encoded(
        data.slice(ends[0], ends[-1] - ends[0]),
        np.array([partition for partition, _ in parts], np.int64),
        np.diff(np.array(ends)).astype(np.int64),
        np.array([batch.num_rows for batch in batches], np.int64),
    )


def _write_messages(
    sink: pa.NativeFile,
    batches: Sequence[pa.RecordBatch],
    wire: WireSchema,
    options: pa.ipc.IpcWriteOptions,
) -> list[int]:
    """Write batches, each behind its header; return where the first begins and each ends."""
    kind = Kind.ROWS if options.compression is None else Kind.COMPRESSED_ROWS
    head = header(kind, wire.fingerprint)
    with pa.ipc.new_stream(sink, wire.schema, options=options) as stream:
        stream.write_batch(wire.nothing)  # a stream begins with its schema; blocks go without
        ends = [sink.tell()]
        for batch in batches:
            sink.write(head)
            stream.write_batch(batch)
            ends.append(sink.tell())
    return ends


def largest(sizes: npt.NDArray[np.float64], block_bytes: int) -> npt.NDArray[np.bool_]:
    """Return which partitions to flush when memory is to be freed.

    All that fill a block; and the largest others, until half of the memory is free.
    """
    order = np.argsort(-sizes, kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = np.zeros(len(sizes), np.bool_)
    chosen[order] = (before < sizes.sum() / 2) | (sizes[order] >= block_bytes)
    return chosen & (sizes > 0)


def compacted(runs: list[Run], keep: npt.NDArray[np.bool_], chunk_bytes: int) -> list[Run]:
    """Return runs of the kept partitions alone, in memory of their own; `runs` is empty then.

    Some runs at a time, about `chunk_bytes` of what is kept: they are freed before the next are
    copied, so memory does not double.
    """
    found: list[Run] = []
    while runs:
        taken, size = 0, 0.0
        while taken < len(runs) and size < chunk_bytes:
            size += float(runs[taken].partition_bytes[keep].sum())
            taken += 1
        found += _merged(runs[:taken], keep)
        del runs[:taken]
    return found


def _merged(runs: Sequence[Run], keep: npt.NDArray[np.bool_]) -> list[Run]:
    """Make one run of several: more only where strings of one would be over 2 GiB."""
    tables = [(p, rows_of(runs, p)) for p in np.flatnonzero(keep).tolist()]
    kept = [(p, table) for p, table in tables if table is not None]
    if not kept:
        return []
    counts = np.zeros(len(keep) + 1, np.int64)
    counts[[p + 1 for p, _ in kept]] = [table.num_rows for _, table in kept]
    offsets = np.cumsum(counts)
    found, first = [], 0
    for batch in _combined(pa.concat_tables([table for _, table in kept])):
        inside = np.clip(offsets - first, 0, batch.num_rows)
        found.append(Run(batch, inside))
        first += batch.num_rows
    return found
