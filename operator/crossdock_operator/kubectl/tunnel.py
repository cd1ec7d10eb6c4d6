"""A way to a port of a pod, through the API server and the pod's node: as `kubectl port-forward`.

Each connection is a WebSocket: frames whose first byte is a channel, 0 for bytes and 1 for an
error; the first frame of each channel has the port's number. It is encrypted up to the node.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from crossdock.errors import ConfigError
from crossdock_operator.errors import ApiUnavailable, KubeError, NotAllowed, error_of
from crossdock_operator.kinds import POD, Object
from crossdock_operator.kubectl.access import Person, explained
from crossdock_operator.kubectl.finding import operators_namespace
from crossdock_operator.kubectl.streams import ANSWER_SECONDS

OPERATOR: Final = "app.kubernetes.io/name=crossdock,app.kubernetes.io/component=operator"
"""Labels of the operator's pods, as the chart makes them."""
HTTP_PORT: Final = 8080
"""Of the operator, where its pod names none `http`."""
_ELSEWHERE: Final = (
    "say where the operator runs: --operator-namespace or CROSSDOCK_OPERATOR_NAMESPACE, "
    "--operator-labels"
)
_PROTOCOL: Final = "v4.channel.k8s.io"
_DATA: Final = 0
_CHUNK_BYTES: Final = 1 << 16


async def operator_pod(person: Person, namespace: str, labels: str) -> Object:
    """Return a pod of the operator that is ready.

    Raises:
        ConfigError: there is none.
        NotAllowed: pods may not be listed there.
    """
    try:
        with explained("list", POD, namespace):
            pods = [pod async for pod in person.kube.every(POD, namespace, labels=labels)]
    except NotAllowed as error:
        raise NotAllowed(error.message, hint=f"{error.hint}; {_ELSEWHERE}") from error
    for pod in pods:
        conditions = (pod.get("status") or {}).get("conditions") or ()
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if ready and "deletionTimestamp" not in pod["metadata"]:
            return pod
    raise ConfigError(
        f"no pod with the labels {labels} is ready in the namespace {namespace}",
        hint=_ELSEWHERE,
    )


def http_port(pod: Object) -> int:
    """Return the port of a pod that is called `http`."""
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == "http":
                return int(port["containerPort"])
    return HTTP_PORT


@asynccontextmanager
async def tunnel(person: Person, pod: Object) -> AsyncIterator[Path]:
    """Give a socket of this machine, of which each connection is one to the pod's port `http`.

    It lies in a directory that only this user opens: no other user of the machine gets there.
    """
    metadata = pod["metadata"]
    way = _Way(person, metadata["namespace"], metadata["name"], http_port(pod))
    with tempfile.TemporaryDirectory(prefix="crossdock-") as directory:
        path = Path(directory) / "operator"
        await way.check()
        server = await asyncio.start_unix_server(way.accept, path)
        try:
            yield path
        finally:
            server.close()
            await way.close()


@asynccontextmanager
async def operators_session(
    person: Person, namespace: str, labels: str
) -> AsyncIterator[aiohttp.ClientSession]:
    """Give a session whose URLs all lead to the operator.

    Args:
        person: who asks.
        namespace: where the operator runs; empty: look for it.
        labels: of its pods.

    Raises:
        ConfigError: there is no operator.
    """
    pod = await operator_pod(person, namespace or await operators_namespace(person), labels)
    async with (
        tunnel(person, pod) as path,
        aiohttp.ClientSession(
            "http://operator", connector=aiohttp.UnixConnector(os.fspath(path)),
            auto_decompress=False,
        ) as session,
    ):  # fmt: skip
        yield session


@dataclass(slots=True)
class _Way:
    person: Person
    namespace: str
    pod: str
    port: int
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a connection in a task of our own: Python 3.11 logs one of a server's that ends
        by cancellation as a fault.
        """
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection's bytes both ways until either side closes it."""
        try:
            async with await self._connect() as socket:
                back = asyncio.ensure_future(_back(socket, writer))
                forth = asyncio.ensure_future(_forth(reader, socket))
                try:
                    await asyncio.wait((back, forth), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    back.cancel()
                    forth.cancel()
                    await asyncio.gather(back, forth, return_exceptions=True)
        except KubeError:
            pass  # whoever has the other end sees that it was closed, and says so
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def check(self) -> None:
        """Open a connection and close it, so that who may not is told of it by name."""
        with explained("get and create", POD, self.namespace, "portforward"):
            socket = await self._connect()
        await socket.close()

    async def _connect(self) -> "aiohttp.ClientWebSocketResponse":
        server, session = await self.person.streams.open()
        path = POD.path(self.namespace, self.pod, "portforward")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await session.ws_connect(
                    server + path,
                    params={"ports": str(self.port)},
                    protocols=(_PROTOCOL,),
                    max_msg_size=0,
                )
        except aiohttp.WSServerHandshakeError as error:
            raise error_of(f"GET {path}", error.status, {}, error.message.encode()) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailable(f"GET {path}: {type(error).__name__} {error}".rstrip()) from error

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forth(reader: asyncio.StreamReader, socket: "aiohttp.ClientWebSocketResponse") -> None:
    while data := await reader.read(_CHUNK_BYTES):
        await socket.send_bytes(bytes([_DATA]) + data)


async def _back(socket: "aiohttp.ClientWebSocketResponse", writer: asyncio.StreamWriter) -> None:
    begun: set[int] = set()
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel not in begun:
            begun.add(channel)  # the port's number
        elif channel == _DATA:
            writer.write(data)
            await writer.drain()
        elif data:
            return  # the pod does not listen, or the node gave up
