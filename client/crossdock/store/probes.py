"""What is left of finding out what a store can do, by processes that were killed meanwhile.

It lies below a folder of its own, which belongs to no job and no cluster. Workers look there when
they start, and so does an audit that deletes.
"""

from datetime import datetime, timedelta
from typing import Final

from crossdock.store.api import Store

FOLDER: Final = ".crossdock-probe/"
UPLOAD: Final = f"{FOLDER}upload"
"""The key of all uploads of probes: where uploads cannot be listed by prefix, one that a killed
process has left is found by its key alone. None is ever completed."""
OLD: Final = timedelta(minutes=15)
"""No probe takes so long, with all that is tried again."""


def clear_old_probes(store: Store, *, older: timedelta = OLD) -> int:
    """Delete what is there and too old for a probe under way; return how many things.

    Ages are the store's own. Two requests if there is nothing.

    Raises:
        CrossdockError: the store is away, or refuses; who looks next tries again.
    """
    objects = list(store.list(FOLDER))
    can = store.capabilities
    place = FOLDER if can.lists_uploads else UPLOAD
    uploads = list(store.uploads(place)) if can.has_uploads or can.lists_uploads else []
    now = store.now() if objects or uploads else None
    if now is None:
        return 0

    def is_old(since: datetime | None) -> bool:
        return since is not None and now - since > older

    keys = [found.key for found in objects if is_old(found.modified)]
    begun = [found for found in uploads if is_old(found.initiated)]
    store.delete(keys)
    for upload in begun:
        store.abort(upload)
    return len(keys) + len(begun)
