"""Ranges of objects, as `Store.get` takes them."""

from crossdock.errors import ConfigError
from crossdock.store.api import ObjectInfo
from crossdock.store.errors import ObjectDamaged


def check_range(start: int, stop: int | None) -> None:
    """Raise `ConfigError` for a range that no object has."""
    if start < 0 and stop is not None:
        raise ConfigError(f"bytes {start} to {stop}: one counts from the end, the other does not")
    if stop is not None and stop < start:
        raise ConfigError(f"bytes {start} to {stop}: the end is before the start")


def resolve(info: ObjectInfo, start: int, stop: int | None, etag: str | None) -> tuple[int, int]:
    """Return the first byte of a range and the one behind it, for an object as it is.

    Raises:
        ObjectDamaged: the object is shorter than the range, or not the one with this ETag.
    """
    check_range(start, stop)
    if etag is not None and etag != info.etag:
        raise ObjectDamaged(f"{info.key}: its ETag is {info.etag!r}, and should be {etag!r}")
    first = info.size + start if start < 0 else start
    end = info.size if stop is None else stop
    if not 0 <= first <= end <= info.size:
        raise ObjectDamaged(f"{info.key}: it has {info.size} bytes, and no range {start} to {stop}")
    return first, end
