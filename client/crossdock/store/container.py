"""One object or file that holds a JSON head and some tables, checked as a whole.

    magic "XDC1" | head length u32 | head, JSON | tables, zlib | crc32c of all before, u32

The head is {"kind": …, "meta": {…}, "tables": [[name, records], …]}; the tables are compressed as
one, back to back. Little-endian throughout.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from crossdock.store.errors import ObjectDamaged
from crossdock.wire import crc
from crossdock.wire.crc import BytesLike
from crossdock.wire.tables import Table

MAGIC: Final = b"XDC1"
_START: Final = struct.Struct("<4sI")
_END: Final = struct.Struct("<I")

Meta = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Container:
    """What was packed."""

    meta: Meta
    tables: Mapping[str, Table]


def pack(kind: str, meta: Meta, tables: Mapping[str, Table]) -> bytes:
    """Return the bytes of a container."""
    head = json.dumps(
        {"kind": kind, "meta": meta, "tables": [[n, len(t)] for n, t in tables.items()]},
        separators=(",", ":"),
    ).encode()
    body = zlib.compress(b"".join(t.tobytes() for t in tables.values()), level=1)
    data = _START.pack(MAGIC, len(head)) + head + body
    return data + _END.pack(crc.extend(0, data))


def unpack(
    kind: str, data: BytesLike, dtypes: Mapping[str, np.dtype[np.void]], *, where: str
) -> Container:
    """Read a container.

    Args:
        kind: what it must be.
        data: its bytes.
        dtypes: of its tables, by name.
        where: for messages.

    Raises:
        ObjectDamaged: it is not one, or not whole, or not of this kind.
    """
    view = memoryview(data)
    if len(view) < _START.size + _END.size:
        raise ObjectDamaged(f"{where} is cut short: {len(view)} bytes")
    magic, head_bytes = _START.unpack_from(view)
    (checksum,) = _END.unpack_from(view, len(view) - _END.size)
    if magic != MAGIC or crc.extend(0, view[: -_END.size]) != checksum:
        raise ObjectDamaged(f"{where} is damaged, or no {kind} of Crossdock")
    at = _START.size + head_bytes
    head = json.loads(bytes(view[_START.size : at]))
    if head["kind"] != kind:
        raise ObjectDamaged(f"{where} is a {head['kind']}, not a {kind}")
    body = memoryview(zlib.decompress(view[at : -_END.size]))
    at = 0
    tables = {}
    for name, records in head["tables"]:
        dtype = dtypes.get(name)
        if dtype is None:
            raise ObjectDamaged(f"{where} has a table {name!r} of a newer version")
        tables[name] = np.frombuffer(body, dtype, records, at)
        at += records * dtype.itemsize
    return Container(head["meta"], tables)
