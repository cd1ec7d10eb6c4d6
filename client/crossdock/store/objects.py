"""Whole small objects, and small ranges of objects, read into memory."""

from crossdock.store.api import ReadableStore
from crossdock.store.errors import ObjectDamaged
from crossdock.wire.crc import BytesLike


def read_whole(store: ReadableStore, key: str) -> BytesLike:
    """Return all bytes of an object; raises as `Store.get` does."""
    return read_range(store, key, 0, None)


def read_range(store: ReadableStore, key: str, start: int, stop: int | None) -> BytesLike:
    """Return bytes `start` to `stop` (exclusive) of an object; raises as `Store.get` does."""
    with store.get(key, start, stop) as reading:
        data = bytearray(reading.nbytes)
        target = memoryview(data)
        while target:
            n = reading.read_into(target)
            if not n:
                raise ObjectDamaged(f"{key} ends {len(target)} bytes too early")
            target = target[n:]
    return data
