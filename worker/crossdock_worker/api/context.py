"""What handlers share: the worker, the URL's parameters, bodies and answers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import numpy as np
from aiohttp import web

from crossdock.errors import (
    CrossdockError,
    PeerGone,
    ProtocolError,
    Unauthenticated,
    Unavailable,
)
from crossdock.wire import names, tables
from crossdock.wire.names import U32_MAX, check_name
from crossdock.wire.tables import Table
from crossdock_worker import serve
from crossdock_worker.job import Job
from crossdock_worker.patience import Patience
from crossdock_worker.serve import Answer
from crossdock_worker.worker import Worker

WORKER: web.AppKey[Worker] = web.AppKey("worker", Worker)
CLAIMS = "claims"
MAX_BODY_BYTES: Final = 64 * 2**20
"""Of a table: a million frames of places are 16 MiB."""
MAX_WISH_BYTES: Final = 4 * 2**20
"""Of what a view shall have: JSON takes many times its size when it is parsed."""

_SMALL_BYTES: Final = 64 * 1024
"""Of JSON that may be parsed on the event loop."""
_SILENCE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.02

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ResponseT = TypeVar("ResponseT", bound=web.Response)


def fill_error(response: ResponseT, error: CrossdockError) -> ResponseT:
    """Make a response carry an error: status, headers and JSON body."""
    response.set_status(error.status)
    response.content_type = "application/json"
    response.text = json.dumps(error.to_json())
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
    return response


def job_uid(request: web.Request) -> str:
    """Return the checked uid in the URL."""
    return check_name("job", request.match_info["job"])


def target(request: web.Request) -> tuple[Job, str, int]:
    """Return (job, shuffle, generation) of the URL, or raise what is wrong with it."""
    name = check_name("shuffle", request.match_info["shuffle"])
    generation = path_int(request, "generation", U32_MAX)
    return request.app[WORKER].jobs.get(job_uid(request)), name, generation


def commanded(request: web.Request) -> tuple[Job, str, int, int]:
    """Return what `target` does and the caller's epoch, which is not older than the job's.

    Not yet: what is done in a thread later compares it again, where it is done.
    """
    job, name, generation = target(request)
    epoch = query_int(request, "epoch", names.U64_MAX)
    job.check_epoch(epoch)
    return job, name, generation, epoch


def path_int(request: web.Request, name: str, top: int) -> int:
    return names.parse_number(name, request.match_info[name], top)


def query_int(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name)
    return default if text is None else names.parse_number(name, text, names.U64_MAX)


@asynccontextmanager
async def held_body(request: web.Request, *, most_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body of a call that is no frame, and hold room for it meanwhile."""
    worker = request.app[WORKER]
    size = request.content_length
    if size is None and request.can_read_body:
        raise ProtocolError("a body needs a Content-Length")
    if size is not None and size > most_bytes:
        raise web.HTTPRequestEntityTooLarge(most_bytes, size)
    with worker.admission.body(size or 0):
        yield await _whole_body(request, worker.settings.limits.patience())


async def _whole_body(request: web.Request, patience: Patience) -> bytes:
    parts = []
    while not request.content.at_eof():
        try:
            with patience.waiting():
                async with asyncio.timeout(patience.seconds):
                    parts.append(await request.content.readany())
            patience.moved(len(parts[-1]))
        except (ConnectionError, web.RequestPayloadError) as error:
            raise PeerGone(f"connection failed: {error}") from error
    return b"".join(parts)


def parse_json(body: bytes) -> object:
    """Parse a JSON body; takes tens of times its size in memory, and holds the GIL meanwhile."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the body is no JSON: {error}") from error


async def read_json(request: web.Request, *, most_bytes: int = _SMALL_BYTES) -> object:
    """Return a JSON body; one that is not small is parsed off the event loop."""
    async with held_body(request, most_bytes=most_bytes) as body:
        if len(body) <= _SMALL_BYTES:
            return parse_json(body)
        return await in_pool(request.app[WORKER], partial(parse_json, body))


@asynccontextmanager
async def held_table(request: web.Request, dtype: np.dtype[np.void]) -> AsyncIterator[Table]:
    """Yield the table in a body, and hold room for it until the work with it is done."""
    async with held_body(request, most_bytes=MAX_BODY_BYTES) as body:
        yield tables.decode(dtype, body, what=request.path)


def check_settled(worker: Worker) -> None:
    """Raise unless this worker knows what others rely on it to know: only then it may agree."""
    if not worker.conditions.around.settled:
        raise Unavailable(
            "this worker began on an empty disk, and no peer has told it yet what it should know",
            hint="start its peers, or declare those gone that never come back",
        )


async def silence(is_writing: Callable[[], bool], what: str) -> None:
    """Return once no request to the store can be sent any more; raises after a while."""
    until = time.monotonic() + _SILENCE_SECONDS
    while is_writing():
        if time.monotonic() > until:
            raise Unavailable(f"requests to the store {what} are still under way", hint="ask again")
        await asyncio.sleep(_LOOK_SECONDS)


async def in_store_pool(worker: Worker, work: Callable[[], T]) -> T:
    """Run what waits for the store apart from what moves bytes of frames and blocks."""
    return await asyncio.get_running_loop().run_in_executor(worker.store_pool, work)


async def in_pool(worker: Worker, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(worker.pool, work)


async def send(
    request: web.Request, plan: Callable[[], Answer], *, room: int
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
            plan,
            pool=worker.pool,
            patience=worker.settings.limits.patience(),
            on_wait=on_wait,
        )
