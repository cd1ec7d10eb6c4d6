"""Registered places: which frames of a shuffle a reader wants from this worker, by digest."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from crossdock.errors import PlacesUnknown, ProtocolError
from crossdock.views import ShuffleKey, places_digest
from crossdock.wire.tables import Table, sort_order
from crossdock_worker.rows import Snapshot
from crossdock_worker.shuffle_log import ShuffleLog


@dataclass(frozen=True, slots=True)
class Places:
    """Frames of one shuffle, ready to be read."""

    log: ShuffleLog
    snapshot: Snapshot


class PlacesCache:
    """The places registered last, within a bound of bytes. Readers register evicted ones again.

    Thread-safe.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[tuple[ShuffleKey, str], Places] = OrderedDict()
        self._lock = threading.RLock()

    def register(self, log: ShuffleLog, digest: str, keys: Table) -> Places:
        """Keep places under their digest; the caller has pinned the log.

        Raises:
            ProtocolError: the digest is not that of the keys.
            PlacesUnknown: a frame is not here; the reader resolves anew.
        """
        if places_digest(log.key, keys) != digest:
            raise ProtocolError("the digest is not that of these frames")
        if (sort_order(keys) != np.arange(len(keys))).any() or (keys[1:] == keys[:-1]).any():
            raise ProtocolError("the frames are not sorted by map, attempt and seq, each once")
        with self._lock:
            known = self._entries.get((log.key, digest))
        if known is not None and known.log is log and log.has_all_of(known.snapshot):
            return known
        snapshot, absent = log.snapshot(keys)
        if len(absent):
            map_id, attempt, seq = absent[0].tolist()
            raise PlacesUnknown(
                f"{len(absent)} of these frames are not here, first map {map_id} attempt "
                f"{attempt} frame {seq}"
            )
        places = Places(log, snapshot)
        with self._lock:
            self.forget(log.key, digest)
            self._entries[log.key, digest] = places
            self._bytes += snapshot.rows.nbytes
            while self._bytes > self._max_bytes and len(self._entries) > 1:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.snapshot.rows.nbytes
        return places

    def get(self, log: ShuffleLog, digest: str) -> Places:
        """Return registered places, or raise `PlacesUnknown`; the caller has pinned the log."""
        with self._lock:
            found = self._entries.get((log.key, digest))
            if found is None or found.log is not log:
                raise PlacesUnknown("these places are not registered here")
            if not log.has_all_of(found.snapshot):
                self.forget(log.key, digest)
                raise PlacesUnknown("frames of this shuffle went since these were registered")
            self._entries.move_to_end((log.key, digest))
        return found

    def forget(self, key: ShuffleKey, digest: str | None = None) -> None:
        """Drop one entry of a shuffle, or all."""
        with self._lock:
            for entry in [k for k in self._entries if k[0] == key and digest in {None, k[1]}]:
                self._bytes -= self._entries.pop(entry).snapshot.rows.nbytes

    def forget_job(self, job: str) -> None:
        """Drop everything of a job."""
        with self._lock:
            for key in {k[0] for k in self._entries if k[0].job == job}:
                self.forget(key)
