"""Publishing: what many may write and one decides is put if absent, and read where it is there."""

from typing import Final

from crossdock.errors import DataCorrupt
from crossdock.store.api import Store
from crossdock.store.errors import ObjectExists, ObjectMissing, StoreUnsure
from crossdock.store.layout import ShuffleLayout
from crossdock.store.manifest import Manifest
from crossdock.store.objects import Whole, read_object
from crossdock.wire.crc import BytesLike

_TRIES: Final = 3


def put_once(store: Store, key: str, data: bytes) -> BytesLike | None:
    """Write an object unless there is one; return the one that holds, None if it is this.

    Raises:
        StoreUnsure: the store did not tell, again and again.
    """
    there = _put_or_read(store, key, data)
    return None if there is None else there.data


def publish(store: Store, layout: ShuffleLayout, manifest: Manifest) -> bool:
    """Write a manifest unless the view has one that can be read; return whether this one holds.

    Two manifests of one view differ only in which segments serve it, and both are right; readers
    shall all use the same, and so the second writer adopts the first's. But one that names a
    segment which is gone would fail its readers for ever: it is replaced, if it still is the one
    that was looked at.

    Raises:
        DataCorrupt: what is there is no manifest of this view.
        StoreUnsure: the store did not tell, again and again.
    """
    key, data = layout.manifest(manifest.view), manifest.encode()
    for tries_left in reversed(range(_TRIES)):
        there = _put_or_read(store, key, data)
        if there is None:
            return True
        held = Manifest.decode(there.data, where=key)
        if held.view != manifest.view:
            raise DataCorrupt(f"{key} is the manifest of another view")
        if there.data == data:
            return True
        if not _is_outdated(store, layout, held, manifest):
            return False
        try:
            store.put(key, data, if_match=there.info.etag)
        except (ObjectExists, ObjectMissing):  # somebody else was quicker: look at theirs
            continue
        except StoreUnsure:
            if not tries_left:
                raise
        else:
            return True
    return False


def _is_outdated(store: Store, layout: ShuffleLayout, held: Manifest, fresh: Manifest) -> bool:
    """Whether a manifest lacks a segment, and another one of its view lacks none."""
    sizes = {info.key: info.size for info in store.list(layout.all_segments)}

    def is_whole(manifest: Manifest) -> bool:
        return all(sizes.get(each.key) == each.nbytes for each in manifest.segments)

    return not is_whole(held) and is_whole(fresh)


def _put_or_read(store: Store, key: str, data: bytes) -> Whole | None:
    """Write an object unless there is one; return what is there, None if it is this."""
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
    return read_object(store, key)


def _is_there(store: Store, key: str) -> bool:
    try:
        with store.get(key, 0, 1):
            return True
    except ObjectMissing:
        return False
