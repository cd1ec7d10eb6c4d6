"""The worker itself, and its jobs."""

from functools import partial

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from crossdock.errors import ProtocolError
from crossdock.records import JobRecord, Persistence
from crossdock.wire.names import U64_MAX, check_name
from crossdock.wire.tokens import Claims, Right
from crossdock_worker.api.context import CLAIMS, WORKER, in_pool, job_uid, query_int, read_json
from crossdock_worker.job import Job
from crossdock_worker.worker import Worker


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


async def declare_gone(request: web.Request) -> web.Response:
    """Declare that a worker never comes back: what only it had is lost, and nobody waits."""
    worker = request.app[WORKER]
    gone = check_name("worker", request.match_info["worker"])
    if gone == worker.identity.id:
        raise ProtocolError("this is the worker itself, and it is here")
    worker.membership.declare_gone(gone)
    return web.json_response({"gone": gone, "worker": worker.identity.id})


async def begin_drain(request: web.Request) -> web.Response:
    """Begin to drain: take no frames, and hand over what is here alone. Idempotent."""
    request.app[WORKER].drain.begin()
    return await get_drain(request)


async def get_drain(request: web.Request) -> web.Response:
    """Say how far the drain is: 200 once this worker can be deleted, 202 before."""
    worker = request.app[WORKER]
    report = worker.drain.report
    body = {"worker": worker.identity.id, "state": worker.state, **report.to_json()}
    return web.json_response(body, status=200 if report.drained else 202)


async def put_job(request: web.Request) -> web.Response:
    """Register, renew or take over a job; with only the right to write: introduce it here."""
    worker, uid = request.app[WORKER], job_uid(request)
    record = JobRecord.from_json(await read_json(request))
    if record.persistence is Persistence.BEFORE_ACK:
        _ = worker.acks  # raises now what every push would meet
    claims: Claims = request[CLAIMS]
    put = worker.jobs.register if claims.may(Right.OWN) else worker.jobs.introduce
    job, created = put(uid, record)
    return _job_answer(worker, job, created=created)


async def get_job(request: web.Request) -> web.Response:
    """Describe a job."""
    worker = request.app[WORKER]
    return _job_answer(worker, worker.jobs.get(job_uid(request)), created=False)


def _job_answer(worker: Worker, job: Job, *, created: bool) -> web.Response:
    store = {
        "persisted_bytes": job.persisted_bytes,
        "freed_bytes": job.freed_bytes,
        **worker.store_use(job.uid),
    }
    body = {**job.describe(), "store": store, "worker": worker.identity.id}
    return web.json_response(body, status=201 if created else 200)


async def fence_job(request: web.Request) -> web.Response:
    """Take and serve nothing of a job any more."""
    worker, uid = request.app[WORKER], job_uid(request)
    worker.jobs.fence(uid, query_int(request, "epoch", U64_MAX))
    worker.places.forget_job(uid)
    return web.json_response({"uid": uid, "fenced": True, "worker": worker.identity.id})


async def delete_job(request: web.Request) -> web.Response:
    """Fence a job and remove its files here."""
    worker, uid = request.app[WORKER], job_uid(request)
    epoch = query_int(request, "epoch", U64_MAX)
    known = worker.jobs.knows(uid)
    worker.jobs.fence(uid, epoch)
    worker.places.forget_job(uid)
    stored = worker.jobs.stored(uid) if known else False
    freed = await in_pool(worker, partial(worker.jobs.delete, uid, epoch))
    body = {"uid": uid, "freed_bytes": freed, "stored": stored, "worker": worker.identity.id}
    return web.json_response(body)
