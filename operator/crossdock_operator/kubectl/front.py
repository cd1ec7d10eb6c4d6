"""The page on this machine: a server for one browser, which adds the token to what it asks.

The browser never has the token. It has a secret of this command's run in a cookie. It gets that by
the URL that is opened, which is good once: others can see it where processes are listed.
"""

import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import web

from crossdock.errors import CrossdockError
from crossdock_operator.kubectl.bearer import Bearer

_PASSED_ON: Final = (
    "Content-Type", "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy",
    "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "Cache-Control",
)  # fmt: skip


@dataclass(slots=True)
class Front:
    """Passes on what one browser asks."""

    operator: aiohttp.ClientSession
    bearer: Bearer
    _secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    _once: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Of the URL; empty once it was opened."""
    _port: int = 0

    @asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[str]:
        """Serve on this machine alone; give the URL to open. `port` 0 takes a free one."""
        app = web.Application()
        app.router.add_get("/open", self._open)
        app.router.add_get("/ui/{path:.*}", self._pass_on)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self._port = runner.addresses[0][1]
            yield f"http://127.0.0.1:{self._port}/open?secret={self._once}"
        finally:
            await runner.cleanup()

    async def _open(self, request: web.Request) -> web.Response:
        if not self._is_ours(request, request.query.get("secret", ""), self._once):
            return _refused()
        self._once = ""
        found = web.Response(status=303, headers={"Location": "/ui/", "Cache-Control": "no-store"})
        found.set_cookie(self._cookie, self._secret, httponly=True, samesite="Strict")
        return found

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if not self._is_ours(request, request.cookies.get(self._cookie, ""), self._secret):
            return _refused()
        response: web.StreamResponse | None = None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        try:
            headers = {"Authorization": f"Bearer {await self.bearer.token()}"}
            async with self.operator.get(
                request.rel_url.raw_path, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                response = web.StreamResponse(status=answer.status)
                for name in _PASSED_ON:
                    if name in answer.headers:
                        response.headers[name] = answer.headers[name]
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                return response
        except CrossdockError as error:
            return web.json_response(error.to_json(), status=502)
        except (aiohttp.ClientError, TimeoutError) as error:
            if response is not None:
                return response  # it breaks off here, too
            said = {"code": "unavailable", "message": f"the operator does not answer: {error}"}
            return web.json_response({**said, "hint": ""}, status=502)

    @property
    def _cookie(self) -> str:
        """Browsers keep cookies by host, whatever the port: several commands may run at once."""
        return f"crossdock-{self._port}"

    def _is_ours(self, request: web.Request, given: str, secret: str) -> bool:
        """Whether it is our browser. The host counts, since a name of others may lead here."""
        hosts = {f"127.0.0.1:{self._port}", f"localhost:{self._port}"}
        same = bool(secret) and hmac.compare_digest(given.encode(), secret.encode())
        return same and request.headers.get("Host", "") in hosts


def _refused() -> web.Response:
    return web.Response(status=403, text="open the URL that `kubectl crossdock ui` has printed\n")
