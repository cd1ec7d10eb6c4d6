"""A log object: a segment, and the record of it, in one write before its frames are acked.

    segment (segment.py) | record (records.py) | record length u32 | "XDL1"

Its key is the last segment of its record; that is empty where the two together would be longer than
a segment may be. It is short-lived: once longer runs have its frames it is
deleted.
"""

import struct
from typing import Final

from crossdock.store.api import ObjectInfo, ReadableStore, Source
from crossdock.store.bodies import JoinedSource
from crossdock.store.errors import ObjectDamaged
from crossdock.store.layout import LOG_SUFFIX
from crossdock.store.objects import read_range, read_whole
from crossdock.store.records import Record

_END: Final = struct.Struct("<I4s")
_MAGIC: Final = b"XDL1"
_FIRST_READ_BYTES: Final = 64 * 1024
"""Most records are shorter, and then one request reads them."""


def end_bytes(record: Record) -> int:
    """Return the size of what comes behind the segment."""
    return len(record.encode()) + _END.size


def joined(segment: Source, record: Record) -> Source:
    """Return the bytes of a log object."""
    data = record.encode()
    return JoinedSource(segment, data + _END.pack(len(data), _MAGIC))


def read_record(store: ReadableStore, info: ObjectInfo) -> Record:
    """Read a record, on its own or at the end of a log object.

    Raises:
        ObjectMissing: it is gone: by now a run has its frames, or the shuffle was released.
        ObjectDamaged: it is damaged.
    """
    if not info.key.endswith(LOG_SUFFIX):
        return Record.decode(read_whole(store, info.key), where=info.key)
    end = read_range(store, info.key, max(0, info.size - _FIRST_READ_BYTES), info.size)
    if len(end) < _END.size or (found := _END.unpack_from(end, len(end) - _END.size))[1] != _MAGIC:
        raise ObjectDamaged(f"{info.key} is no log object")
    whole = found[0] + _END.size
    if whole > info.size:
        raise ObjectDamaged(f"{info.key}: its record is longer than itself")
    if whole > len(end):
        end = read_range(store, info.key, info.size - whole, info.size)
    start = len(end) - whole
    return Record.decode(memoryview(end)[start : -_END.size], where=info.key)
