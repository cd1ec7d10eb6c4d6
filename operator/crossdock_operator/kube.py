"""All calls to Kubernetes: some ten verbs on plain dicts.

Built on the low-level half of `kubernetes.aio`; its typed models would take 110 MB. Nothing else in
the operator imports that package, so that it can be replaced here.

A busy server (429) holds back all calls for as long as it says, since it is the server that is busy
and not an object. Nothing else is tried again here: who called does it, after a look at what is.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeAlias

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import (
    ConfigException,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)

from crossdock.errors import ConfigError
from crossdock_operator.errors import ApiUnavailable, Refused, Throttled, Vanished, error_of
from crossdock_operator.kinds import POD, Kind, Object

CALL_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 60.0
"""For how long a call waits for a busy server."""
CONNECTIONS: Final = 16
USER_AGENT: Final = "crossdock-operator"
_DRY: Final = {True: "All", False: ""}
PAGE: Final = 500
"""Objects of one answer to a list."""
_JSON: Final = "application/json"
_APPLY: Final = "application/apply-patch+yaml"
_JSON_PATCH: Final = "application/json-patch+json"
_MERGE_PATCH: Final = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    objects: Sequence[Object]
    version: int
    """resourceVersion at which the whole list is so."""


Told: TypeAlias = Callable[[str, str, int], None]
"""Is told of each request: its method, its URL and the answer's status, 0 if there was none."""


