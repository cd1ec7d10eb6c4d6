"""Rows to write, and a target that keeps blocks as readers would get them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

import crossdock
import crossdock.arrow
from crossdock import Shuffle
from crossdock.arrow.messages import Kind, messages

SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.string())])


def rows(first: int, count: int) -> pa.Table:
    keys = np.arange(first, first + count)
    return pa.table({"k": keys, "v": [f"value {k}" for k in keys]}, schema=SCHEMA)


def write(shuffle: Shuffle, map_id: int, data: Any, **options: Any) -> None:
    schema = options.pop("schema", SCHEMA)
    options = {"keys": ["k"], **options} if "partitioning" not in options else options
    with crossdock.arrow.writer((shuffle, map_id, 0), schema, **options) as writer:
        writer.write(data)


def view_of(shuffle: Shuffle, maps: int) -> crossdock.View:
    return shuffle.view(dict.fromkeys(range(maps), 0))


class Collected:
    """A target in memory: the blocks as a reader would get them."""

    def __init__(self, partitions: int, piece_bytes: int = 2**23) -> None:
        self.partitions = partitions
        self.piece_bytes = piece_bytes
        self.blocks: dict[int, bytes] = {}
        self.ended = ""

    def writer(self) -> "Collected":
        return self

    def write(self, partition: int, data: Any, *, rows: int = 0) -> None:  # noqa: ARG002
        self.blocks[partition] = self.blocks.get(partition, b"") + bytes(data)

    def write_batch(self, partitions: Any, data: Any, lengths: Any, rows: Any = None) -> None:
        assert sum(lengths) == len(data)
        assert max(lengths) <= self.piece_bytes
        at = 0
        for partition, length, count in zip(partitions, lengths, rows, strict=True):
            self.write(int(partition), data[at : at + length], rows=int(count))
            at += length

    def commit(self) -> None:
        self.ended = "commit"

    def abort(self) -> None:
        self.ended = "abort"

    def messages(self) -> Iterator[Any]:
        for partition, block in sorted(self.blocks.items()):
            for message in messages(memoryview(block), "block"):
                if message.kind is not Kind.SCHEMA:
                    yield partition, message

    def rows(self, schema: pa.Schema) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for partition, message in self.messages():
            batch = pa.ipc.read_record_batch(message.parsed, schema)
            batch.validate(full=True)
            found.setdefault(partition, []).extend(batch.to_pylist())
        return found
