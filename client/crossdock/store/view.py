"""A view read straight from the store, with no worker at all."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from crossdock.blocks import Block, BlockBatch
from crossdock.merging import Merge
from crossdock.options import Options
from crossdock.statistics import ReadStatistics
from crossdock.store.access import Access
from crossdock.store.api import Store, StoreOptions
from crossdock.store.errors import ObjectMissing
from crossdock.store.frames import ALL_MAPS, StoredFrames
from crossdock.store.layout import DEFAULT_CLUSTER, ShuffleLayout
from crossdock.store.manifest import Manifest
from crossdock.store.objects import read_whole
from crossdock.store.opening import open_store
from crossdock.store.stream import RunStream
from crossdock.sums import Delivered, Promise
from crossdock.views import ShuffleKey, check_range
from crossdock.wire.names import U32_MAX

U64 = npt.NDArray[np.uint64]


def open_view(
    store_url: str,
    job: str,
    shuffle: str,
    view: str,
    *,
    generation: int = 0,
    cluster: str = DEFAULT_CLUSTER,
    options: Options | None = None,
    store_options: StoreOptions | None = None,
) -> "StoreView":
    """Open a persisted view; needs no worker. Use it as a context manager, or close it.

    Args:
        store_url: what the workers' `--store` says.
        job: its uid.
        shuffle: its name.
        view: its id.
        generation: of the shuffle.
        cluster: what the workers' `--cluster` says.
        options: of reading.
        store_options: of the store.

    Raises:
        ObjectMissing: no such view was published, or it was deleted.
        StoreDenied: the credentials do not open the store.
        StoreUnavailable: the store does not answer until the deadline.
    """
    layout = ShuffleLayout.of(cluster, ShuffleKey(job, shuffle, generation))
    store = open_store(store_url, store_options or StoreOptions())
    key = layout.manifest(view)
    try:
        manifest = Manifest.decode(read_whole(store, key), where=key)
    except ObjectMissing as error:
        store.close()
        raise ObjectMissing(
            f"view {view} of shuffle {shuffle!r} of job {job} is not in {store.url}: it was not "
            "published, or it was deleted",
            hint="view.persist() publishes it; are cluster and generation right?",
        ) from error
    except BaseException:
        store.close()
        raise
    return StoreView(store, manifest, options or Options())


class StoreView:
    """Winning attempts of a shuffle, read from the store. Thread-safe."""

    def __init__(self, store: Store, manifest: Manifest, options: Options) -> None:
        """Use `open_view`."""
        self.id = manifest.view
        """Digest of the shuffle, P, and the winners' frames: the same for everybody."""
        self.partitions = manifest.partitions
        self.winners = manifest.winners
        self.bytes: U64 = manifest.statistics["bytes"].astype(np.uint64)
        """u64[P], bytes per partition."""
        self.rows: U64 = manifest.statistics["rows"].astype(np.uint64)
        """u64[P], rows per partition, as the writers said."""
        self.blocks: npt.NDArray[np.uint32] = manifest.statistics["blocks"].astype(np.uint32)
        """u32[P], blocks per partition: how many maps have data there."""
        self.manifest = manifest
        """What is published of it."""
        self._access = Access.to(store, options)
        self._frames = StoredFrames(self._access, manifest)

    def read(
        self, partitions: range | int | None = None, maps: range | None = None
    ) -> Iterator[Block]:
        """Yield the blocks of a partition range, by (partition, map), each whole and verified.

        Args:
            partitions: a contiguous range, one partition, or None for all.
            maps: a contiguous range of map ids, or None for all.

        Raises:
            BlocksLost: a segment is gone; exactly the attempts with pieces in it are named.
            CorruptBlock: a piece is damaged in the store; object, offset and piece are named.
            StoreUnavailable: the store does not answer until the deadline.
        """
        for batch in self.read_batches(partitions, maps):
            yield from batch

    def read_batches(
        self, partitions: range | int | None = None, maps: range | None = None
    ) -> Iterator[BlockBatch]:
        """Yield the same blocks many at a time, as arrays over one buffer."""
        if isinstance(partitions, int):
            partitions = range(partitions, partitions + 1)
        whole = range(self.partitions)
        chosen = check_range("partitions", whole if partitions is None else partitions, len(whole))
        of_maps = ALL_MAPS if maps is None else check_range("maps", maps, U32_MAX + 1)
        return self._read(chosen, of_maps)

    def _read(self, partitions: tuple[int, int], maps: tuple[int, int]) -> Iterator[BlockBatch]:
        promise = self._promise(partitions, maps)
        delivered = None if promise is None else Delivered(promise)
        merge = Merge(self._frames.streams(partitions, maps), RunStream.advance)
        streams = list(merge.streams)
        try:
            for stream in streams:
                stream.prefetch()
            while merge.streams:
                for batch in merge.round():
                    if delivered is not None:
                        delivered.add(batch)
                    yield batch
        finally:
            for stream in streams:
                stream.cancel()
        if delivered is not None:
            delivered.check(f"view {self.id}")

    def _promise(self, partitions: tuple[int, int], maps: tuple[int, int]) -> Promise | None:
        """Say what must come. Of some maps in some partitions only the index knows."""
        if maps == ALL_MAPS:
            return Promise.of_statistics([self.manifest.statistics], *partitions)
        if partitions == (0, self.partitions):
            frames = self.manifest.frames
            return Promise.of_frames(frames[(frames["map"] >= maps[0]) & (frames["map"] < maps[1])])
        return None

    def statistics(self) -> ReadStatistics:
        """Return what was read so far, by tier; all of it comes from the store."""
        return self._access.meter.statistics()

    def close(self) -> None:
        """Wait for what is under way, and close the connections. Idempotent."""
        self._access.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        key = self.manifest.shuffle
        return (
            f"<StoreView {self.id[:12]} of {key.job}/{key.name}/{key.generation}: "
            f"{self.partitions} partitions, {int(self.bytes.sum())} bytes>"
        )
