"""The page over HTTP: files that anybody may have, and answers for who may list ShuffleJobs.

Everything is told by namespace: what somebody may not list is not there for them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Final

from aiohttp import web

from crossdock.errors import CrossdockError, Forbidden, Overloaded
from crossdock_operator.kinds import Object
from crossdock_operator.page.asking import Asking
from crossdock_operator.page.picture import Gallery, Sight
from crossdock_operator.page.reviews import EVERYWHERE, Reviews
from crossdock_operator.records import Cluster, Job, Key
from crossdock_operator.store import Store

ROOT: Final = "/ui/"
MOST_VIEWERS: Final = 64
"""Streams of events at once."""
LOOK_SECONDS: Final = 1.0
"""Between two looks for what has changed: changes that come faster are told as one."""
RIGHTS_SECONDS: Final = 5.0
"""Between two looks for rights that were taken away or given, while nothing else changes."""
QUIET_SECONDS: Final = 15.0
"""After so long without news a line is sent, so that nobody in between closes the connection."""
STREAM_SECONDS: Final = 600.0
"""After so long a stream ends, and the browser asks for another."""
WRITE_SECONDS: Final = 20.0
"""A viewer that takes nothing for so long is let go."""
_FILES: Final = {
    "": ("index.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Page:
    """Serves it."""

    store: Store
    reviews: Reviews
    asking: Asking
    _viewers: int = field(default=0)
    _gallery: Gallery = field(init=False)

    def __post_init__(self) -> None:
        self._gallery = Gallery(self.store)

    def add_to(self, app: web.Application) -> None:
        """Add its paths to what the operator serves."""
        app.router.add_get(ROOT.rstrip("/"), _to_root)
        for path, (name, kind) in _FILES.items():
            app.router.add_get(ROOT + path, _file(name, kind))
        for path, handler in {
            "state": self._state,
            "events": self._events,
            "clusters/{namespace}/{name}/workers": self._workers,
            "jobs/{namespace}/{name}": self._job,
            "jobs/{namespace}/{name}/shuffles/{shuffle}/{generation:[0-9]{1,10}}": self._sizes,
        }.items():
            app.router.add_get(f"{ROOT}api/{path}", _answering(handler))

    # -- what is answered ------------------------------------------------------------------

    async def _state(self, request: web.Request) -> web.StreamResponse:
        """All that the viewer may see, once."""
        permitted = await self._permitted(request)
        try:
            return _json(Sight().look(self._gallery, permitted) or {})
        finally:
            self._tidy()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """The same, and then each change: server-sent events."""
        permitted = await self._permitted(request)
        async with self._room():
            response = web.StreamResponse(
                headers={**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
            )
            response.force_close()
            await response.prepare(request)
            try:
                await self._tell(request, response, permitted)
            except CrossdockError as error:
                event = "denied" if error.status in {401, 403} else "trouble"
                await _send(response, event, error.to_json())
            except (TimeoutError, ConnectionResetError):
                pass  # the viewer went, or takes nothing
            return response

    async def _tell(
        self, request: web.Request, response: web.StreamResponse, permitted: frozenset[str]
    ) -> None:
        clock = asyncio.get_running_loop().time
        sight, began, told = Sight(), clock(), clock()
        seen, judged = self.store.changes, clock()
        while clock() - began < STREAM_SECONDS:
            news = sight.look(self._gallery, permitted)
            if news is not None:
                await _send(response, "news", news)
                told = clock()
            elif clock() - told >= QUIET_SECONDS:
                await _write(response, b": still here\n\n")
                told = clock()
            await asyncio.sleep(LOOK_SECONDS)
            if self.store.changes != seen or clock() - judged >= RIGHTS_SECONDS:
                seen, judged = self.store.changes, clock()
                permitted = await self._permitted(request)

    async def _workers(self, request: web.Request) -> web.StreamResponse:
        key = await self._key(request)
        return _json(await self.asking.fill(self._cluster(key)))

    async def _job(self, request: web.Request) -> web.StreamResponse:
        job = self._job_of(await self._key(request))
        return _json(await self.asking.job(self._cluster(job.cluster), job.uid))

    async def _sizes(self, request: web.Request) -> web.StreamResponse:
        job = self._job_of(await self._key(request))
        cluster = self._cluster(job.cluster)
        shuffle, generation = request.match_info["shuffle"], int(request.match_info["generation"])
        return _json(await self.asking.sizes(cluster, job.uid, shuffle, generation))

    # -- who may see it --------------------------------------------------------------------

    async def _permitted(self, request: web.Request) -> frozenset[str]:
        """Return the namespaces that are shown to who asks.

        Raises:
            Unauthenticated: nobody is known by this token.
            Forbidden: somebody who may look nowhere.
        """
        viewer = await self.reviews.viewer(_token(request))
        known = frozenset(self._gallery.look())
        found = await self.reviews.permitted(viewer, known)
        if not found and not await self.reviews.may_list(viewer, EVERYWHERE):
            raise _forbidden(viewer.name, "any namespace with a ShuffleCluster or ShuffleJob")
        return found

    async def _key(self, request: web.Request) -> Key:
        """Return the object that is asked for, if the viewer may know of it."""
        key = Key(request.match_info["namespace"], request.match_info["name"])
        viewer = await self.reviews.viewer(_token(request))
        if not await self.reviews.permitted(viewer, {key.namespace}):
            raise _forbidden(viewer.name, f"the namespace {key.namespace}")
        return key

    def _cluster(self, key: Key) -> Cluster:
        if key not in self.store.clusters:
            raise _NotThere(f"there is no ShuffleCluster {key.namespace}/{key.name}")
        return self.store.clusters[key]

    def _job_of(self, key: Key) -> Job:
        if key not in self.store.jobs:
            raise _NotThere(f"there is no ShuffleJob {key.namespace}/{key.name}")
        return self.store.jobs[key]

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        if self._viewers >= MOST_VIEWERS:
            raise Overloaded(f"{MOST_VIEWERS} viewers look already", hint="try again later")
        self._viewers += 1
        try:
            yield
        finally:
            self._viewers -= 1
            self._tidy()

    def _tidy(self) -> None:
        """Keep no pictures while nobody looks."""
        if not self._viewers:
            self._gallery.forget()


class _NotThere(CrossdockError):
    """An object of Kubernetes is not there."""

    code = "not_found"
    status = 404


def _forbidden(name: str, where: str) -> Forbidden:
    return Forbidden(
        f"{name} may not list shufflejobs in {where}",
        hint="ask for the right to list shufflejobs.crossdock.dev",
    )


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _answering(handler: Handler) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except CrossdockError as error:
            response = _json(error.to_json(), status=error.status)
            if error.status == 401:
                response.headers["WWW-Authenticate"] = 'Bearer realm="crossdock"'
            return response

    return answer


def _file(name: str, kind: str) -> Handler:
    body = resources.files("crossdock_operator.page").joinpath("static", name).read_bytes()

    async def serve(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=HEADERS)

    return serve


async def _to_root(_: web.Request) -> web.StreamResponse:
    return web.Response(status=308, headers={"Location": "ui/", **HEADERS})


def _json(body: Object | dict[str, object], *, status: int = 200) -> web.Response:
    return web.json_response(body, status=status, headers=HEADERS)


async def _send(response: web.StreamResponse, event: str, data: object) -> None:
    await _write(response, f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(data)
