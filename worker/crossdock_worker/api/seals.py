"""Seals: choices of winners, on this disk; and in the store, once no home of them is left."""

from functools import partial
from http import HTTPStatus

from aiohttp import web

from crossdock.cancel import Stop
from crossdock.errors import ProtocolError
from crossdock.seals import CLOSED, CLOSED_HEADER
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


def _answer(seal: Table | None, *, new: bool = False, closed: bool = False) -> Answer:
    if seal is None:
        return Answer([], HTTPStatus.NO_CONTENT)
    headers = {CLOSED_HEADER: CLOSED} if closed else {}
    status = HTTPStatus.CREATED if new else HTTPStatus.OK
    return Answer([tables.encode(seal)], status, headers=headers)


def _stored(request: web.Request, stop: Stop | None = None) -> StoredSeals | None:
    """Return where the store's seals are read if the call is about those; `stop` ends writes."""
    where = request.query.get("in", "")
    if not where:
        return None
    if where != "store":
        raise ProtocolError(f"in={where!r} is not in=store")
    store = persister_of(request).store
    return StoredSeals(
        store if stop is None else store.stopped_by(stop), request.app[WORKER].settings.cluster
    )


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
                with leave.held():
                    return stored.decide(key, job.record.homes, winners)

            seal, new = await in_store_pool(request.app[WORKER], decide)
            return await send(request, partial(_answer, seal, new=new), room=seal.nbytes)

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
