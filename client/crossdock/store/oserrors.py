"""What the operating system says of a file, as errors of a store."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from crossdock.errors import ConfigError
from crossdock.store.errors import ObjectMissing, StoreDenied, StoreUnavailable

NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""How a file system says that it has no hard links."""

_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})


@contextmanager
def as_store_error(key: str, *, writing: bool = False) -> Iterator[None]:
    """Raise an error of `crossdock.store.errors` for each `OSError` inside.

    A file where a folder must be, or the other way round, is a missing object to readers. To
    writers it is two keys of which one lies within the other, which no directory can hold.
    """
    try:
        yield
    except OSError as problem:
        found = problem.errno
        if found in _DENIED:
            raise StoreDenied(f"{key}: {problem}") from problem
        if found in _FULL:
            raise StoreUnavailable(
                f"{key}: {problem}", hint="free space, or let the store use another disk"
            ) from problem
        if found in _ABSENT and not writing:
            raise ObjectMissing(f"{key}: there is no such object") from problem
        if found in {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}:
            raise ConfigError(
                f"{key}: it and another key lie one within the other",
                hint="a directory cannot hold both; choose other keys, or an object store",
            ) from problem
        raise StoreUnavailable(f"{key}: {problem}") from problem
