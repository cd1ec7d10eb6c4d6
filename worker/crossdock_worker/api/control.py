"""The worker itself, and its jobs."""

from functools import partial

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from crossdock.demand import Demand
from crossdock.errors import ProtocolError
from crossdock.lifecycle.facts import Facts, Stage, is_known
from crossdock.records import Persistence, Word
from crossdock.wire.names import U64_MAX, check_name
from crossdock.wire.tokens import Claims, Right
from crossdock_worker import accounts
from crossdock_worker.api.context import (
    CLAIMS,
    MAX_WISH_BYTES,
    WORKER,
    check_settled,
    in_pool,
    job_uid,
    query_int,
    read_json,
    silence,
)
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
    if "epoch" in request.query:
        worker.leaders.check(query_int(request, "epoch", 0))
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
    # It names all that the job has ever released, so of a long job it is not small.
    word = Word.from_json(await read_json(request, most_bytes=MAX_WISH_BYTES))
    if word.record.persistence is Persistence.BEFORE_ACK:
        _ = worker.acks  # raises now what every push would meet
    claims: Claims = request[CLAIMS]
    if not claims.may(Right.OWN):
        job, created = worker.jobs.introduce(uid, word.record)
        return _job_answer(worker, job, created=created)
    job, created = worker.jobs.register(uid, word.record)
    if not is_known(job.gone.generations, word.released):
        await in_pool(worker, partial(job.learn_released, word.released, word.record.epoch))
    as_of = worker.as_of(word.as_of)  # last: a right comes with all that is known
    if worker.drain.listens:
        job.life.hear_owner(as_of)
    else:
        job.life.take_right(as_of)
    return _job_answer(worker, job, created=created)


async def list_jobs(request: web.Request) -> web.Response:
    """List the jobs on this disk, for sweeps; or those whose engines say what they need."""
    worker = request.app[WORKER]
    uptime = worker.uptime_seconds
    listed = [
        accounts.overview(uid, job, uptime, worker.store_use(uid))
        for uid, job in worker.jobs.held()
    ]
    if request.query.get("demand") == "true":
        listed = [each for each in listed if each["demand"]]
    body = {
        "worker": worker.identity.id,
        "cluster": worker.settings.cluster,
        "uptime_seconds": round(uptime, 3),
        "store": worker.store_use(),
        "jobs": listed,
    }
    return web.json_response(body)


async def get_job(request: web.Request) -> web.Response:
    """Describe a job."""
    worker = request.app[WORKER]
    return _job_answer(worker, worker.jobs.get(job_uid(request)), created=False)


def _job_answer(worker: Worker, job: Job, *, created: bool) -> web.Response:
    used = accounts.tiers(job)
    store = {
        "persisted_bytes": accounts.persisted_bytes(job),
        "stored_bytes": used.store,
        "freed_bytes": used.freed,
        "only_here_bytes": used.only_here,
        **worker.store_use(job.uid),
    }
    body = {
        **accounts.describe(job),
        "store": store,
        "worker": worker.identity.id,
        "reading": worker.reading().to_json(),
        "settled": worker.conditions.around.settled,
    }
    return web.json_response(body, status=201 if created else 200)


async def put_demand(request: web.Request) -> web.Response:
    """Take an engine's word of how many executors it needs."""
    worker = request.app[WORKER]
    demand = Demand.from_json(await read_json(request))
    worker.jobs.get(job_uid(request)).demands.take(demand)
    return web.json_response({"reporter": demand.reporter, "worker": worker.identity.id})


async def fence_job(request: web.Request) -> web.Response:
    """Take and serve nothing of a job any more."""
    worker, uid = request.app[WORKER], job_uid(request)
    check_settled(worker)
    writing = worker.jobs.fence(uid, query_int(request, "epoch", U64_MAX))
    worker.places.forget_job(uid)
    await silence(writing, f"for job {uid}")
    return web.json_response({"uid": uid, "fenced": True, "worker": worker.identity.id})


async def delete_job(request: web.Request) -> web.Response:
    """Fence a job and remove its files here."""
    worker, uid = request.app[WORKER], job_uid(request)
    check_settled(worker)
    epoch = query_int(request, "epoch", U64_MAX)
    writing = worker.jobs.fence(uid, epoch)
    worker.places.forget_job(uid)
    stored = worker.jobs.stored(uid)
    freed = await in_pool(worker, partial(worker.jobs.delete, uid, epoch))
    await silence(writing, f"for job {uid}")
    if request.query.get("proved") == "true":
        clean = partial(worker.jobs.learn_ended, uid, Facts(0, Stage.CLEAN), None)
        await in_pool(worker, clean)
    body = {
        "uid": uid,
        "freed_bytes": freed,
        "stored": stored,
        "store_idle_seconds": worker.jobs.writes.idle_seconds(uid),
        "worker": worker.identity.id,
    }
    return web.json_response(body)
