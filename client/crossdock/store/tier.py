"""The store as the last place where frames of a shuffle are looked for, after all workers."""

import threading
from contextlib import suppress

from crossdock.options import Options
from crossdock.store import manifest
from crossdock.store.api import ObjectInfo, StoreOptions
from crossdock.store.errors import ObjectMissing
from crossdock.store.frames import StoredFrames
from crossdock.store.layout import ShuffleLayout, run_of
from crossdock.store.logs import read_record
from crossdock.store.opening import open_store
from crossdock.store.records import Record
from crossdock.store.stream import Access
from crossdock.views import STORE, ShuffleKey
from crossdock.wire.tables import Table


class StoreTier:
    """What persist runs have brought into the store, by shuffle. Thread-safe.

    Nothing is asked of the store before a frame is nowhere else.
    """

    def __init__(self, options: Options, store_options: StoreOptions | None) -> None:
        """Args: `options.store` "" means that there is none."""
        self._options = options
        self._store_options = store_options or StoreOptions()
        self._lock = threading.Lock()
        self._access: Access | None = None
        self._records: dict[str, Record] = {}

    def holders(self, key: ShuffleKey) -> dict[str, Table]:
        """Return the frames of a shuffle that lie in the store, by the name of their holder.

        Raises:
            ConfigError: the store's extra is not installed, or its URL is wrong.
            StoreDenied: the credentials do not open it.
            StoreUnavailable: it does not answer until the deadline.
        """
        if not self._options.store:
            return {}
        access = self._opened()
        layout = ShuffleLayout.of(self._options.store_cluster, key)
        found = {}
        for info in access.store.list(layout.records):
            with suppress(ObjectMissing):  # the shuffle is being released
                record = self._record(access, info)
                found[f"{STORE}{record.run}"] = record.frames
        return found

    def share(self, key: ShuffleKey, holder: str, frames: Table) -> tuple[StoredFrames, Table]:
        """Return how frames of a holder are read, and their `tables.STATISTICS`[P]."""
        record = self.record(holder)
        made = manifest.assemble(key, frames, record.statistics, [record])
        stored = StoredFrames(self._opened(), made)
        if len(frames) == len(record.frames):
            return stored, record.statistics
        return stored, stored.statistics()

    def record(self, holder: str) -> Record:
        """Return the record of a holder that `holders` has named."""
        with self._lock:
            return self._records[holder.removeprefix(STORE)]

    def _record(self, access: Access, info: ObjectInfo) -> Record:
        run = run_of(info.key)
        with self._lock:
            known = self._records.get(run)
        if known is None:
            known = read_record(access.store, info)
            with self._lock:
                self._records[run] = known
        return known

    def _opened(self) -> Access:
        with self._lock:
            if self._access is None:
                store = open_store(self._options.store, self._store_options)
                self._access = Access.to(store, self._options)
            return self._access

    def close(self) -> None:
        """Wait for what is under way. Idempotent."""
        with self._lock:
            access, self._access = self._access, None
        if access is not None:
            access.close()
