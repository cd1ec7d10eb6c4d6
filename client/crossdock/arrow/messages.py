"""What a block holds: Arrow IPC messages, each behind 16 bytes. docs/arrow-exchange.md, "Format".

    header   magic `XDA1`, kind u32, schema fingerprint u64; little-endian
    message  an encapsulated IPC message: a schema, or a record batch without dictionaries

The first message that a map writes to partition 0 is its schema; record batches go without.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import pyarrow as pa

from crossdock.errors import DataCorrupt

MAGIC: Final = b"XDA1"
SCHEMA_PARTITION: Final = 0
_HEADER: Final = struct.Struct("<4sIQ")
HEADER_BYTES: Final = _HEADER.size

_ARROW_ERRORS: Final = (pa.ArrowException, OSError, ValueError, EOFError, IndexError)
"""How Arrow says that bytes are no message."""


class Kind(IntEnum):
    """What the message behind a header is."""

    SCHEMA = 1
    ROWS = 2
    COMPRESSED_ROWS = 3


@dataclass(frozen=True, slots=True)
class WireSchema:
    """A schema as it travels."""

    schema: pa.Schema
    encoded: bytes
    """The IPC message."""
    fingerprint: int
    """First 8 bytes of the SHA-256 of the IPC message of the schema without metadata."""
    nothing: pa.RecordBatch
    """No rows."""

    @classmethod
    def of(cls, schema: pa.Schema) -> "WireSchema":
        """Encode a schema of plain types."""
        bare = pa.schema([f.remove_metadata() for f in schema]).serialize().to_pybytes()
        digest = hashlib.sha256(bare).digest()
        fingerprint = int.from_bytes(digest[:8], "little")
        return cls(schema, schema.serialize().to_pybytes(), fingerprint, _nothing(schema))

    def piece(self) -> bytes:
        """Return what a map writes first."""
        return header(Kind.SCHEMA, self.fingerprint) + self.encoded

    @classmethod
    def of_piece(cls, piece: memoryview, what: str) -> "WireSchema":
        """Read the schema at the beginning of a map's first piece.

        Raises:
            DataCorrupt: there is none.
        """
        kind, fingerprint = parse_header(piece, what)
        if kind is not Kind.SCHEMA:
            raise DataCorrupt(f"{what} does not begin with its schema")
        try:
            message = pa.ipc.read_message(pa.BufferReader(pa.py_buffer(piece[HEADER_BYTES:])))
            schema = pa.ipc.read_schema(message)
        except _ARROW_ERRORS as error:
            raise DataCorrupt(f"{what}: its schema is damaged: {error}") from error
        return cls(schema, message.serialize().to_pybytes(), fingerprint, _nothing(schema))


def _nothing(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in schema], schema=schema)


def header(kind: Kind, fingerprint: int) -> bytes:
    """Return the 16 bytes before a message."""
    return _HEADER.pack(MAGIC, kind, fingerprint)


def parse_header(data: memoryview, what: str) -> tuple[Kind, int]:
    """Return the kind of the message that follows, and its schema's fingerprint.

    Raises:
        DataCorrupt: this is no header; `what` says of which block.
    """
    if len(data) < HEADER_BYTES:
        raise DataCorrupt(f"{what} ends inside the header of a message")
    magic, kind, fingerprint = _HEADER.unpack_from(data)
    if magic != MAGIC or kind not in set(Kind):
        raise DataCorrupt(f"{what} was not written by crossdock.arrow, or is damaged")
    return Kind(kind), fingerprint


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a block."""

    kind: Kind
    fingerprint: int
    parsed: pa.ipc.Message
    data: pa.Buffer
    """Its bytes."""


def messages(block: memoryview, what: str) -> Iterator[Message]:
    """Yield the messages of a block; nothing is copied.

    Raises:
        DataCorrupt: the block is not made of such messages.
    """
    buffer = pa.py_buffer(block)
    source = pa.BufferReader(buffer)
    at = 0
    while at < len(block):
        kind, fingerprint = parse_header(block[at : at + HEADER_BYTES], what)
        begin = at + HEADER_BYTES
        try:
            source.seek(begin)
            parsed = pa.ipc.read_message(source)
        except _ARROW_ERRORS as error:
            raise DataCorrupt(f"{what}: a message is damaged: {error}") from error
        at = source.tell()
        yield Message(kind, fingerprint, parsed, buffer.slice(begin, at - begin))


class Decoder:
    """Makes batches of messages with one schema; with `columns`, of these alone."""

    def __init__(self, wire: WireSchema, columns: list[str] | None) -> None:
        self._wire = wire
        self._columns = columns
        schema = wire.schema
        self._options = None
        if columns is not None:
            fields = sorted(schema.get_field_index(name) for name in columns)
            self._options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
            fields_of = [schema.field(name) for name in columns]
            schema = pa.schema(fields_of, metadata=schema.metadata)
        self.schema = schema
        """Of the batches."""

    def batch(self, message: Message, what: str) -> pa.RecordBatch:
        """Return the rows of a message, over its bytes where they are not compressed.

        Raises:
            DataCorrupt: they do not fit the schema.
        """
        try:
            if self._options is not None and message.kind is Kind.COMPRESSED_ROWS:
                batch = self._chosen(message)
            else:
                batch = pa.ipc.read_record_batch(message.parsed, self._wire.schema)
                if self._columns is not None:
                    batch = batch.select(self._columns)
            batch.validate()
        except _ARROW_ERRORS as error:
            raise DataCorrupt(f"{what}: a batch of rows is damaged: {error}") from error
        return batch

    def _chosen(self, message: Message) -> pa.RecordBatch:
        """Decompress only some columns: Arrow can do that for whole streams alone."""
        stream = b"".join((self._wire.encoded, message.data))
        batch = pa.ipc.open_stream(stream, options=self._options).read_next_batch()
        return batch.select(self._columns)
