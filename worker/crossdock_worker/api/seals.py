"""Seals: choices of winners, on this disk; and in the store, once no home of them is left."""

from contextlib import suppress
from functools import partial
from http import HTTPStatus

from aiohttp import web

from crossdock.cancel import Stop
from crossdock.errors import ProtocolError, SealHomeClosed
from crossdock.seals import CLOSED, CLOSED_HEADER, IN_CLOSED, IN_STORE
from crossdock.store.seals import StoredSeals
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock.wire.tables import Table
from crossdock_worker.api.context import (
    WORKER,
    commanded,
    held_table,
    in_store_pool,
    send,
    target,
)
from crossdock_worker.api.persisting import persister_of
from crossdock_worker.job import Job
from crossdock_worker.serve import Answer
from crossdock_worker.worker import Worker


def _answer(seal: Table | None, *, new: bool = False, closed: bool = False) -> Answer:
    if seal is None:
        return Answer([], HTTPStatus.NO_CONTENT)
    headers = {CLOSED_HEADER: CLOSED} if closed else {}
    status = HTTPStatus.CREATED if new else HTTPStatus.OK
    return Answer([tables.encode(seal)], status, headers=headers)


def _stored(request: web.Request, stop: Stop | None = None) -> StoredSeals | None:
    """Return where the store's seals are read if the call is about those; `stop` ends writes."""
    where = request.query.get("in", "")
    if where in {"", IN_CLOSED}:
        return None
    if where != IN_STORE:
        raise ProtocolError(f"in={where!r} is neither in={IN_STORE} nor in={IN_CLOSED}")
    store = persister_of(request).store
    return StoredSeals(
        store if stop is None else store.stopped_by(stop), request.app[WORKER].settings.cluster
    )


def _seal_closed(
    worker: Worker, job: Job, key: ShuffleKey, winners: Table, epoch: int
) -> tuple[Table, bool]:
    """Store a seal in a closed home: in the store first, where others would look for it then."""
    with worker.seal_lock:
        if worker.admission.draining:
            raise SealHomeClosed("this home of seals drains")
        if not job.seals_closed:
            raise ProtocolError(f"this home is open: put the seal without in={IN_CLOSED}")
        with suppress(SealHomeClosed):  # it has none
            existing = job.read_seal(key.name, key.generation)
            if existing is not None:
                return existing, False
        persister = worker.persister
        if persister is not None:
            job.check_unreleased(key.name, key.generation)
            leave = job.leaves.of(key.name, key.generation)
            store = persister.store.stopped_by(leave.publishing(epoch))
            with leave.held():
                winners = StoredSeals(store, worker.settings.cluster).leave(key, winners)
        return job.seal(key.name, key.generation, winners, epoch=epoch, closed=True)


async def put_seal(request: web.Request) -> web.StreamResponse:
    """Store the choice of winners unless there is one; answers the one that holds."""
    job, name, generation, epoch = commanded(request)
    leave = job.leaves.of(name, generation)
    stored = _stored(request, leave.publishing(epoch))
    async with held_table(request, tables.ATTEMPT) as winners:
        if (winners["map"][1:] <= winners["map"][:-1]).any():
            raise ProtocolError("a seal names one attempt per map, sorted by map")

        if stored is not None:
            key = _live(job, name, generation)

            def decide() -> tuple[Table, bool]:
                with leave.counted():  # it may find that nothing is to be written
                    return stored.decide(key, job.record.homes, winners)

            seal, new = await in_store_pool(request.app[WORKER], decide)
            return await send(request, partial(_answer, seal, new=new), room=seal.nbytes)

        if request.query.get("in") == IN_CLOSED:
            key = _live(job, name, generation)
            take = partial(_seal_closed, request.app[WORKER], job, key, winners, epoch)
            seal, new = await in_store_pool(request.app[WORKER], take)
            answer = _answer(seal, new=new, closed=True)
            return await send(request, lambda: answer, room=seal.nbytes)

        def plan() -> Answer:
            seal, new = job.seal(name, generation, winners, epoch=epoch)
            return _answer(seal, new=new, closed=job.seals_closed)

        return await send(request, plan, room=winners.nbytes)


async def get_seal(request: web.Request) -> web.StreamResponse:
    """Answer the choice of winners, or 204 when none was made here."""
    job, name, generation = target(request)
    stored = _stored(request)
    if stored is not None:
        key = _live(job, name, generation)
        seal = await in_store_pool(request.app[WORKER], partial(stored.read, key))
        return await send(request, partial(_answer, seal), room=0 if seal is None else seal.nbytes)

    def plan() -> Answer:
        return _answer(job.read_seal(name, generation), closed=job.seals_closed)

    return await send(request, plan, room=job.seal_bytes(name, generation))


def _live(job: Job, name: str, generation: int) -> ShuffleKey:
    """Return the key of a shuffle that was not released, of a job that was not ended."""
    job.check_unreleased(name, generation)
    return ShuffleKey(job.uid, name, generation)
