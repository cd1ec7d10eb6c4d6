"""How the operator speaks to workers: a client for each cluster that has jobs, calls in threads."""

import asyncio
import base64
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

import crossdock
from crossdock.cluster import Cluster as Client
from crossdock.errors import ConfigError, Unavailable
from crossdock.http import Timeouts
from crossdock.pool import Pool
from crossdock.wire import tokens
from crossdock.wire.tokens import ANY_JOB, Right
from crossdock_operator.kinds import SECRET, Object
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.records import Cluster, Key, owner_of

T = TypeVar("T")

JOB_TOKEN_SECONDS: Final = 86_400
"""So long tasks go on while no operator runs."""
RENEW_SECONDS: Final = JOB_TOKEN_SECONDS // 3
"""A token is renewed at this age: kubelets take minutes to bring it to the pods."""
_OWN_TOKEN_SECONDS: Final = 900.0
FRESH_SECONDS: Final = 60.0
"""Keys and authorities are read again after so long."""
_THREADS: Final = 8
_AUTHORITY: Final = "ca.crt"
_OPTIONS: Final = crossdock.Options(deadline_seconds=3.0, connect_seconds=3.0, stall_seconds=15.0)
"""What is not answered soon is asked again later, and meanwhile other jobs have the thread."""


@dataclass(slots=True)
class _OwnToken:
    """The operator's token for one cluster, minted when it is needed. Thread-safe."""

    key: bytes
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _token: str = ""
    _signed_by: bytes = b""
    _until: float = 0.0

    def __call__(self) -> str:
        with self._lock:
            if time.monotonic() > self._until or self._signed_by != self.key:
                self._token = tokens.mint(
                    self.key, job=ANY_JOB, rights=[Right.ADMIN], ttl_seconds=_OWN_TOKEN_SECONDS
                )
                self._signed_by = self.key
                self._until = time.monotonic() + _OWN_TOKEN_SECONDS / 2
            return self._token


@dataclass(slots=True)
class _Reached:
    uid: str
    client: Client
    token: _OwnToken
    tls: ssl.SSLContext | None
    authority: str
    """PEM, as `tls` took it in last."""
    read_at: float

    def renew(self, key: bytes, authority: str, now: float) -> None:
        """Take in what was read again: jobs that run have this very client."""
        if self.tls is not None and authority and authority != self.authority:
            _trust(authority, self.tls)
            self.authority = authority
        self.token.key, self.read_at = key, now


class Workers:
    """Clients of all clusters that jobs need. Of the event loop's thread, but for what it runs."""

    def __init__(
        self,
        kube: Kube,
        resolve: Mapping[tuple[str, str], Sequence[str]],
        *,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        """Begin without a connection.

        Args:
            kube: where the signing keys are.
            resolve: URLs by which to reach clusters, in place of their Services.
            fresh_seconds: for so long keys and authorities are not read again.
        """
        self._kube = kube
        self._resolve = resolve
        self._fresh_seconds = fresh_seconds
        self._reached: dict[Key, _Reached] = {}
        self._reaching: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._pool: ThreadPoolExecutor | None = None

    def ask(self, call: Callable[[], T], then: Callable[["asyncio.Future[T]"], None]) -> None:
        """Have a thread call something; `then` is called by the event loop with what came of it."""
        self._begin(call).add_done_callback(then)

    async def asked(self, call: Callable[[], T]) -> T:
        """Have a thread call something; return what came of it, or raise that."""
        return await self._begin(call)

    def _begin(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="crossdock-workers")
        return asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def client(self, cluster: Cluster) -> Client:
        """Return the client of a cluster's workers.

        Raises:
            Unavailable: the cluster has no signing key yet.
            KubeError: it cannot be read.
            ConfigError: what its Secrets have is neither keys nor certificates.
        """
        async with self._reaching[cluster.key]:
            return await self._client(cluster)

    async def _client(self, cluster: Cluster) -> Client:
        known = self._reached.get(cluster.key)
        if known is not None and known.uid != cluster.uid:
            self._reached.pop(cluster.key).client.close()
            known = None
        now = time.monotonic()
        if known is not None and now - known.read_at < self._fresh_seconds:
            return known.client
        key, authority = await self.signing_key(cluster), await self.authority(cluster)
        if known is not None:
            known.renew(key, authority, now)
            return known.client
        token = _OwnToken(key)
        timeouts = Timeouts(_OPTIONS.connect_seconds, _OPTIONS.stall_seconds)
        urls = self._resolve.get(cluster.key) or [names.endpoint(cluster)]
        tls = _trust(authority) if authority else None
        pool = Pool(token=token, tls=tls, timeouts=timeouts)
        client = Client(urls, pool=pool, options=_OPTIONS)
        self._reached[cluster.key] = _Reached(cluster.uid, client, token, tls, authority, now)
        return client

    async def signing_key(self, cluster: Cluster) -> bytes:
        """Return the key that signs a cluster's tokens.

        Raises:
            Unavailable: it is not made yet.
        """
        name = names.signing_key(cluster)
        secret = await self._secret(cluster, name)
        data = (secret or {}).get("data") or {}
        if names.KEY_FILE not in data:
            raise Unavailable(f"the Secret {name} with the cluster's key is not there yet")
        try:
            return tokens.parse_keys(base64.b64decode(data[names.KEY_FILE]).decode())[0]
        except ValueError as error:
            raise ConfigError(f"the Secret {name} has no keys: {error}") from error

    async def authority(self, cluster: Cluster) -> str:
        """Return the authority of the workers' certificates, PEM; empty: they have none.

        Raises:
            Unavailable: it is not made yet.
        """
        name = names.certificate(cluster)
        if not name:
            return ""
        found = await self._secret(cluster, name)
        data = (found or {}).get("data") or {}
        if _AUTHORITY not in data:
            raise Unavailable(f"the Secret {name} has no {_AUTHORITY} yet")
        return base64.b64decode(data[_AUTHORITY]).decode(errors="replace")

    async def _secret(self, cluster: Cluster, name: str) -> Object | None:
        found = await self._kube.get(SECRET, cluster.key.namespace, name)
        if found is not None and owner_of(found).is_other(cluster.uid):
            raise Unavailable(f"the Secret {name} is of another ShuffleCluster, and is to go")
        return found

    def known_authority(self, cluster: Cluster) -> str:
        """Return the authority as it was read last; empty: it was not."""
        known = self._reached.get(cluster.key)
        return "" if known is None or known.uid != cluster.uid else known.authority

    def keep(self, clusters: set[Key]) -> None:
        """Close the clients of all other clusters."""
        for key in self._reached.keys() - clusters:
            asyncio.get_running_loop().run_in_executor(None, self._reached.pop(key).client.close)

    def close(self) -> None:
        """End all calls, and close all connections and threads."""
        for reached in self._reached.values():
            reached.client.close()
        self._reached.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def job_token(key: bytes, uid: str) -> str:
    """Return a token that opens one job: to write and read, not to end it."""
    rights = [Right.READ, Right.WRITE]
    return tokens.mint(key, job=uid, rights=rights, ttl_seconds=JOB_TOKEN_SECONDS)


def _trust(authority: str, context: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """Return what trusts an authority: a new context, or this one, and what it trusts already."""
    try:
        if context is None:
            return ssl.create_default_context(cadata=authority)
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"{_AUTHORITY} of the cluster's certificate is no PEM of an authority: {error}",
            hint="correct the Secret that security.tls.secretRef names",
        ) from error
    return context
