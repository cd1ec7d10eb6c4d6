"""Whole small objects, and small ranges of objects, read into memory."""

from dataclasses import dataclass

from crossdock.store.api import ObjectInfo, ReadableStore
from crossdock.store.errors import ObjectDamaged
from crossdock.wire.crc import BytesLike


@dataclass(frozen=True, slots=True)
class Whole:
    """All bytes of an object, and what it was when they were read."""

    info: ObjectInfo
    data: BytesLike


def read_object(store: ReadableStore, key: str) -> Whole:
    """Return an object; raises as `Store.get` does."""
    return _read(store, key, 0, None)


def read_whole(store: ReadableStore, key: str) -> BytesLike:
    """Return all bytes of an object; raises as `Store.get` does."""
    return _read(store, key, 0, None).data


def read_range(store: ReadableStore, key: str, start: int, stop: int | None) -> BytesLike:
    """Return bytes `start` to `stop` (exclusive) of an object; raises as `Store.get` does."""
    return _read(store, key, start, stop).data


def _read(store: ReadableStore, key: str, start: int, stop: int | None) -> Whole:
    with store.get(key, start, stop) as reading:
        data = bytearray(reading.nbytes)
        target = memoryview(data)
        while target:
            n = reading.read_into(target)
            if not n:
                raise ObjectDamaged(f"{key} ends {len(target)} bytes too early")
            target = target[n:]
        return Whole(reading.info, data)
