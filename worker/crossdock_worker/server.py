"""Runs one worker: listens, checks who calls, turns errors into answers, ends gracefully."""

import asyncio
import logging
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
import uvloop
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from crossdock import logs
from crossdock.errors import ConfigError, CrossdockError, Unavailable
from crossdock_worker import store_credentials
from crossdock_worker.api import writing
from crossdock_worker.api.context import CLAIMS, WORKER, Handler, fill_error, job_uid
from crossdock_worker.front import front_of
from crossdock_worker.listening import listen
from crossdock_worker.routes import ROUTES, Route
from crossdock_worker.settings import Settings
from crossdock_worker.worker import Worker

log = structlog.get_logger()

_ENDING = (signal.SIGTERM, signal.SIGINT)
_KEEPALIVE_SECONDS = 75.0
_LINGERING_SECONDS = 2.0
"""How long the body of a refused request is read, so that its sender sees the answer."""


def make_app(worker: Worker) -> web.Application:
    """Return the aiohttp application of a worker."""
    app = web.Application(middlewares=[_outer])
    app[WORKER] = worker
    for route in ROUTES:
        # A frame's handler says `100 Continue` itself: one that is refused should not be sent.
        own = _no_continue if route.handler is writing.put_frame else None
        app.router.add_route(route.method, route.path, _guarded(route), expect_handler=own)
    return app


async def _no_continue(request: web.Request) -> None:
    """Leave `100 Continue` to the handler."""


def _guarded(route: Route) -> Handler:
    """Return the route's handler behind its check of the token, timed and counted."""

    async def handle(request: web.Request) -> web.StreamResponse:
        worker = request.app[WORKER]
        started = time.monotonic()
        status = 500
        try:
            if route.right is not None:
                claims = worker.auth.claims(request.headers.get("Authorization"))
                job = job_uid(request) if "job" in request.match_info else None
                claims.demand(route.right, job)
                request[CLAIMS] = claims
            response = await route.handler(request)
            status = response.status
        except CrossdockError as error:
            status = error.status
            raise
        else:
            return response
        finally:
            label = f"{route.method} {route.template}"
            worker.metrics.requests.labels(label, status).inc()
            worker.metrics.seconds.labels(label).observe(time.monotonic() - started)
            log.debug("request", method=request.method, path=request.path, status=status)

    return handle


@web.middleware
async def _outer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn our errors into JSON answers, and anything unforeseen into a logged 500."""
    # Each request is handled in a task of its own, so these name its job and shuffle alone.
    structlog.contextvars.bind_contextvars(**request.match_info)
    request.app[WORKER].request_began()
    front = front_of(request)
    if front is not None:
        front.request_began()
        await front.writable()  # of answers that nobody takes, few are made
    try:
        _refuse_compressed(request)
        return await handler(request)
    except CrossdockError as error:
        if error.status >= 500 and not isinstance(error, Unavailable):
            log.exception("request failed", path=request.path, code=error.code)
        return _refusal(request, error)
    except web.HTTPException as error:
        data = {"code": "http", "message": f"{error.status} {error.reason}", "hint": ""}
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        response = web.json_response(data, status=error.status, headers=headers)
        return _without_body(request, response)
    except Exception:
        log.exception("request failed unexpectedly", path=request.path)
        return _refusal(request, CrossdockError("the worker failed; its log says why"))
    finally:
        if front is not None:
            front.request_ended()


def _refuse_compressed(request: web.Request) -> None:
    """Every bound here is on the bytes that come; they must be those that count."""
    if "Content-Encoding" in request.headers:
        raise web.HTTPUnsupportedMediaType


def _refusal(request: web.Request, error: CrossdockError) -> web.Response:
    return _without_body(request, fill_error(web.Response(), error))


def _without_body(request: web.Request, response: web.Response) -> web.Response:
    """Close the connection after a refusal when the request's body was not asked for yet.

    Whether it still comes is up to the client: only a closed connection is clear. aiohttp would
    otherwise wait for that body even after the client has gone.
    """
    if "Expect" in request.headers:
        response.force_close()
        request.content.feed_eof()
    return response


@dataclass(frozen=True, slots=True)
class Running:
    """A worker that listens."""

    worker: Worker
    host: str
    port: int


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Running]:
    """Run a worker for the length of the block."""
    worker = Worker(settings)
    runner = web.AppRunner(
        make_app(worker),
        access_log=None,
        handle_signals=False,
        auto_decompress=False,
        keepalive_timeout=_KEEPALIVE_SECONDS,
        lingering_time=_LINGERING_SECONDS,
        shutdown_timeout=settings.shutdown_grace_seconds,
    )
    await runner.setup()
    assert runner.server is not None
    try:
        server = await listen(settings, runner.server, worker.connections)
    except OSError as error:
        await runner.cleanup()
        await worker.close()
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    host, port = server.sockets[0].getsockname()[:2]
    worker.url = settings.advertise or f"{settings.scheme}://{_reachable(host)}:{port}"
    background = asyncio.create_task(worker.run_background(), name="peers")
    log.info("worker is ready", url=worker.url, worker=worker.identity.id,
             incarnation=worker.identity.incarnation, jobs=len(list(worker.jobs)))  # fmt: skip
    try:
        yield Running(worker, host, port)
    finally:
        worker.admission.draining = True
        server.close()
        background.cancel()
        await asyncio.wait([background])  # whatever it ended with, the rest must end too
        # aiohttp waits for the same time once more, for handlers that it does not cancel.
        cut = asyncio.get_running_loop().call_later(settings.shutdown_grace_seconds, worker.cut_off)
        try:
            await runner.cleanup()
        finally:
            cut.cancel()
            await worker.close()


def _reachable(host: str) -> str:
    """Return a name under which others reach what listens on `host`."""
    if host in {"0.0.0.0", "::"}:
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


async def _until_signalled(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in _ENDING:  # the loop's own handlers would go, and the default be back, before us
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    async with serving(settings) as running:
        await stop.wait()
        if settings.store and settings.drain_grace_seconds:
            stop.clear()  # a second signal ends the drain
            await _drained(running.worker, settings.drain_grace_seconds, stop)
        log.info("worker stops", grace_seconds=settings.shutdown_grace_seconds)
    for number in _ENDING:  # a signal that comes now would make a clean end look like a crash
        signal.signal(number, signal.SIG_IGN)


async def _drained(worker: Worker, grace_seconds: float, stop: asyncio.Event) -> None:
    """Drain a worker until it is done, the time is over, or `stop` is set."""
    worker.drain.begin()
    waits = [asyncio.create_task(worker.drain.finished()), asyncio.create_task(stop.wait())]
    await asyncio.wait(waits, timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in waits:
        task.cancel()
    if not worker.drain.report.drained:
        log.warning("the drain is not done", **worker.drain.report.to_json())


def configure_logging(*, level: str) -> None:
    """Log JSON lines to standard error, with the job and shuffle of each request."""
    logs.configure(level=level)
    logging.getLogger("aiohttp.server").addFilter(_is_no_bad_request)


def _is_no_bad_request(record: logging.LogRecord) -> bool:
    """Leave out what aiohttp says of bytes that are no HTTP: anybody can send those."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def run(settings: Settings) -> None:
    """Run one worker in this process until SIGTERM or SIGINT."""
    store_credentials.take(settings.store_credentials)
    # Five descriptors a shuffle and three a connection: take what the system allows.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(settings))
