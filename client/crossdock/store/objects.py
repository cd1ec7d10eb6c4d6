"""Whole small objects, read and written."""

from crossdock.store.api import Store
from crossdock.store.errors import ObjectDamaged
from crossdock.wire.crc import BytesLike


def read_whole(store: Store, key: str) -> BytesLike:
    """Return all bytes of an object; raises as `Store.get` does."""
    with store.get(key) as reading:
        data = bytearray(reading.nbytes)
        target = memoryview(data)
        while target:
            n = reading.read_into(target)
            if not n:
                raise ObjectDamaged(f"{key} ends {len(target)} bytes too early")
            target = target[n:]
    return data
