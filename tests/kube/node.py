"""A stand-in for a node: what the API server asks a kubelet for, logs and ports of pods."""

import asyncio
import json
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from administrator import Administrator
from aiohttp import WSMsgType, web

from certificates import Authority
from harness import WAIT_SECONDS

_DATA, _ERROR = 0, 1


def restricted() -> dict[str, Any]:
    """Return the spec of a pod that may run everywhere."""
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "main",
                "image": "example.com/main",
                "ports": [{"name": "http", "containerPort": 8080}],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }


class Node:
    """A node of the API server, as a thread of this process. Use it as a context."""

    def __init__(self, admin: Administrator, directory: Path, name: str) -> None:
        self._admin = admin
        self.name = name
        directory.mkdir(exist_ok=True)
        authority = Authority.make(directory, "node")
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(authority.cert, authority.key)
        self._logs: dict[str, list[str]] = {}
        """By pod."""
        self._open: set[str] = set()
        """Pods that still write."""
        self._ports: dict[str, int] = {}
        """By pod: the port of this machine at which what it serves is."""
        self.asked: list[str] = []
        """Query strings for logs."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="node", daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(WAIT_SECONDS)
        self._admin.ask("POST", "/api/v1/nodes", {"metadata": {"name": self.name}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        self._admin.merge(f"/api/v1/nodes/{self.name}/status", {"status": status})
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(WAIT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._admin.ask("DELETE", f"/api/v1/nodes/{self.name}")

    def run(
        self,
        namespace: str,
        pod: str,
        labels: Mapping[str, str],
        *,
        port: int = 0,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Have a pod of these labels run here; `port` of this machine is what it serves."""
        self._logs[pod] = []  # first: whoever watches asks for them as soon as it runs
        self._open.add(pod)
        self._ports[pod] = port
        path = f"/api/v1/namespaces/{namespace}/pods"
        self._admin.ask("POST", path, {
            "metadata": {
                "name": pod, "labels": dict(labels), "annotations": dict(annotations or {}),
            },
            "spec": {"nodeName": self.name, **restricted()},
        })  # fmt: skip
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "conditions": ready}
        self._admin.merge(f"{path}/{pod}/status", {"status": status})

    def write(self, pod: str, *lines: str) -> None:
        """Have a pod print lines."""
        self._logs[pod].extend(lines)

    def end(self, pod: str) -> None:
        """Have a pod print no more."""
        self._open.discard(pod)

    async def _serve(self) -> int:
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._log)
        app.router.add_get("/portForward/{namespace}/{pod}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        return int(self._runner.addresses[0][1])

    async def _end(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        selector = self._loop._selector  # type: ignore[attr-defined]
        while len(selector.get_map()) > 1:  # noqa: ASYNC110 -- TLS takes leave, and tells nobody
            await asyncio.sleep(0.01)

    async def _log(self, request: web.Request) -> web.StreamResponse:
        pod = request.match_info["pod"]
        self.asked.append(request.query_string)
        answer = web.StreamResponse()
        await answer.prepare(request)
        tail = int(request.query.get("tailLines", len(self._logs[pod])))
        sent = max(0, len(self._logs[pod]) - tail)
        while True:
            lines = self._logs[pod][sent:]
            sent += len(lines)
            await answer.write("".join(f"{line}\n" for line in lines).encode())
            if request.query.get("follow") != "true" or pod not in self._open:
                return answer
            await asyncio.sleep(0.05)

    async def _forward(self, request: web.Request) -> web.WebSocketResponse:
        """As kubelets do it over WebSockets: a channel for bytes, and one for an error."""
        answer = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await answer.prepare(request)
        asked = int(request.query["port"])
        for channel in (_DATA, _ERROR):
            await answer.send_bytes(bytes([channel]) + asked.to_bytes(2, "little"))
        port = self._ports[request.match_info["pod"]]
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            await answer.send_bytes(bytes([_ERROR]) + str(error).encode())
            await answer.close()
            return answer

        async def back() -> None:
            while data := await reader.read(1 << 16):
                await answer.send_bytes(bytes([_DATA]) + data)
            await answer.close()

        task = asyncio.ensure_future(back())
        async for message in answer:
            if message.type is WSMsgType.BINARY and message.data[0] == _DATA:
                writer.write(message.data[1:])
                await writer.drain()
        task.cancel()
        writer.close()
        return answer


def objects(text: str) -> list[dict[str, object]]:
    """Return JSON objects, one of each line."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
