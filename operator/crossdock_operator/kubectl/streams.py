"""Answers of the API server that go on: logs and watches, line by line."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final, Self

import aiohttp

from crossdock_operator.errors import ApiUnavailable, Expired, error_of
from crossdock_operator.kinds import Kind, Object
from crossdock_operator.kube import CONNECT_SECONDS, Kube

ANSWER_SECONDS: Final = 30.0
"""Until an answer begins. How long it goes on is not bounded: who asked ends it."""
WATCH_SECONDS: Final = 150
"""After so long a watch is asked for anew: some proxies drop it without a word."""
_LINE_BYTES: Final = 4 << 20
"""Of the longest line: an object of the API server has some MiB at most."""


class Streams:
    """A session for long answers, beside the calls. Use it as a context."""

    def __init__(self, kube: Kube) -> None:
        """Args: `kube` has the credentials."""
        self._kube = kube
        self._session: aiohttp.ClientSession | None = None
        self._server = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def open(self) -> tuple[str, aiohttp.ClientSession]:
        """Return the server's URL, and the session."""
        if self._session is None:
            self._server, self._session = await self._kube.session(lambda *_: None)
        return self._server, self._session

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Yield the lines of an answer as they come, until it ends.

        Raises:
            KubeError: it is refused, or breaks off.
        """
        server, session = await self.open()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        what = f"GET {path}"
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await session.get(
                    server + path, params=query, timeout=timeout, read_bufsize=_LINE_BYTES
                )
            async with answer:
                if answer.status >= 300:
                    raise error_of(what, answer.status, answer.headers, await answer.read())
                async for line in answer.content:
                    yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailable(
                f"{what}: {type(error).__name__} {error}".rstrip(),
                hint="is the API server up, and reachable?",
            ) from error

    async def post(self, path: str, body: Object) -> Object:
        """Send an object to a path that makes something of it, and return that.

        Raises:
            KubeError: it is refused, or the API server does not answer.
        """
        server, session = await self.open()
        what = f"POST {path}"
        try:
            async with asyncio.timeout(ANSWER_SECONDS), session.post(
                server + path, json=body
            ) as answer:  # fmt: skip
                data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailable(f"{what}: {type(error).__name__} {error}".rstrip()) from error
        if answer.status >= 300:
            raise error_of(what, answer.status, answer.headers, data)
        found: Object = json.loads(data)
        return found

    async def watch(
        self, kind: Kind, namespace: str, *, labels: str = ""
    ) -> AsyncGenerator[list[Object], None]:
        """Yield all objects of a kind with these labels, and again after each change, for ever.

        Raises:
            KubeError: it is refused, or the API server does not answer.
        """
        while True:
            known: dict[str, Object] = {}
            version = 0
            async for page in self._kube.pages(kind, namespace, labels=labels):
                known |= {body["metadata"]["uid"]: body for body in page.objects}
                version = page.version
            yield list(known.values())
            try:
                async with aclosing(self._changes(kind, namespace, labels, version)) as changes:
                    async for change, body in changes:
                        known[body["metadata"]["uid"]] = body
                        if change == "DELETED":
                            del known[body["metadata"]["uid"]]
                        yield list(known.values())
            except Expired:
                continue  # too much has changed meanwhile: the list says it all

    async def _changes(
        self, kind: Kind, namespace: str, labels: str, version: int
    ) -> AsyncGenerator[tuple[str, Object], None]:
        while True:
            query = {
                "watch": "true",
                "labelSelector": labels,
                "resourceVersion": str(version),
                "timeoutSeconds": str(WATCH_SECONDS),
                "allowWatchBookmarks": "true",
            }
            async with aclosing(self.lines(kind.path(namespace), query)) as lines:
                async for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        said = event["object"]
                        code = int(said.get("code", 410))
                        raise error_of("watch", code, {}, json.dumps(said).encode())
                    version = int(event["object"]["metadata"]["resourceVersion"])
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]