class Kube:
    """A connection to an API server. Close it, or use it as a context."""

    def __init__(self, configuration: Configuration, *, told: Told | None = None) -> None:
        """Connect later, at the first call, with these credentials."""
        configuration.connection_pool_maxsize = CONNECTIONS
        if told is not None:
            configuration.trace_configs = [_trace(told)]
        self._api = ApiClient(configuration)
        self._api.user_agent = USER_AGENT
        self._not_before = 0.0
        self.calls = 0
        """Requests sent so far."""
        self.before_write: Callable[[], None] | None = None
        """Is called before each write, and may raise so that it is not sent."""

    @classmethod
    async def connect(
        cls,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        told: Told | None = None,
    ) -> Self:
        """Return a connection with the credentials of a file; default: those of the pod.

        Raises:
            ConfigError: they are not there, or do not read.
        """
        configuration = Configuration()
        try:
            if kubeconfig is None:
                load_incluster_config(client_configuration=configuration)
            else:
                await load_kube_config(
                    config_file=str(kubeconfig), context=context, client_configuration=configuration
                )
        except ConfigException as error:
            where = "of a pod" if kubeconfig is None else f"in {kubeconfig}"
            raise ConfigError(
                f"there are no credentials for Kubernetes {where}: {error}",
                hint="set KUBECONFIG, or run it in a pod with a service account",
            ) from error
        return cls(configuration, told=told)

    async def session(self, told: Told) -> tuple[str, aiohttp.ClientSession]:
        """Return the server's URL and a new session with the newest credentials, for watches."""
        configuration = self._api.configuration
        auth = await configuration.auth_settings()
        headers = {each["key"]: each["value"] for each in auth.values() if each["value"]}
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._api.rest_client.ssl_context),
            headers={"User-Agent": USER_AGENT, **headers},
            proxy=configuration.proxy,
            trace_configs=[_trace(told)],
        )
        return configuration.host, session

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- reading ---------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str, name: str, *, sub: str = "") -> Object | None:
        """Return an object, or a subresource of it, or None if it is not there."""
        try:
            return await self._call("GET", kind.path(namespace, name, sub))
        except Vanished:
            return None

    async def named(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object, or None if it is not there; it takes the right to list."""
        query = {"fieldSelector": f"metadata.name={name}"}
        found = (await self._call("GET", kind.path(namespace), query=query))["items"]
        return found[0] if found else None

    async def every(
        self, kind: Kind, namespace: str = "", *, labels: str = "", page: int = PAGE
    ) -> AsyncGenerator[Object, None]:
        """Yield all objects of a kind, of one namespace or of all, page by page.

        Raises:
            Expired: this took too long, and the next page is gone: begin anew.
        """
        async for found in self.pages(kind, namespace, labels=labels, page=page):
            for each in found.objects:
                yield each

    async def pages(
        self, kind: Kind, namespace: str = "", *, labels: str = "", page: int = PAGE
    ) -> AsyncGenerator[Page, None]:
        """Yield what `every` does, by page; one at least."""
        at = ""
        while True:
            query = {"limit": str(page), "labelSelector": labels, "continue": at}
            answer = await self._call("GET", kind.path(namespace), query=query)
            metadata = answer["metadata"]
            yield Page(answer["items"], int(metadata.get("resourceVersion", 0)))
            at = metadata.get("continue", "")
            if not at:
                return

    # -- writing ---------------------------------------------------------------------------

    async def apply(
        self, kind: Kind, body: Object, *, manager: str, force: bool = True, dry_run: bool = False
    ) -> Object:
        """Make an object be as `body` says in the fields that it has; return it as it is then.

        Raises:
            Stale: without `force`, a field of it is somebody else's.
            Refused: it is not valid.
        """
        query = {"fieldManager": manager, "force": str(force).lower(), "dryRun": _DRY[dry_run]}
        metadata = body["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"])
        body = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        return await self._call("PATCH", path, body, query=query, content_type=_APPLY)

    async def create(self, kind: Kind, body: Object, *, dry_run: bool = False) -> Object:
        """Make an object, or raise `Stale` if it is there already."""
        body = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        path = kind.path(body["metadata"]["namespace"])
        return await self._call("POST", path, body, query={"dryRun": _DRY[dry_run]})

    async def review(self, kind: Kind, spec: Object) -> Object:
        """Ask who somebody is, or what somebody may do; return the status of the answer."""
        body = {"apiVersion": kind.api_version, "kind": kind.name, "spec": spec}
        answer = await self._call("POST", kind.path(), body)
        return dict(answer["status"])

    async def replace(self, kind: Kind, body: Object) -> Object:
        """Write a whole object, or raise `Stale` if its resourceVersion is not the newest."""
        metadata = body["metadata"]
        return await self._call("PUT", kind.path(metadata["namespace"], metadata["name"]), body)

    async def patch(
        self, kind: Kind, namespace: str, name: str, steps: Sequence[Object], *, sub: str = ""
    ) -> Object:
        """Carry out the steps of a JSON patch; one of them may test what is there.

        Raises:
            Refused: a test failed, or a step does not fit.
        """
        path = kind.path(namespace, name, sub)
        return await self._call("PATCH", path, list(steps), content_type=_JSON_PATCH)

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object:
        """Change the fields that a merge patch has.

        Raises:
            Stale: it has a resourceVersion, and that is not the newest.
        """
        path = kind.path(namespace, name)
        return await self._call("PATCH", path, patch, content_type=_MERGE_PATCH)

    async def write_status(
        self, kind: Kind, namespace: str, name: str, status: Object, *, uid: str
    ) -> Object:
        """Write the whole status of the object with this uid.

        Raises:
            Vanished: it is gone, also where there is another of its name.
        """
        test: Object = {"op": "test", "path": "/metadata/uid", "value": uid}
        write: Object = {"op": "add", "path": "/status", "value": status}
        try:
            return await self.patch(kind, namespace, name, [test, write], sub="status")
        except Refused as error:
            found = await self.named(kind, namespace, name)
            if found is None or found["metadata"]["uid"] != uid:
                raise Vanished(error.message) from error
            raise

    async def scale(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        replicas: int,
        *,
        manager: str,
        version: str = "",
    ) -> Object:
        """Set how many replicas there shall be, by the scale subresource.

        Args:
            kind: of the object.
            namespace: of the object.
            name: of the object.
            replicas: there shall be.
            manager: field manager that has the field then.
            version: only while its resourceVersion is this, else `Stale`.

        Raises:
            Stale: it changed meanwhile.
        """
        path = kind.path(namespace, name, "scale")
        body: Object = {"spec": {"replicas": replicas}}
        if version:
            body["metadata"] = {"resourceVersion": version}
        query = {"fieldManager": manager}
        return await self._call("PATCH", path, body, query=query, content_type=_MERGE_PATCH)

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str = "", version: str = ""
    ) -> bool:
        """Have an object deleted, and what it owns after it; return whether it was there.

        Args:
            kind: of the object.
            namespace: of the object.
            name: of the object.
            uid: only the object with this uid, else `Stale`.
            version: only while its resourceVersion is this, else `Stale`.
        """
        wanted = {"uid": uid, "resourceVersion": version}
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {name: value for name, value in wanted.items() if value},
        }
        try:
            await self._call("DELETE", kind.path(namespace, name), body)
        except Vanished:
            return False
        return True

    async def evict(self, namespace: str, pod: str) -> bool:
        """Have a pod deleted if its disruption budget allows it now; return whether it does."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        try:
            await self._send("POST", POD.path(namespace, pod, "eviction"), body, {}, _JSON)
        except Throttled:  # the budget says so, not the server: other calls need not wait
            return False
        return True

    # -- calls -----------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        body: Object | list[Object] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = _JSON,
    ) -> Object:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            try:
                return await self._send(method, path, body, query or {}, content_type)
            except Throttled as error:
                self._not_before = time.monotonic() + max(error.retry_after_seconds, 1.0)
                if self._not_before > deadline:
                    raise

    async def _send(
        self,
        method: str,
        path: str,
        body: Object | list[Object] | None,
        query: Mapping[str, str],
        content_type: str,
    ) -> Object:
        if method != "GET" and self.before_write is not None:
            self.before_write()
        self.calls += 1
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS)
        method, url, headers, data, _ = await self._api.param_serialize(
            method,
            path,
            query_params=[(name, value) for name, value in query.items() if value],
            header_params={"Content-Type": content_type, "Accept": _JSON},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._api.rest_client.request(
                method, url, headers=headers, body=data, _request_timeout=timeout
            )
            answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = f"{method} {path}: {type(error).__name__} {error}".rstrip()
            raise ApiUnavailable(what, hint="is the API server up, and reachable?") from error
        if response.status < 300:
            found: Object = json.loads(answer)
            return found
        raise error_of(f"{method} {path}", response.status, response.headers, answer)


def namespace_of(kubeconfig: Path, context: str | None) -> str:
    """Return the namespace of a file's context; None: of its current one.

    Raises:
        ConfigError: the file does not read, or has no such context.
    """
    try:
        contexts, current = list_kube_config_contexts(config_file=str(kubeconfig))
    except ConfigException as error:
        raise ConfigError(
            f"{kubeconfig} does not read as a kubeconfig: {error}",
            hint="give --kubeconfig, or set KUBECONFIG",
        ) from error
    named = {each["name"]: each for each in contexts}
    if context is not None and context not in named:
        raise ConfigError(
            f"{kubeconfig} has no context {context!r}", hint=f"it has {', '.join(sorted(named))}"
        )
    chosen = current if context is None else named[context]
    return str((chosen.get("context") or {}).get("namespace") or "default")


def _trace(told: Told) -> aiohttp.TraceConfig:
    async def answered(
        _session: aiohttp.ClientSession, _context: object, done: aiohttp.TraceRequestEndParams
    ) -> None:
        told(done.method, str(done.url), done.response.status)

    async def failed(
        _session: aiohttp.ClientSession, _context: object, done: aiohttp.TraceRequestExceptionParams
    ) -> None:
        told(done.method, str(done.url), 0)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(answered)
    trace.on_request_exception.append(failed)
    return trace
