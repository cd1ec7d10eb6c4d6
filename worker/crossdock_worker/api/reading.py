"""Listings, places, blocks and views."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import numpy as np
from aiohttp import web

from crossdock import views
from crossdock.errors import AttemptsElsewhere, ProtocolError
from crossdock.wire import names, tables
from crossdock.wire.blocks import Cursor
from crossdock.wire.names import U32_MAX
from crossdock_worker import selection, serve
from crossdock_worker.api.context import (
    WORKER,
    binary,
    in_pool,
    query_int,
    read_json,
    read_table,
    target,
)
from crossdock_worker.front import Front, front_of
from crossdock_worker.serve import Answer
from crossdock_worker.shuffle_log import ShuffleLog, Snapshot
from crossdock_worker.view_service import view_json

_SMALL_BYTES: Final = 64 * 1024


async def list_frames(request: web.Request) -> web.Response:
    """Answer the frames held, of the attempts in the body, or of all without a body."""
    worker = request.app[WORKER]
    job, name, generation = target(request)
    wanted = await read_table(request, tables.ATTEMPT) if request.can_read_body else None
    shuffle = job.shuffle(name, generation)
    frames = await in_pool(worker, partial(shuffle.frames, wanted))
    return binary(tables.encode(frames), partitions=shuffle.partitions, worker=worker)


async def put_places(request: web.Request) -> web.Response:
    """Register the frames a reader wants from here; answers their statistics."""
    worker = request.app[WORKER]
    job, name, generation = target(request)
    keys = await read_table(request, tables.FRAME_KEY)
    shuffle = job.shuffle(name, generation)
    digest = request.match_info["digest"]
    places = await in_pool(worker, partial(worker.places.register, shuffle, digest, keys))
    stats = await in_pool(
        worker, partial(selection.statistics, places.snapshot, shuffle.partitions)
    )
    return binary(tables.encode(stats), partitions=shuffle.partitions, worker=worker)


async def read_places(request: web.Request) -> web.StreamResponse:
    """Answer one batch of registered places."""
    job, name, generation = target(request)
    shuffle = job.shuffle(name, generation)
    places = request.app[WORKER].places.get(shuffle, request.match_info["digest"])
    return await _read(request, shuffle, places.snapshot)


async def read_attempts(request: web.Request) -> web.StreamResponse:
    """Answer one batch of the attempts in the body; nothing is stored for it.

    Unless `partial=true`, all frames of these attempts must be here.
    """
    worker = request.app[WORKER]
    job, name, generation = target(request)
    attempts = await read_table(request, tables.ATTEMPT)
    shuffle = job.shuffle(name, generation)

    def collect() -> Snapshot:
        held = shuffle.frames(attempts)
        resolution = views.resolve({worker.identity.id: held}, attempts)
        if resolution.missing and request.query.get("partial") != "true":
            raise AttemptsElsewhere(
                resolution.missing,
                message=f"{len(resolution.missing)} attempts are not whole on this worker",
            )
        return shuffle.snapshot(tables.frame_keys(resolution.frames))[0]

    return await _read(request, shuffle, await in_pool(worker, collect))


async def _read(
    request: web.Request, shuffle: ShuffleLog, snapshot: Snapshot
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

    def plan() -> Answer:
        chosen = selection.select(
            snapshot, partitions=partitions, maps=maps, cursor=cursor, max_bytes=max_bytes
        )
        payload_bytes = int(chosen.columns.length.sum(dtype=np.int64))
        if skip > payload_bytes:
            raise ProtocolError(f"skip={skip} is more than the batch has")
        worker.metrics.served_bytes.inc(payload_bytes - skip)
        worker.metrics.served_pieces.inc(len(chosen.columns.length))
        payload_fd = shuffle.payload_fd if front is not None else None
        return serve.batch(chosen, snapshot.payload, skip=skip, payload_fd=payload_fd)

    return await _send(request, front, plan, room=max_bytes)


async def _send(
    request: web.Request, front: Front | None, plan: Callable[[], Answer], *, room: int
) -> web.StreamResponse:
    """Answer with what `plan` makes, which takes at most about `room` bytes of memory."""
    worker = request.app[WORKER]
    async with AsyncExitStack() as held:
        await held.enter_async_context(worker.admission.answer(room))

        async def on_wait(answer: Answer) -> None:
            # What goes from the log to the socket holds no memory, however slow its reader is.
            if answer.memory_bytes <= _SMALL_BYTES:
                await held.aclose()

        return await serve.send(
            request,
            front,
            plan,
            pool=worker.pool,
            stall_seconds=worker.settings.limits.stall_seconds,
            on_wait=on_wait,
        )


async def block_sizes(request: web.Request) -> web.Response:
    """Answer the size of every block of registered places, for a partition range."""
    worker = request.app[WORKER]
    job, name, generation = target(request)
    shuffle = job.shuffle(name, generation)
    places = worker.places.get(shuffle, request.match_info["digest"])
    wanted = names.parse_range(
        request.query.get("partitions", ""), kind="partitions", top=shuffle.partitions
    )
    sizes = await in_pool(worker, partial(selection.block_sizes, places.snapshot, wanted))
    return binary(tables.encode(sizes), worker=worker)


async def make_view(request: web.Request) -> web.Response:
    """Make a view over this worker and its peers, for clients that do not merge themselves."""
    worker = request.app[WORKER]
    job, name, generation = target(request)
    key = views.ShuffleKey(job.uid, name, generation)
    loop = asyncio.get_running_loop()
    work = partial(
        view_json, worker, key, await read_json(request), request.headers.get("Authorization", "")
    )
    return web.json_response(await loop.run_in_executor(worker.view_pool, work))
