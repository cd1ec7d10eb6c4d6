"""Bringing frames into the store, and publishing views there."""

from functools import partial

from aiohttp import web

from crossdock.errors import ConfigError, ProtocolError
from crossdock.store.manifest import Manifest
from crossdock.store.publishing import publish
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock_worker.api.context import (
    MAX_BODY_BYTES,
    WORKER,
    commanded,
    held_body,
    held_table,
    in_pool,
    in_store_pool,
    send,
    target,
)
from crossdock_worker.persist import Outcome, Persister
from crossdock_worker.serve import Answer


def persister_of(request: web.Request) -> Persister:
    """Return what brings this worker's frames into its store, if it has one."""
    found = request.app[WORKER].persister
    if found is None:
        raise ConfigError("this worker has no store", hint="start it with --store URL")
    return found


async def persist(request: web.Request) -> web.Response:
    """Bring the frames in the body into the store: 202 while it goes on, 200 once they are.

    Asking again joins what is under way. Frames that are there already cost nothing.
    """
    worker, persister = request.app[WORKER], persister_of(request)
    job, name, generation, _ = commanded(request)
    async with held_table(request, tables.FRAME_KEY) as keys:
        shuffle = job.shuffle(name, generation)
        outcome = await in_pool(worker, partial(persister.persist, shuffle, keys))
    body = {"worker": worker.identity.id, **_outcome_json(persister, outcome)}
    return web.json_response(body, status=200 if outcome.progress is None else 202)


def _outcome_json(persister: Persister, outcome: Outcome) -> dict[str, object]:
    if outcome.progress is None:
        return {"runs": [run.run for run in outcome.runs]}
    return {
        "persisted_bytes": outcome.progress.persisted_bytes,
        "total_bytes": outcome.progress.total_bytes,
        "queued": persister.queued(outcome.progress),
    }


async def get_record(request: web.Request) -> web.StreamResponse:
    """Answer the record of a finished run of this worker."""
    job, name, generation = target(request)
    shuffle = job.shuffle(name, generation)
    record = await in_pool(
        request.app[WORKER], partial(shuffle.runs.record, request.match_info["run"])
    )
    return await send(request, lambda: Answer([record]), room=len(record))


async def put_manifest(request: web.Request) -> web.Response:
    """Publish a view's manifest, unless somebody did: then theirs holds."""
    worker, persister = request.app[WORKER], persister_of(request)
    job, name, generation, epoch = commanded(request)
    leave = job.leaves.of(name, generation)
    key = ShuffleKey(job.uid, name, generation)
    async with held_body(request, most_bytes=MAX_BODY_BYTES) as body:

        def work() -> bool:
            manifest = Manifest.decode(body, where="the body")
            if (manifest.shuffle, manifest.view) != (key, request.match_info["view"]):
                raise ProtocolError("the manifest is of another shuffle or view than the URL")
            with leave.held():
                store = persister.store.stopped_by(leave.publishing(epoch))
                return publish(store, persister.layout(key), manifest)

        published = await in_store_pool(worker, work)
    answer = {"store": persister.store.url, "cluster": worker.settings.cluster, "new": published}
    return web.json_response(answer, status=201 if published else 200)
