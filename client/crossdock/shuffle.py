"""A shuffle as the client sees it: writers in, views out."""

import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from crossdock import views
from crossdock.errors import (
    NOT_HERE,
    BlocksLost,
    ConfigError,
    CorruptBlock,
    DataCorrupt,
    JobUnknown,
    PlacesUnknown,
    ProtocolError,
    Unavailable,
    WorkersLost,
)
from crossdock.http import Response
from crossdock.retry import patiently
from crossdock.seals import Seals
from crossdock.view import Share, View
from crossdock.views import Resolution, ShuffleKey
from crossdock.wire import crc, names, tables
from crossdock.wire.blocks import COLUMN_BYTES, HEADER_BYTES, BatchHeader, Cursor, PieceColumns
from crossdock.wire.tables import Table
from crossdock.writer import Writer

if TYPE_CHECKING:
    from crossdock.job import Job

Winners = Mapping[int, int] | Iterable[tuple[int, int]]
"""{map: attempt}, or (map, attempt) pairs."""


class Shuffle:
    """One generation of a shuffle. Thread-safe."""

    def __init__(self, job: "Job", key: ShuffleKey, *, partitions: int, maps: int | None) -> None:
        """Use `Job.shuffle`."""
        if not 1 <= partitions <= names.U32_MAX:
            raise ConfigError(f"partitions {partitions} is not between 1 and {names.U32_MAX}")
        if maps is not None:
            names.check_u32("maps", maps)
        self.job = job
        self.key = key
        self.partitions = partitions
        self.maps = maps

    @property
    def path(self) -> str:
        """The shuffle's URL path."""
        return names.shuffle_path(self.key.job, self.key.name, self.key.generation)

    def writer(self, *, map_id: int, attempt: int | None = None, replicas: int = 1) -> Writer:
        """Return a writer for one attempt of one map; use it as a context manager.

        Args:
            map_id: unsigned 32 bits.
            attempt: unsigned 64 bits, unique for each try of the map; default random.
            replicas: how many workers must have a frame before it counts as written.
        """
        if replicas < 1:
            raise ConfigError(f"replicas {replicas} is less than 1")
        number = secrets.randbits(64) if attempt is None else attempt
        return Writer(self, map_id=map_id, attempt=number, replicas=replicas)

    def view(self, winners: Winners | None = None) -> View:
        """Return the immutable view of these winners, or of the seal's choice.

        Args:
            winners: the attempt that won, per map. Without it, the choice among complete
                attempts is made once for all callers, and `maps` must be known.

        Raises:
            BlocksLost: frames of winners are confirmed to be missing; `missing` says which.
            ShuffleIncomplete: without winners, some map has no complete attempt yet.
            SealLost: without winners, all workers that may know the choice are lost.
            Unavailable: workers that may hold frames do not answer until the deadline.
        """
        deadline = self.job.cluster.options.deadline_seconds
        if winners is None:
            table = patiently(Seals(self).choice, deadline_seconds=deadline)
        else:
            table = tables.attempts(winners)
        double = views.check_winners(table)
        if double:
            raise ConfigError(f"map {double[0]} has two winners")
        return patiently(partial(self._view, table), deadline_seconds=deadline)

    def complete_attempts(self, *, since: int = 0) -> dict[int, int]:
        """Return map → attempt of what is complete now; of several, the smallest number.

        What workers have freed is looked up in the store, so this costs it a listing.

        Args:
            since: attempts with lower numbers count for nothing.

        Raises:
            Unavailable: workers that may hold frames do not answer until the deadline.
        """

        def ask() -> dict[int, int]:
            held, away, _ = self.held(None)
            if away:
                raise Unavailable(f"these workers do not answer: {', '.join(sorted(away))}")
            if self.job.may_be_stored():
                held = {**held, **self.job.cluster.tier.holders(self.key).frames}
            found = reversed(views.complete_attempts(held).tolist())
            return {m: attempt for m, attempt in found if attempt >= since}

        return patiently(ask, deadline_seconds=self.job.cluster.options.deadline_seconds)

    def _view(self, winners: Table) -> View:
        resolution = self.resolve(winners)
        shares = self.register(resolution.places(), resolution.frames)
        view_id = views.view_id(self.key, self.partitions, resolution.frames)
        return View(self, view_id, winners, resolution, shares)

    def resolve(self, winners: Table, *, in_store: bool = False) -> Resolution:
        """Ask all workers once who holds the winners' frames, and the store if need be.

        Args:
            winners: a table of `tables.ATTEMPT`.
            in_store: ask the store even if the workers have everything.

        Raises:
            BlocksLost: something is missing, and no worker that may hold it is away.
            Unavailable: something is missing, and some worker does not answer.
        """
        held, away, notes = self.held(winners)
        resolution = views.resolve(held, winners)
        if resolution.missing or in_store:
            stored = self.job.cluster.tier.holders(self.key)
            resolution = views.resolve({**held, **stored.frames}, winners)
            notes += stored.notes
        if resolution.missing:
            away |= self.away_homes()
        if resolution.missing and away:
            raise Unavailable(
                f"{len(resolution.missing)} attempts are not where they can be seen, and these "
                f"workers do not answer: {', '.join(sorted(away))}"
            )
        if resolution.missing:
            raise BlocksLost(views.explained(resolution.missing, notes))
        return resolution

    def away_homes(self) -> set[str]:
        """Return who may hold frames and was never heard of, as far as the job's record says."""
        began = time.monotonic()
        try:
            members = self.job.cluster.members()
            return {f"worker {w}" for w in self.job.away_homes(members, began)}
        except (JobUnknown, WorkersLost):  # nobody is left who could say so
            return set()

    def held(self, winners: Table | None) -> tuple[dict[str, Table], set[str], list[str]]:
        """Return the frames each worker holds, who does not answer, and what is known of losses."""
        cluster = self.job.cluster
        body = b"" if winners is None else tables.encode(winners)

        def call(url: str) -> Table:
            path = f"{self.path}/frames/list"
            with cluster.pool.call("POST", url, path, body=body) as response:
                data = response.read()
                partitions = response.headers.get("crossdock-partitions", "")
                answered = response.headers.get("crossdock-worker", ids[url])
            if answered != ids[url]:
                raise Unavailable(f"another worker answers in the place of {ids[url]}")
            if not (partitions.isascii() and partitions.isdigit()):
                raise ProtocolError(f"{url} lists frames without the header Crossdock-Partitions")
            if partitions != str(self.partitions):
                raise ConfigError(
                    f"shuffle {self.key.name!r} has {partitions} partitions, not {self.partitions}"
                )
            return tables.decode(tables.FRAME, data, what=url)

        try:
            members = cluster.members(fresh=True)
        except WorkersLost as error:
            return {}, set(), [error.message]  # confirmed: nobody is left who could hold it
        except Unavailable as error:
            if not cluster.options.store:
                raise
            return {}, {f"any of them: {error.message}"}, []  # the store may have it all the same
        if winners is not None and not len(winners):
            return {}, set(), []
        ids = {info.url: info.id for info in members.reachable.values()}
        # Who came after the job, or after the shuffle, holds nothing of it; what is damaged on
        # one disk others may have copies of.
        found = cluster.ask_each(members, call, ignore=NOT_HERE, collect=(DataCorrupt,))
        notes = [*members.lost, *(error.message for error in found.collected)]
        return found.answers, found.away, notes

    def register(self, places: Mapping[str, Table], frames: Table) -> list[Share]:
        """Register an assignment of `frames` with its workers.

        Raises:
            Unavailable: one lost frames.
            ProtocolError: one answers totals that are not those of its frames.
        """
        shares = [
            self._stored_share(holder, keys, frames)
            if holder.startswith(views.STORE)
            else self.register_share(holder, keys)
            for holder, keys in places.items()
        ]
        for share in shares:
            share.check_totals(frames)
        return shares

    def _stored_share(self, holder: str, keys: Table, frames: Table) -> Share:
        mine = np.isin(tables.frame_keys(frames).view("V16"), keys.view("V16"))
        stored, statistics = self.job.cluster.tier.share(self.key, holder, frames[mine])
        return Share(holder, "", keys, statistics, stored)

    def register_share(self, worker: str, keys: Table) -> Share:
        """Register what one worker serves, and learn its statistics."""
        cluster = self.job.cluster
        digest = views.places_digest(self.key, keys)
        target = f"{self.path}/places/{digest}"
        try:
            with cluster.pool.call(
                "PUT", cluster.url(worker), target, body=tables.encode(keys)
            ) as response:
                stats = tables.decode(tables.STATISTICS, response.read(), what=target)
                answered = response.headers.get("crossdock-worker", worker)
        except (DataCorrupt, *NOT_HERE) as error:
            raise Unavailable(f"worker {worker} no longer holds what it did: {error}") from error
        if answered != worker:
            raise Unavailable(f"another worker answers in the place of {worker}")
        if len(stats) != self.partitions:
            raise ProtocolError(
                f"worker {worker} answers totals of {len(stats)} partitions, not {self.partitions}"
            )
        return Share(worker, target, keys, stats)

    def fetch_block_sizes(self, share: Share, first: int, last: int) -> Table:
        """Ask a worker once for the size of every block of a partition range of its share."""
        if share.stored is not None:
            return share.stored.block_sizes((first, last))
        cluster = self.job.cluster
        url = cluster.url(share.worker)

        def ask(first: int) -> tuple[Table, int]:
            target = f"{share.target}/sizes?partitions={first}-{last}"
            with cluster.pool.call("GET", url, target) as response:
                through = response.headers.get("crossdock-through", "")
                sizes = tables.decode(tables.BLOCK, response.read(), what=target)
            if not (through.isdecimal() and first < int(through) <= last):
                raise ProtocolError(f"{url}: sizes from {first} on went through {through!r}")
            if ((sizes["partition"] < first) | (sizes["partition"] >= int(through))).any():
                raise ProtocolError(f"worker {share.worker} answers sizes of other partitions")
            return sizes, int(through)

        parts = []
        while first < last:
            try:
                part, first = ask(first)
            except PlacesUnknown:  # a worker forgets places when it starts again
                self.register_share(share.worker, share.keys)
                part, first = ask(first)
            parts.append(part)
        return np.concatenate(parts) if parts else np.empty(0, tables.BLOCK)

    def fetch_first_piece(
        self, share: Share, partition: int, map_id: int
    ) -> tuple[Cursor, memoryview] | None:
        """Ask a worker once for the first piece of a block that its share has, if it has one.

        Raises:
            CorruptBlock: the piece fails its checksum.
        """
        if share.stored is not None:
            return share.stored.first_piece(partition, map_id)
        cluster = self.job.cluster
        url = cluster.url(share.worker)
        query = f"partitions={partition}&maps={map_id}&max_bytes=1"  # a batch has one at least
        with cluster.pool.call("GET", url, f"{share.target}/blocks?{query}") as response:
            header = BatchHeader.decode(_received(response, HEADER_BYTES))
            index = _received(response, header.pieces * COLUMN_BYTES)
            data = _received(response, header.payload_bytes)
        if crc.extend(0, index) != header.columns_crc:
            raise Unavailable(f"{url}: the index of a batch fails its checksum")
        if not header.pieces:
            return None
        columns = PieceColumns.decode(header.pieces, index)
        first = data[: int(columns.length[0])]
        if crc.extend(0, first) != int(columns.crc[0]):
            why = f"{url}: first piece of map {map_id} partition {partition} fails its checksum"
            frame = (map_id, int(columns.attempt[0]), int(columns.seq[0]))
            raise CorruptBlock(why, frames={frame: why})
        return columns.cursor_behind(0), first

    def release(self) -> None:
        """Drop this generation and all before it, everywhere, for good.

        What it has in the store the workers delete by themselves, once it has settled.

        Raises:
            Unavailable: some worker does not answer; call again.
        """
        cluster = self.job.cluster
        known = self.job.released.get(self.key.name, 0)
        self.job.released[self.key.name] = max(known, self.key.generation + 1)

        def drop(url: str) -> None:
            path = f"{self.path}?epoch={self.job.epoch}"
            with cluster.pool.call("DELETE", url, path) as response:
                response.read()

        def call(url: str) -> None:
            # One where the job's files are damaged takes and serves nothing of it; others tell it.
            with suppress(DataCorrupt):
                self.job.ask(url, partial(drop, url))  # who came later must refuse late frames too

        patiently(partial(cluster.on_all, call), deadline_seconds=cluster.options.deadline_seconds)


def _received(response: Response, nbytes: int) -> memoryview:
    """Return the next bytes of an answer."""
    data = memoryview(bytearray(nbytes))
    response.read_into(data)
    return data
