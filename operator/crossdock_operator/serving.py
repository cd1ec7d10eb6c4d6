"""What the operator answers over HTTP: health, metrics, and its page. It has no API to command."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from crossdock.errors import ConfigError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answers:
    """What is answered."""

    registry: CollectorRegistry
    problems: Callable[[], list[str]]
    """Why the process is to be started anew."""
    waits_for: Callable[[], list[str]]
    """Why it is not ready."""
    more: Callable[[web.Application], None] | None = None
    """Adds what is served besides."""


@asynccontextmanager
async def serving(answers: Answers, *, host: str, port: int) -> AsyncIterator[None]:
    """Serve while the context lasts.

    Raises:
        ConfigError: the port is taken, or not ours to take.
    """

    async def healthz(_: web.Request) -> web.Response:
        return _verdict(answers.problems())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(answers.problems() + answers.waits_for())

    async def metrics(_: web.Request) -> web.Response:
        text = generate_latest(answers.registry)
        return _closed(web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST}))

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    if answers.more is not None:
        answers.more(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await _listen(runner, host, port)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="give another --listen"
        ) from error
    for address in runner.addresses:
        log.info("listens", host=address[0], port=address[1])


def _verdict(reasons: list[str]) -> web.Response:
    return _closed(web.json_response({"problems": reasons}, status=503 if reasons else 200))


def _closed(response: web.Response) -> web.Response:
    """Close the connection after this answer: one that stays open would hold up our end."""
    response.force_close()
    return response
