"""What deletion needs of a cluster, kept in the operator's own namespace.

A namespace that is deleted takes the cluster's Secrets with it at once, while its jobs wait for
their data to be deleted. So a copy is there before the first byte of a cluster's first job, and
until neither the cluster nor a job of it is left.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

import structlog

from crossdock.errors import ConfigError
from crossdock_operator.kinds import SECRET, Object
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.records import Cluster, owner_of
from crossdock_operator.storage.access import Access, access_to, text_of

FRESH_SECONDS: Final = 60.0
"""For so long a cluster's Secrets are not read again."""
MANAGER: Final = "crossdock-operator-storage"
"""Field manager of copies."""

log = structlog.get_logger()


@dataclass(slots=True)
class Copies:
    """Of all clusters. Of the event loop alone."""

    kube: Kube
    namespace: str
    """The operator's."""
    _known: dict[str, tuple[Access, int, float]] = field(default_factory=dict)
    """By uid: what was read, the cluster's generation then, and when."""
    _written: dict[str, str] = field(default_factory=dict)
    """By uid: digest of what the Secret has."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One at a time: jobs that begin at once read it once."""

    async def look(self, cluster: Cluster) -> Access:
        """Return what it takes to reach a cluster, as it is now; nothing is written.

        Raises:
            ConfigError: a Secret that the cluster needs is not there.
            KubeError: of the API server.
        """
        async with self._lock:
            return await self._look(cluster)

    async def keep(self, cluster: Cluster) -> Access:
        """Make the copy be as the cluster is now; return it. Raises as `look`."""
        async with self._lock:
            access = await self._look(cluster)
            if self._written.get(cluster.uid) != access.digest:
                body = access.to_secret(self.namespace)
                await self.kube.apply(SECRET, body, manager=MANAGER)
                self._written[cluster.uid] = access.digest
                log.info("copied what deletion needs", cluster=cluster.key, uid=cluster.uid)
            return access

    async def _look(self, cluster: Cluster) -> Access:
        known = self._known.get(cluster.uid)
        if known is not None:
            access, generation, at = known
            if generation == cluster.generation and time.monotonic() - at < FRESH_SECONDS:
                return access
        access = await self._read(cluster)
        self._known[cluster.uid] = (access, cluster.generation, time.monotonic())
        return access

    async def newest(self, uid: str, cluster: Cluster | None) -> Access:
        """Return what is known: of the cluster, if it is there as a whole, else the copy.

        Raises:
            ConfigError: neither is there.
            KubeError: of the API server.
        """
        problem: ConfigError | None = None
        if cluster is not None and cluster.uid == uid:
            try:
                return await self.keep(cluster)
            except ConfigError as error:  # its Secrets went first
                problem = error
        found = await self.kube.get(SECRET, self.namespace, names.access_copy(uid))
        if found is None:
            raise problem or ConfigError(
                f"neither the cluster {uid} is there, nor the Secret {names.access_copy(uid)} in "
                f"namespace {self.namespace}, the copy of what it takes to reach its store",
            )
        return Access.from_secret(found)

    async def drop(self, uid: str) -> None:
        """Delete a copy that nobody needs any more."""
        self._known.pop(uid, None)
        self._written.pop(uid, None)
        if await self.kube.delete(SECRET, self.namespace, names.access_copy(uid)):
            log.info("dropped what deletion needed", uid=uid)

    async def _read(self, cluster: Cluster) -> Access:
        keys = await self._secret(cluster, names.signing_key(cluster))
        if keys is None:
            raise ConfigError(
                f"the Secret {names.signing_key(cluster)} is not there yet",
                hint="the operator makes it",
            )
        reference = cluster.spec.store.credentials_secret_ref
        credentials = None if reference is None else await self._get(cluster, reference.name)
        authority = ""
        if tls := names.certificate(cluster):
            secret = await self._secret(cluster, tls)
            authority = "" if secret is None else text_of(secret, "ca.crt")
        return access_to(
            cluster,
            keys=text_of(keys, names.KEY_FILE),
            credentials=credentials,
            authority=authority,
        )

    async def _secret(self, cluster: Cluster, name: str) -> Object | None:
        found = await self._get(cluster, name)
        if found is not None and owner_of(found).is_other(cluster.uid):
            raise ConfigError(
                f"the Secret {name} is of another ShuffleCluster", hint="wait until it is gone"
            )
        return found

    async def _get(self, cluster: Cluster, name: str) -> Object | None:
        return await self.kube.get(SECRET, cluster.key.namespace, name)
