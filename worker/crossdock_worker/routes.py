"""The worker's HTTP API: one table of routes, and what each does. docs/protocol.md describes it.

Handlers are thin: they read parameters, call one method, and write the answer.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from crossdock import views
from crossdock.errors import BlocksLost, CrossdockError, JobFenced, ProtocolError
from crossdock.records import JobRecord
from crossdock.wire import names, tables
from crossdock.wire.blocks import Cursor
from crossdock.wire.frame import FrameHeader
from crossdock.wire.names import U32_MAX, check_name
from crossdock.wire.tables import Table
from crossdock.wire.tokens import Claims, Right
from crossdock_worker import selection
from crossdock_worker.front import Front, front_of
from crossdock_worker.ingest import FrameReceiver, FrameSink
from crossdock_worker.jobs import Job
from crossdock_worker.places import Places
from crossdock_worker.serve import Batch, send_batch
from crossdock_worker.shuffle_log import ShuffleLog, Snapshot
from crossdock_worker.view_service import view_json
from crossdock_worker.worker import Worker

WORKER: web.AppKey[Worker] = web.AppKey("worker", Worker)
CLAIMS = "claims"

_MAX_TABLE_BYTES = 64 * 2**20
T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """A call: `right` None means that no token is needed."""

    method: str
    path: str
    handler: Handler
    right: Right | None


class RenewingResponse(web.Response):
    """An answer after which the connection gets a fresh protocol, since its body was taken."""

    front: Front | None = None

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data)
        if self.front is not None and self.keep_alive is not False:
            self.front.renew()


# -- the worker itself ---------------------------------------------------------------------


async def healthz(_request: web.Request) -> web.Response:
    """Say that the process lives."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Say whether frames are taken here."""
    state = request.app[WORKER].state
    return web.json_response({"state": state}, status=200 if state == "serving" else 503)


