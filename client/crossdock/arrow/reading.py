"""The read side: blocks become batches of a sensible size, over the bytes that came."""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import pyarrow as pa

from crossdock.arrow.messages import SCHEMA_PARTITION, Decoder, Kind, WireSchema, messages
from crossdock.arrow.plain import plain_schema
from crossdock.arrow.schemas import check_columns, mismatch
from crossdock.blocks import Block
from crossdock.errors import ConfigError, DataCorrupt
from crossdock.view import View

_BATCH_ROWS: Final = 65_536
_BATCH_BYTES: Final = 2**20
"""Batches smaller than both are joined, by copying."""


class Input(Protocol):
    """What a task reads, such as `crossdock.task().input("orders")`."""

    @property
    def view(self) -> View:
        """The shuffle's winners."""

    @property
    def partitions(self) -> range:
        """Partitions of this task."""

    @property
    def maps(self) -> range | None:
        """Maps of this task, if not all."""


def read(
    source: Input | View,
    partitions: range | int | None = None,
    *,
    maps: range | None = None,
    columns: Sequence[str] | None = None,
    schema: pa.Schema | None = None,
) -> pa.RecordBatchReader:
    """Return the rows of a shuffle that `writer` wrote, by (partition, map), as a stream.

    A block's rows come in the order in which they were written. Batches have at least 65,536
    rows or 1 MiB, but for the last. Uncompressed ones lie over the bytes that were received: a
    batch that is kept keeps up to some `Options.read_batch_bytes` in memory.

    Args:
        source: a task's input, or a view.
        partitions: a contiguous range, or one; default the task's, or all of a view.
        maps: a contiguous range of map ids; default the task's, or all.
        columns: names of the columns to read, in this order; only these are decompressed.
        schema: what the rows should be. It is needed when the shuffle may have no maps at all;
            else it is only compared with theirs.

    Raises:
        SchemaMismatch: maps have different schemas, or another one than `schema`; here or while
            reading.
        DataCorrupt: blocks were not written by `crossdock.arrow.writer`.
        BlocksLost: confirmed loss, here or while reading.
        Unavailable: workers are away until the deadline.
    """
    if isinstance(source, View):
        view = source
    else:
        view = source.view
        partitions = source.partitions if partitions is None else partitions
        maps = source.maps if maps is None else maps
    stream = _Rows(view, columns, schema)
    batches = stream.joined(view.read(partitions, maps))
    return pa.RecordBatchReader.from_batches(stream.decoder.schema, batches)


class _Rows:
    """Makes batches of a view's blocks, and watches that all have one schema."""

    def __init__(
        self, view: View, columns: Sequence[str] | None, expected: pa.Schema | None
    ) -> None:
        self._view = view
        self._first_map = min(view.winners, default=None)
        plain = None if expected is None else plain_schema(expected)
        if self._first_map is not None:
            wire = self._schema_of(self._first_map)
            if plain is not None:
                error = mismatch(plain, "the schema expected", wire.schema, self._named)
                if error is not None:
                    raise error
        elif plain is not None:
            wire = WireSchema.of(plain)
        else:
            raise ConfigError("a shuffle without maps has no schema", hint="pass schema=")
        self._wire = wire
        self._known = {wire.fingerprint}
        self.decoder = Decoder(wire, check_columns(columns, wire.schema))

    @property
    def _named(self) -> str:
        return f"map {self._first_map}"

    def _schema_of(self, map_id: int) -> WireSchema:
        """Read the schema that a map wrote."""
        what = f"map {map_id} of shuffle {self._view.shuffle.key.name!r}"
        piece = self._view.first_piece(SCHEMA_PARTITION, map_id)
        if piece is None:
            raise DataCorrupt(f"{what} has no schema: it was not written by crossdock.arrow")
        return WireSchema.of_piece(piece, what)

    def _check_schema(self, fingerprint: int, map_id: int) -> None:
        """Compare a map's schema with the first map's, when its fingerprint is another one."""
        if fingerprint in self._known:
            return
        theirs = self._schema_of(map_id)
        error = mismatch(self._wire.schema, self._named, theirs.schema, f"map {map_id}")
        if error is not None:
            raise error
        if theirs.fingerprint != fingerprint:
            raise DataCorrupt(f"rows of map {map_id} do not have the schema that it wrote")
        self._known.add(fingerprint)  # releases of Arrow may encode one schema differently

    def _batches(self, block: Block) -> Iterator[tuple[pa.RecordBatch, int]]:
        """Yield the batches of a block, and the size of each in bytes."""
        what = f"block of map {block.map_id} partition {block.partition}"
        rows = 0
        for message in messages(block.data, what):
            self._check_schema(message.fingerprint, block.map_id)
            if message.kind is Kind.SCHEMA:
                continue
            batch = self.decoder.batch(message, what)
            rows += batch.num_rows
            yield batch, max(batch.nbytes, 1)
        if rows != block.rows:
            raise DataCorrupt(f"{what} has {rows} rows, and its writer counted {block.rows}")

    def joined(self, blocks: Iterator[Block]) -> Iterator[pa.RecordBatch]:
        """Yield batches that are not small: small neighbours become one."""
        small: list[pa.RecordBatch] = []
        rows = size = 0
        for block in blocks:
            for batch, nbytes in self._batches(block):
                big = nbytes >= _BATCH_BYTES or batch.num_rows >= _BATCH_ROWS
                if not big:
                    small.append(batch)
                    rows, size = rows + batch.num_rows, size + nbytes
                if small and (big or rows >= _BATCH_ROWS or size >= _BATCH_BYTES):
                    yield from _concatenated(small)
                    small, rows, size = [], 0, 0
                if big:
                    yield batch
        yield from _concatenated(small)


def _concatenated(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Join batches into one; several only where strings of one would be over 2 GiB."""
    if len(batches) <= 1:
        return batches
    joined: list[pa.RecordBatch] = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return joined
