"""A worker to which all but small segments are too long for one PUT: so uploads are under way.

Only segments: nothing else is ever so long, so nothing else has an intent that tells of an upload.
"""

import sys
from functools import partial
from typing import Any

from crossdock.__main__ import main
from crossdock.store import bodies
from crossdock.store.api import ObjectInfo
from crossdock.store.s3.put import unless_there
from crossdock.store.s3.store import S3Store
from crossdock.store.s3.upload import put_parts

MAX_PUT_BYTES = 16 * 2**10


put_whole = S3Store.put


def put(store: S3Store, key: str, body: Any, **more: Any) -> ObjectInfo:
    source = bodies.as_source(body)
    if "/segments/" not in key or source.nbytes <= MAX_PUT_BYTES:
        return put_whole(store, key, source, **more)
    crc = more.get("crc32c")
    write = partial(put_parts, store._caller, store._threads(), key, source, crc)
    absent = more.get("if_absent", False)
    return unless_there(store._caller, key, write, store._is_conditional, absent)


if __name__ == "__main__":
    S3Store.put = put  # type: ignore[assignment, method-assign]
    sys.argv[0] = "crossdock"
    main()