async def metrics(request: web.Request) -> web.Response:
    """Answer in Prometheus' text format."""
    data = generate_latest(request.app[WORKER].metrics.registry)
    return web.Response(body=data, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def list_workers(request: web.Request) -> web.Response:
    """Describe this worker and its peers."""
    worker = request.app[WORKER]
    own = worker.info()
    known = [own, *worker.membership]
    return web.json_response({"self": own.to_json(), "workers": [info.to_json() for info in known]})


# -- jobs ----------------------------------------------------------------------------------


async def put_job(request: web.Request) -> web.Response:
    """Register, renew or take over a job; with only the right to write: introduce it here."""
    worker, uid = request.app[WORKER], job_uid(request)
    record = JobRecord.from_json(await _json(request))
    claims: Claims = request[CLAIMS]
    if not claims.may(Right.OWN):
        known = [job for job in worker.jobs if job.uid == uid]
        if known:
            return _job_answer(worker, known[0], created=False)
    job, created = worker.jobs.register(uid, record)
    return _job_answer(worker, job, created=created)


async def get_job(request: web.Request) -> web.Response:
    """Describe a job."""
    worker = request.app[WORKER]
    return _job_answer(worker, worker.jobs.get(job_uid(request)), created=False)


def _job_answer(worker: Worker, job: Job, *, created: bool) -> web.Response:
    body = {**job.describe(), "worker": worker.identity.id}
    return web.json_response(body, status=201 if created else 200)


async def fence_job(request: web.Request) -> web.Response:
    """Take and serve nothing of a job any more."""
    worker, uid = request.app[WORKER], job_uid(request)
    worker.jobs.fence(uid, _int(request, "epoch", U32_MAX))
    worker.places.forget_job(uid)
    return web.json_response({"uid": uid, "fenced": True, "worker": worker.identity.id})


async def delete_job(request: web.Request) -> web.Response:
    """Fence a job and remove its files here."""
    worker, uid = request.app[WORKER], job_uid(request)
    epoch = _int(request, "epoch", U32_MAX)
    worker.jobs.fence(uid, epoch)
    worker.places.forget_job(uid)
    freed = await _in_pool(worker, partial(worker.jobs.delete, uid, epoch))
    return web.json_response({"uid": uid, "freed_bytes": freed, "worker": worker.identity.id})


# -- writing -------------------------------------------------------------------------------


async def put_frame(request: web.Request) -> web.Response:
    """Take one frame."""
    worker = request.app[WORKER]
    job, name, generation = _target(request)
    frame_bytes = request.content_length
    if frame_bytes is None:
        raise ProtocolError("a frame needs a Content-Length")

    def place(header: FrameHeader) -> ShuffleLog:
        if header.generation != generation:
            raise ProtocolError(
                f"the frame is of generation {header.generation}, the URL of {generation}"
            )
        worker.settings.limits.check_partitions(header.partitions)
        worker.jobs.get(job.uid)  # it may have been fenced since the request began
        job.check_epoch(header.epoch)
        return job.shuffle_for_writing(name, generation, header.partitions)

    job.check_quota(frame_bytes, worker.settings.limits.job_quota_bytes)
    front: Front | None = None
    with worker.admission.frame(frame_bytes):
        sink = FrameSink(frame_bytes, place)
        receiver = FrameReceiver(
            sink, pool=worker.pool, stall_seconds=worker.settings.limits.stall_seconds
        )
        try:
            front = await receiver.receive(request, frame_bytes)
            stored = receiver.result()
            answer = {
                "worker": worker.identity.id,
                "incarnation": worker.identity.incarnation,
                "duplicate": not stored,
            }
            response = RenewingResponse(text=json.dumps(answer), content_type="application/json")
            worker.metrics.frames.labels("stored" if stored else "duplicate").inc()
            worker.metrics.ingested_bytes.inc(frame_bytes if stored else 0)
        except CrossdockError as error:
            if front is None:
                raise
            response = RenewingResponse(
                text=json.dumps(error.to_json()),
                status=error.status,
                content_type="application/json",
            )
            worker.metrics.frames.labels("refused").inc()
        finally:
            sink.close()
    response.front = front
    return response


async def abort_attempt(request: web.Request) -> web.Response:
    """Give up an attempt that was not committed; frees its space."""
    worker = request.app[WORKER]
    job, name, generation = _target(request)
    shuffle = job.shuffle(name, generation)
    map_id = _path_int(request, "map", U32_MAX)
    attempt = _path_int(request, "attempt", names.U64_MAX)
    dropped = await _in_pool(worker, partial(shuffle.abort, map_id, attempt))
    worker.places.forget(shuffle.key)  # the space may soon hold other frames
    return web.json_response({"frames": dropped, "worker": worker.identity.id})


async def release_shuffle(request: web.Request) -> web.Response:
    """Drop a shuffle up to and with a generation."""
    worker = request.app[WORKER]
    job, name, generation = _target(request)
    for known, number in list(job.shuffles):
        if known == name and number <= generation:
            worker.places.forget(views.ShuffleKey(job.uid, name, number))
    await _in_pool(worker, partial(job.release, name, generation))
    return web.json_response({"released": generation, "worker": worker.identity.id})


async def put_seal(request: web.Request) -> web.Response:
    """Store the choice of winners unless there is one; answers the one that holds."""
    job, name, generation = _target(request)
    winners = await _table(request, tables.ATTEMPT)
    if (winners["map"][1:] <= winners["map"][:-1]).any():
        raise ProtocolError("a seal names one attempt per map, sorted by map")
    seal, new = job.seal(name, generation, winners)
    return _binary(tables.encode(seal), status=201 if new else 200)


async def get_seal(request: web.Request) -> web.Response:
    """Answer the choice of winners, or 204 when none was made here."""
    job, name, generation = _target(request)
    seal = job.read_seal(name, generation)
    return web.Response(status=204) if seal is None else _binary(tables.encode(seal))


# -- reading -------------------------------------------------------------------------------


async def list_frames(request: web.Request) -> web.Response:
    """Answer the frames held, of the attempts in the body, or of all without a body."""
    worker = request.app[WORKER]
    job, name, generation = _target(request)
    wanted = await _table(request, tables.ATTEMPT) if request.can_read_body else None
    shuffle = job.shuffle(name, generation)
    frames = await _in_pool(worker, partial(shuffle.frames, wanted))
    return _binary(tables.encode(frames), partitions=shuffle.partitions, worker=worker)


async def put_places(request: web.Request) -> web.Response:
    """Register the frames a reader wants from here; answers their statistics."""
    worker = request.app[WORKER]
    job, name, generation = _target(request)
    keys = await _table(request, tables.FRAME_KEY)
    shuffle = job.shuffle(name, generation)

    def register() -> Places:
        return worker.places.register(shuffle, request.match_info["digest"], keys)

    places = register()
    stats = await _in_pool(
        worker, partial(selection.statistics, places.snapshot, shuffle.partitions)
    )
    return _binary(tables.encode(stats), partitions=shuffle.partitions, worker=worker)


async def read_places(request: web.Request) -> web.StreamResponse:
    """Answer one batch of registered places."""
    job, name, generation = _target(request)
    shuffle = job.shuffle(name, generation)
    places = request.app[WORKER].places.get(shuffle, request.match_info["digest"])
    return await _read(request, shuffle, places.snapshot)


async def read_attempts(request: web.Request) -> web.StreamResponse:
    """Answer one batch of the attempts in the body; nothing is stored for it.

    Unless `partial=true`, all frames of these attempts must be here.
    """
    worker = request.app[WORKER]
    job, name, generation = _target(request)
    attempts = await _table(request, tables.ATTEMPT)
    shuffle = job.shuffle(name, generation)

    def collect() -> Snapshot:
        held = shuffle.frames(attempts)
        resolution = views.resolve({worker.identity.id: held}, attempts)
        if resolution.missing and request.query.get("partial") != "true":
            raise BlocksLost(
                resolution.missing,
                message=f"{len(resolution.missing)} attempts are not whole on this worker",
                hint="ask the others too, with partial=true, or make a view",
            )
        return shuffle.snapshot(tables.frame_keys(resolution.frames))[0]

    return await _read(request, shuffle, await _in_pool(worker, collect))


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
    bound = _int(request, "max_bytes", limits.read_batch_bytes)
    max_bytes = max(1, min(bound, limits.read_batch_bytes))
    skip = _int(request, "skip", 0)
    front = front_of(request)

    def prepare() -> Batch:
        chosen = selection.select(
            snapshot, partitions=partitions, maps=maps, cursor=cursor, max_bytes=max_bytes
        )
        if skip > int(chosen.columns.length.sum(dtype=np.int64)):
            raise ProtocolError(f"skip={skip} is more than the batch has")
        return Batch(chosen, snapshot.payload, skip=skip, sendfile=front is not None)

    async with worker.admission.answer(max_bytes):
        batch = await _in_pool(worker, prepare)
        worker.metrics.served_bytes.inc(batch.payload_bytes)
        worker.metrics.served_pieces.inc(batch.pieces)
        return await send_batch(
            request, front, shuffle, batch, pool=worker.pool, stall_seconds=limits.stall_seconds
        )


async def block_sizes(request: web.Request) -> web.Response:
    """Answer the size of every block of registered places, for a partition range."""
    worker = request.app[WORKER]
    job, name, generation = _target(request)
    shuffle = job.shuffle(name, generation)
    places = worker.places.get(shuffle, request.match_info["digest"])
    wanted = names.parse_range(
        request.query.get("partitions", ""), kind="partitions", top=shuffle.partitions
    )
    sizes = await _in_pool(worker, partial(selection.block_sizes, places.snapshot, wanted))
    return _binary(tables.encode(sizes), worker=worker)


async def make_view(request: web.Request) -> web.Response:
    """Make a view over this worker and its peers, for clients that do not merge themselves."""
    worker = request.app[WORKER]
    job, name, generation = _target(request)
    key = views.ShuffleKey(job.uid, name, generation)
    loop = asyncio.get_running_loop()
    work = partial(
        view_json, worker, key, await _json(request), request.headers.get("Authorization", "")
    )
    return web.json_response(await loop.run_in_executor(worker.view_pool, work))


_SHUFFLE = "/v1/jobs/{job}/shuffles/{shuffle}/{generation}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/healthz", healthz, None),
    Route("GET", "/readyz", readyz, None),
    Route("GET", "/metrics", metrics, Right.METRICS),
    Route("GET", "/v1/workers", list_workers, Right.READ),
    Route("PUT", "/v1/jobs/{job}", put_job, Right.WRITE),
    Route("GET", "/v1/jobs/{job}", get_job, Right.READ),
    Route("POST", "/v1/jobs/{job}/fence", fence_job, Right.OWN),
    Route("DELETE", "/v1/jobs/{job}", delete_job, Right.OWN),
    Route("PUT", f"{_SHUFFLE}/frames", put_frame, Right.WRITE),
    Route("POST", f"{_SHUFFLE}/frames/list", list_frames, Right.READ),
    Route("DELETE", f"{_SHUFFLE}/attempts/{{map}}/{{attempt}}", abort_attempt, Right.WRITE),
    Route("DELETE", _SHUFFLE, release_shuffle, Right.OWN),
    Route("PUT", f"{_SHUFFLE}/seal", put_seal, Right.WRITE),
    Route("GET", f"{_SHUFFLE}/seal", get_seal, Right.READ),
    Route("PUT", f"{_SHUFFLE}/places/{{digest}}", put_places, Right.READ),
    Route("GET", f"{_SHUFFLE}/places/{{digest}}/blocks", read_places, Right.READ),
    Route("GET", f"{_SHUFFLE}/places/{{digest}}/sizes", block_sizes, Right.READ),
    Route("POST", f"{_SHUFFLE}/blocks", read_attempts, Right.READ),
    Route("POST", f"{_SHUFFLE}/views", make_view, Right.READ),
)


