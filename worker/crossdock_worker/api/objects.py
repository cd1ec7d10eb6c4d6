"""A shuffle's objects in the store, for who has a token and no credentials of the store."""

import time
from contextlib import AsyncExitStack
from http import HTTPStatus

from aiohttp import web

from crossdock.errors import ConfigError, ProtocolError
from crossdock.store.errors import NoStore
from crossdock.store.keys import check_key, check_prefix
from crossdock.views import ShuffleKey
from crossdock_worker import serve
from crossdock_worker.api.context import WORKER, target
from crossdock_worker.serve import Answer
from crossdock_worker.through import PAGE_OBJECTS, ReadThrough, parse_range_header

_ENTRY_BYTES = 1024
"""Memory that an object takes in a listing: its key, three times over."""


def _shuffle(request: web.Request) -> tuple[ReadThrough, str]:
    """Return what reads the store, and the beginning of all keys of the shuffle."""
    worker = request.app[WORKER]
    job, name, generation = target(request)
    job.check_released(name, generation)
    if worker.through is None or worker.persister is None:
        raise NoStore("this worker has no store")
    layout = worker.persister.layout(ShuffleKey(job.uid, name, generation))
    return worker.through, layout.prefix


async def list_objects(request: web.Request) -> web.StreamResponse:
    """Answer keys, sizes and ETags of a shuffle's objects, a page at a time."""
    through, head = _shuffle(request)
    after = request.query.get("after", "")
    try:
        prefix = check_prefix(head + request.query.get("prefix", ""))
        behind = head + check_key(after) if after else ""
    except ConfigError as error:
        raise ProtocolError(error.message) from error
    worker = request.app[WORKER]
    async with through.turn(), worker.admission.answer(PAGE_OBJECTS * _ENTRY_BYTES):
        found, more = await through.page(prefix, behind)
    rows = [[info.key.removeprefix(head), info.size, info.etag] for info in found]
    return web.json_response({"objects": rows, "more": more})


async def get_object(request: web.Request) -> web.StreamResponse:
    """Answer a range of an object, or the beginning of it."""
    worker = request.app[WORKER]
    through, head = _shuffle(request)
    try:
        key = check_key(head + check_key(request.match_info["key"]))
    except ConfigError as error:
        raise ProtocolError(error.message) from error
    start, stop = parse_range_header(request.headers.get("Range", ""))
    etag = request.headers.get("If-Match", "").strip('"') or None
    room = through.most_bytes if stop is None else min(through.most_bytes, stop - start)
    async with AsyncExitStack() as held:
        async with through.turn():
            await held.enter_async_context(worker.admission.answer(room))
            began = time.monotonic()
            piece = await through.piece(key, start, stop, etag)
        worker.metrics.served("store", len(piece.data), time.monotonic() - began)
        last = piece.start + len(piece.data) - 1
        answer = Answer(
            [piece.data],
            status=HTTPStatus.PARTIAL_CONTENT,
            headers={
                "Content-Range": f"bytes {piece.start}-{last}/{piece.info.size}",
                "ETag": f'"{piece.info.etag}"',
                "Crossdock-Worker": worker.identity.id,
            },
        )
        return await serve.send(
            request,
            lambda: answer,
            pool=worker.pool,
            patience=worker.settings.limits.patience(),
            on_wait=_keep_room,
        )


async def _keep_room(_answer: Answer) -> None:
    """Hold the room as long as the reader takes: the bytes are in memory."""
