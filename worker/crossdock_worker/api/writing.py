"""Frames, attempts and releases."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from aiohttp import web

from crossdock import views
from crossdock.errors import CrossdockError, DataCorrupt, JobFenced, JobUnknown, ProtocolError
from crossdock.lifecycle.facts import Facts
from crossdock.records import Persistence, generations_from_json
from crossdock.wire import names
from crossdock.wire.frame import FrameHeader
from crossdock.wire.names import U32_MAX, check_name
from crossdock_worker import accounts
from crossdock_worker.api.context import (
    MAX_WISH_BYTES,
    WORKER,
    check_settled,
    commanded,
    fill_error,
    held_body,
    in_pool,
    parse_json,
    path_int,
    silence,
    target,
)
from crossdock_worker.front import front_of
from crossdock_worker.ingest import FrameReceiver, FrameSink
from crossdock_worker.job import Job
from crossdock_worker.jobs import Jobs
from crossdock_worker.shuffle_log import ShuffleLog


async def put_frame(request: web.Request) -> web.Response:
    """Take one frame."""
    try:
        return await _take_frame(request)
    except CrossdockError:
        request.app[WORKER].metrics.frames.labels("refused").inc()
        raise


async def _take_frame(request: web.Request) -> web.Response:
    worker = request.app[WORKER]
    job, name, generation = target(request)
    front = front_of(request)
    waiting = front.take_waiting() if front is not None else None
    frame_bytes = request.content_length if waiting is None else waiting
    if frame_bytes is None:
        raise ProtocolError("a frame needs a Content-Length")

    @contextmanager
    def place(header: FrameHeader) -> Iterator[ShuffleLog]:
        if header.generation != generation:
            raise ProtocolError(
                f"the frame is of generation {header.generation}, the URL of {generation}"
            )
        worker.settings.limits.check_partitions(header.partitions)
        worker.jobs.get(job.uid)  # it may have been fenced since the request began
        job.check_epoch(header.epoch)
        job.check_lease()
        with job.writing(name, generation) as log:
            if not log.find(header):  # a frame whose ack was lost is in: its writer must learn so
                quota = worker.settings.limits.job_quota_bytes
                accounts.check_disk_quota(job, frame_bytes, quota)
            yield log

    job.expect_frame(name, generation)
    job.check_lease()
    with worker.admission.frame(frame_bytes), worker.transfer():
        sink = FrameSink(frame_bytes, place)
        receiver = FrameReceiver(sink, pool=worker.pool, patience=worker.settings.limits.patience())
        try:
            await receiver.receive(request, waiting)
            stored = receiver.result()
            if job.record.persistence is Persistence.BEFORE_ACK and sink.header is not None:
                # A copy too: the first one may be on its way to the store still.
                await worker.acks.durable(job.shuffle(name, generation), sink.header)
        except CrossdockError as error:
            if not receiver.ended:
                raise
            worker.metrics.frames.labels("refused").inc()
            return fill_error(web.Response(), error)
        finally:
            await receiver.close()
    worker.metrics.frames.labels("stored" if stored else "duplicate").inc()
    worker.metrics.ingested(frame_bytes if stored else 0)
    answer = {
        "worker": worker.identity.id,
        "incarnation": worker.identity.incarnation,
        "duplicate": not stored,
    }
    return web.json_response(answer)


async def abort_attempt(request: web.Request) -> web.Response:
    """Give up an attempt that was not committed; frees its space."""
    worker = request.app[WORKER]
    job, name, generation, epoch = commanded(request)
    pair = path_int(request, "map", U32_MAX), path_int(request, "attempt", names.U64_MAX)
    try:
        writer = bytes.fromhex(request.query["writer"]) if "writer" in request.query else None
    except ValueError:
        raise ProtocolError("writer is not 32 hexadecimal digits") from None
    work = partial(job.abort, (name, generation), pair, writer, epoch=epoch)
    dropped = await in_pool(worker, work)
    return web.json_response({"frames": dropped, "worker": worker.identity.id})


async def release_shuffle(request: web.Request) -> web.Response:
    """Drop a shuffle up to and with a generation."""
    worker = request.app[WORKER]
    job, name, generation, epoch = commanded(request)
    check_settled(worker)
    gone = [key for key in list(job.shuffles) if key[0] == name and key[1] <= generation]

    def forget() -> None:
        for known, number in gone:
            worker.places.forget(views.ShuffleKey(job.uid, known, number))

    forget()
    await in_pool(worker, partial(job.release, name, generation, epoch=epoch))
    forget()  # a reader may have registered some meanwhile
    await silence(partial(job.leaves.are_held, name), f"of shuffle {name!r}")
    body = {"released": generation, "stored": job.stored, "worker": worker.identity.id}
    return web.json_response(body)


@dataclass(slots=True)
class _Released:
    """What a worker that deletes what shuffles have in the store tells, and what came of it."""

    jobs: Mapping[str, Mapping[str, int]]
    cleared: bool
    deleted: bool
    found: list[tuple[Job, str]] = field(default_factory=list)
    """(job, shuffle)."""
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        told = parse_json(body)
        if not isinstance(told, dict) or not isinstance(told.get("jobs"), dict):
            raise ProtocolError("what is released is a JSON object with its jobs")
        jobs = {
            check_name("job", uid): generations_from_json(generations)
            for uid, generations in told["jobs"].items()
        }
        return cls(jobs, told.get("cleared") is True, told.get("deleted") is True)

    def learn(self, jobs: Jobs) -> None:
        for uid, known in self.jobs.items():
            cleared, emptied = known if self.cleared else {}, known if self.deleted else {}
            facts = Facts(released=known, cleared=cleared, stored=True)
            try:
                job = jobs.learn_released(uid, facts, emptied=emptied)
            except JobFenced:  # it was ended: all of it goes, and nothing is written for it
                continue
            except (JobUnknown, DataCorrupt):  # who tells of it to this worker has to tell that too
                self.left_out.append(uid)
            else:
                self.found += [(job, name) for name in known] if job is not None else []

    @property
    def is_written(self) -> bool:
        return any(job.leaves.are_held(name) for job, name in self.found)


async def take_released(request: web.Request) -> web.Response:
    """Take releases of many jobs from a worker that deletes what they have in the store."""
    worker = request.app[WORKER]
    check_settled(worker)

    async with held_body(request, most_bytes=MAX_WISH_BYTES) as body:

        def learn() -> _Released:
            told = _Released.parse(body)
            told.learn(worker.jobs)
            return told

        told = await in_pool(worker, learn)
    if not (told.cleared or told.deleted):
        await silence(lambda: told.is_written, "of these shuffles")
    return web.json_response({"worker": worker.identity.id, "left_out": told.left_out})