# -- helpers -------------------------------------------------------------------------------


def job_uid(request: web.Request) -> str:
    """Return the checked uid in the URL."""
    return check_name("job", request.match_info["job"])


def _target(request: web.Request) -> tuple[Job, str, int]:
    """Return (job, shuffle, generation) of the URL, or raise what is wrong with it."""
    name = check_name("shuffle", request.match_info["shuffle"])
    generation = _path_int(request, "generation", U32_MAX)
    try:
        return request.app[WORKER].jobs.get(job_uid(request)), name, generation
    except JobFenced:
        request.app[WORKER].metrics.frames.labels("refused").inc()
        raise


def _path_int(request: web.Request, name: str, top: int) -> int:
    return _parse_int(name, request.match_info[name], top)


def _int(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name)
    return default if text is None else _parse_int(name, text, names.U64_MAX)


def _parse_int(name: str, text: str, top: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > top:
        raise ProtocolError(f"{name} {text!r} is not a whole number from 0 to {top}")
    return int(text)


async def _json(request: web.Request) -> object:
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the body is no JSON: {error}") from error


async def _table(request: web.Request, dtype: np.dtype[np.void]) -> Table:
    return tables.decode(dtype, await request.read(), what=request.path)


async def _in_pool(worker: Worker, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(worker.pool, work)


def _binary(
    data: bytes, *, status: int = 200, partitions: int | None = None, worker: Worker | None = None
) -> web.Response:
    headers = {}
    if partitions is not None:
        headers["Crossdock-Partitions"] = str(partitions)
    if worker is not None:
        headers["Crossdock-Worker"] = worker.identity.id
    return web.Response(
        body=data, status=status, headers=headers, content_type="application/octet-stream"
    )
