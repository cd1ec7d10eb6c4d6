"""A store, and what reading it takes; shared by all that is read from there."""

from dataclasses import dataclass

from crossdock.buffers import Buffers
from crossdock.cancel import Cancel
from crossdock.options import Options
from crossdock.statistics import ReadMeter
from crossdock.store.api import ReadableStore
from crossdock.store.cache import Cache
from crossdock.store.hedging import Hedging
from crossdock.store.records import Record
from crossdock.threads import Threads
from crossdock.wire.blocks import PieceColumns


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """A store for readers. Thread-safe."""

    store: ReadableStore
    options: Options
    buffers: Buffers
    threads: Threads
    """One for each range that is waited for."""
    receivers: Threads
    """These receive: of a range that is asked for twice, two."""
    hedging: Hedging
    meter: ReadMeter
    records: Cache[str, Record]
    """By key."""
    heads: Cache[tuple[str, int], PieceColumns]
    """The index of batches, by segment and offset."""
    cancel: Cancel

    @classmethod
    def to(
        cls, store: ReadableStore, options: Options, *, meter: ReadMeter | None = None
    ) -> "Access":
        """Make threads, buffers and caches of its own for a store."""
        count = options.store_threads
        return cls(
            store,
            options,
            Buffers(options.read_ahead_bytes),
            Threads(count, thread_name_prefix="crossdock-store"),
            Threads(2 * count, thread_name_prefix="crossdock-receive"),
            Hedging(options.store_hedge_seconds, at_once=count),
            meter or ReadMeter(),
            Cache(options.store_cache_bytes // 2),
            Cache(options.store_cache_bytes // 2),
            Cancel("the store was closed"),
        )

    def close(self) -> None:
        """End what is under way, and close the store. Idempotent."""
        self.cancel.set()
        self.threads.close()
        # Not waited for: S3's library cannot be told to stop waiting for the head of an answer.
        self.receivers.shutdown(wait=False, cancel_futures=True)
        self.buffers.clear()
        self.store.close()
