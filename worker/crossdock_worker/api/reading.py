"""Listings, places, blocks and views."""

import asyncio
import functools
import json
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from types import MappingProxyType
from typing import Final

import numpy as np
from aiohttp import web

from crossdock import views
from crossdock.errors import AttemptsElsewhere, CrossdockError, ProtocolError
from crossdock.store.layout import record_within
from crossdock.wire import names, tables
from crossdock.wire.blocks import Cursor
from crossdock.wire.names import U32_MAX
from crossdock.wire.tables import Table
from crossdock_worker import selection, serve
from crossdock_worker.api.context import (
    MAX_BODY_BYTES,
    MAX_WISH_BYTES,
    WORKER,
    held_body,
    held_table,
    in_pool,
    parse_json,
    query_int,
    send,
    target,
)
from crossdock_worker.api.pinning import Read, pinned
from crossdock_worker.attempts import with_frames
from crossdock_worker.front import front_of
from crossdock_worker.rows import Snapshot
from crossdock_worker.serve import Answer
from crossdock_worker.shuffle_log import ShuffleLog
from crossdock_worker.view_service import view_json
from crossdock_worker.worker import Worker

_STATISTICS_BYTES: Final = 60
"""Memory that statistics take for a partition, sums on the way included."""
_MOST_ATTEMPTS: Final = 1_000_000
"""Of one read without places: finding their frames takes some 200 bytes of memory for each."""
_MOST_NAMED: Final = 10_000
"""Of attempts that are not here, in one answer."""
_NO_HEADERS: Final = MappingProxyType[str, str]({})


async def list_frames(request: web.Request) -> web.StreamResponse:
    """Answer the frames held, of the attempts in the body, or of all without a body."""
    job, name, generation = target(request)
    async with AsyncExitStack() as held:
        wanted = None
        if request.can_read_body:
            wanted = await held.enter_async_context(held_table(request, tables.ATTEMPT))
        shuffle = job.shuffle(name, generation)

        def plan() -> Answer:
            return _table(request, shuffle, shuffle.frames(wanted))

        return await send(request, plan, room=shuffle.counts[0] * tables.FRAME.itemsize)


async def put_places(request: web.Request) -> web.StreamResponse:
    """Register the frames a reader wants from here; answers their statistics."""
    worker = request.app[WORKER]
    job, name, generation = target(request)
    digest = request.match_info["digest"]
    async with held_table(request, tables.FRAME_KEY) as keys:
        shuffle = job.shuffle(name, generation)

        def plan() -> Answer:
            places = worker.places.register(shuffle, digest, keys)
            shuffle.check_maps(places.snapshot)
            shuffle.check_columns(places.snapshot)
            statistics = selection.statistics(places.snapshot, shuffle.partitions)
            return _table(request, shuffle, statistics)

        with pinned(request, shuffle):
            return await send(request, plan, room=_STATISTICS_BYTES * shuffle.partitions)


async def read_places(request: web.Request) -> web.StreamResponse:
    """Answer one batch of registered places."""
    job, name, generation = target(request)
    shuffle = job.shuffle(name, generation)
    with pinned(request, shuffle) as read:
        places = request.app[WORKER].places.get(shuffle, request.match_info["digest"])
        return await _read(request, shuffle, places.snapshot, read)


async def read_attempts(request: web.Request) -> web.StreamResponse:
    """Answer one batch of the attempts in the body; nothing is stored for it.

    Unless `partial=true`, all frames of these attempts must be here.
    """
    worker = request.app[WORKER]
    job, name, generation = target(request)
    asked = (request.content_length or 0) // tables.ATTEMPT.itemsize
    if _MOST_ATTEMPTS < asked <= MAX_BODY_BYTES // tables.ATTEMPT.itemsize:  # beyond it: 413
        raise ProtocolError(
            f"{asked} attempts are asked for at once, at most {_MOST_ATTEMPTS} can be",
            hint="register places, which are asked for by their digest",
        )
    with ExitStack() as stack:
        async with held_table(request, tables.ATTEMPT) as attempts:
            shuffle = job.shuffle(name, generation)
            read = stack.enter_context(pinned(request, shuffle))
            partial = request.query.get("partial") == "true"
            collect = functools.partial(_collect, worker, shuffle, attempts, partial=partial)
            snapshot = await in_pool(worker, collect)
        return await _read(request, shuffle, snapshot, read)


