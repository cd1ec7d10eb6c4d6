"""Publishing: what many may write and one decides is put if absent, and read where it is there."""

from typing import Final

from crossdock.errors import DataCorrupt
from crossdock.store.api import Store
from crossdock.store.errors import ObjectExists, ObjectMissing, StoreUnsure
from crossdock.store.layout import ShuffleLayout
from crossdock.store.manifest import Manifest
from crossdock.store.objects import read_whole
from crossdock.wire.crc import BytesLike

_TRIES: Final = 3


def put_once(store: Store, key: str, data: bytes) -> BytesLike | None:
    """Write an object unless there is one; return the one that holds, None if it is this.

    Raises:
        StoreUnsure: the store did not tell, again and again.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            store.put(key, data, if_absent=True)
        except ObjectExists:
            break
        except StoreUnsure:
            if _is_there(store, key):
                break
            if not tries_left:
                raise
        else:
            return None
    return read_whole(store, key)


def publish(store: Store, layout: ShuffleLayout, manifest: Manifest) -> bool:
    """Write a manifest unless the view has one; return whether this one holds.

    Two manifests of one view differ only in which segments serve it, and both are right; readers
    shall all use the same, and so the second writer adopts the first's.

    Raises:
        DataCorrupt: what is there is no manifest of this view.
        StoreUnsure: the store did not tell, again and again.
    """
    key, data = layout.manifest(manifest.view), manifest.encode()
    there = put_once(store, key, data)
    if there is None:
        return True
    if Manifest.decode(there, where=key).view != manifest.view:
        raise DataCorrupt(f"{key} is the manifest of another view")
    return there == data


def _is_there(store: Store, key: str) -> bool:
    try:
        with store.get(key, 0, 1):
            return True
    except ObjectMissing:
        return False