def _collect(worker: Worker, shuffle: ShuffleLog, attempts: Table, *, partial: bool) -> Snapshot:
    """Return the frames of these attempts that are here; raises `AttemptsElsewhere`."""
    held = shuffle.frames(attempts)
    here = with_frames(attempts, held)
    absent = attempts[~here]
    some = np.concatenate((attempts[here], absent[:_MOST_NAMED]))
    resolution = views.resolve({worker.identity.id: held}, some)
    count = len(resolution.missing) + len(absent[_MOST_NAMED:])
    if count and not partial:
        more = f"; {_MOST_NAMED} of them are named" if count > _MOST_NAMED else ""
        named = tables.attempts((m.map_id, m.attempt) for m in resolution.missing)
        records = _records_of(shuffle, np.concatenate((named, absent[_MOST_NAMED:])))
        also = "; the records of this worker's runs say what of them the store has"
        raise AttemptsElsewhere(
            sorted(resolution.missing)[:_MOST_NAMED],
            message=f"{count} attempts are not whole on this worker{more}{also if records else ''}",
            records=records,
        )
    return shuffle.snapshot(tables.frame_keys(resolution.frames))[0]


def _records_of(shuffle: ShuffleLog, attempts: Table) -> list[str]:
    """Return the keys, within the shuffle, of records that name frames of these attempts."""
    runs = shuffle.runs.finished()
    return [record_within(r.run) for r in runs if with_frames(attempts, r.frames).any()]


async def _read(
    request: web.Request, shuffle: ShuffleLog, snapshot: Snapshot, read: Read
) -> web.StreamResponse:
    worker, query = request.app[WORKER], request.query
    limits = worker.settings.limits
    partitions = names.parse_range(
        query.get("partitions", f"0-{shuffle.partitions}"),
        kind="partitions",
        top=shuffle.partitions,
    )
    maps = names.parse_range(query.get("maps", f"0-{U32_MAX + 1}"), kind="maps", top=U32_MAX + 1)
    cursor = Cursor.parse(query["cursor"]) if "cursor" in query else None
    bound = query_int(request, "max_bytes", limits.read_batch_bytes)
    max_bytes = max(1, min(bound, limits.read_batch_bytes))
    skip = query_int(request, "skip", 0)
    front = front_of(request)

    def damaged(file: int, offset: int) -> CrossdockError:
        return shuffle.note_damage(shuffle.payload.files[file], offset)

    def plan() -> Answer:
        began = time.monotonic()
        shuffle.check_maps(snapshot)
        chosen = selection.select(
            snapshot, partitions=partitions, maps=maps, cursor=cursor, max_bytes=max_bytes
        )
        payload_bytes = int(chosen.columns.length.sum(dtype=np.int64))
        if skip > payload_bytes:
            raise ProtocolError(f"skip={skip} is more than the batch has")
        direct = front is not None and front.direct
        answer = serve.batch(
            chosen,
            snapshot.payload,
            skip=skip,
            descriptors=shuffle.payload_descriptors if direct else None,
            damaged=damaged,
        )
        read.from_file = answer.runs is not None
        worker.metrics.served("disk", payload_bytes - skip, time.monotonic() - began)
        worker.metrics.served_pieces.inc(len(chosen.columns.length))
        return answer

    return await send(request, plan, room=selection.answer_bytes(snapshot, max_bytes))


async def block_sizes(request: web.Request) -> web.StreamResponse:
    """Answer the sizes of the blocks of registered places, partition by partition."""
    worker = request.app[WORKER]
    job, name, generation = target(request)
    shuffle = job.shuffle(name, generation)
    wanted = names.parse_range(
        request.query.get("partitions", ""), kind="partitions", top=shuffle.partitions
    )
    room = worker.settings.limits.read_batch_bytes

    def plan() -> Answer:
        places = worker.places.get(shuffle, request.match_info["digest"])
        shuffle.check_maps(places.snapshot)
        sizes, through = selection.block_sizes(
            places.snapshot, wanted, max_blocks=max(1, room // tables.BLOCK.itemsize)
        )
        return _table(request, shuffle, sizes, {"Crossdock-Through": str(through)})

    with pinned(request, shuffle):
        return await send(request, plan, room=room)


def _table(
    request: web.Request,
    shuffle: ShuffleLog,
    table: Table,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> Answer:
    """Return an answer that is a table of a shuffle on this worker."""
    own = {
        "Crossdock-Partitions": str(shuffle.partitions),
        "Crossdock-Worker": request.app[WORKER].identity.id,
    }
    return Answer([tables.encode(table)], headers={**own, **headers})


async def make_view(request: web.Request) -> web.StreamResponse:
    """Make a view over this worker and its peers, for clients that do not merge themselves."""
    worker = request.app[WORKER]
    job, name, generation = target(request)
    key = views.ShuffleKey(job.uid, name, generation)
    access = request.headers.get("Authorization", "")
    loop = asyncio.get_running_loop()
    async with held_body(request, most_bytes=MAX_WISH_BYTES) as body, worker.admission.view():

        def make() -> bytes:
            return json.dumps(view_json(worker, key, parse_json(body), access)).encode()

        view = await loop.run_in_executor(worker.view_pool, make)
        answer = Answer([view], content_type="application/json")
        return await send(request, lambda: answer, room=len(view))
