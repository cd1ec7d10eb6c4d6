"""Makes ServiceMonitors of clusters' workers, and renews the tokens that they name.

The API server may not know the kind, so it is not watched. What is there is applied again now and
then; and who deletes it has its Secret deleted, which is watched.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from crossdock.errors import ConfigError, Unavailable
from crossdock.wire import tokens
from crossdock_operator.errors import NotAllowed, Refused, Vanished
from crossdock_operator.kinds import SECRET, SERVICE_MONITOR, SHUFFLE_CLUSTER, Object
from crossdock_operator.kube import Kube
from crossdock_operator.plan import monitoring, names
from crossdock_operator.plan.conditions import NO, Answer, said
from crossdock_operator.plan.monitoring import MONITORED
from crossdock_operator.records import (
    Child,
    ChildKey,
    Cluster,
    Item,
    Key,
    child_of,
    digest,
    fingerprint,
)
from crossdock_operator.store import Store

MANAGER: Final = "crossdock-operator-monitoring"
"""Field manager of what is applied for metrics."""
APPLIED_SECONDS: Final = 600.0
"""What is there is applied again after so long."""
TROUBLE_SECONDS: Final = 60.0
"""What could not be made is tried again after so long."""
_MESSAGE_CHARACTERS: Final = 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Known:
    """What was done last for a cluster."""

    digest: str
    at: float
    answer: Answer


@dataclass(slots=True)
class Monitors:
    """Of all clusters. Of the event loop alone."""

    kube: Kube
    store: Store
    signing_key: Callable[[Cluster], Awaitable[bytes]]
    again: Callable[[Item, float], None]
    """Has an object looked at after so many seconds."""
    _known: dict[Key, _Known] = field(default_factory=dict)

    async def advance(self, cluster: Cluster) -> Answer | None:
        """Do for a cluster what is to be done now; return what its condition says.

        Returns:
            The condition; None: the cluster wants no ServiceMonitor.

        Raises:
            KubeError: it was not done; look again later.
        """
        before = said(cluster.status, MONITORED)
        if cluster.paused:
            return before
        body = monitoring.service_monitor(cluster)
        if body is None:
            return await self._remove(cluster, before)
        wanted, now = digest(body), time.time()
        known = self._known.get(cluster.key)
        if known is None or known.digest != wanted or self._due(cluster, known, now):
            known = _Known(wanted, now, await self._make(cluster, body))
            self._known[cluster.key] = known
        self._wake(cluster, known, now)
        return known.answer

    def forget(self, key: Key) -> None:
        """Drop what was kept of a cluster."""
        self._known.pop(key, None)

    def _due(self, cluster: Cluster, known: _Known, now: float) -> bool:
        if known.answer.status == NO:
            return now - known.at >= TROUBLE_SECONDS
        child = self._token(cluster)
        return (
            child is None
            or not self._is_good(cluster, child, now)
            or now - known.at >= APPLIED_SECONDS
        )

    def _token(self, cluster: Cluster) -> Child | None:
        return self._secrets(cluster).get(ChildKey(SECRET.name, names.metrics_token(cluster)))

    def _is_good(self, cluster: Cluster, token: Child, now: float) -> bool:
        """Whether a token opens metrics still, and will for long."""
        key = self._secrets(cluster).get(ChildKey(SECRET.name, names.signing_key(cluster)))
        return now < token.renew_at and (key is None or token.is_good(key.has))

    def _secrets(self, cluster: Cluster) -> Mapping[ChildKey, Child]:
        return self.store.children(Item(SHUFFLE_CLUSTER.name, cluster.key), cluster.uid)

    def _wake(self, cluster: Cluster, known: _Known, now: float) -> None:
        at = known.at + TROUBLE_SECONDS
        if known.answer.status != NO:
            child = self._token(cluster)
            at = min(known.at + APPLIED_SECONDS, now if child is None else child.renew_at)
        self.again(Item(SHUFFLE_CLUSTER.name, cluster.key), max(1.0, at - now))

    async def _make(self, cluster: Cluster, body: Object) -> Answer:
        """Make ServiceMonitor and token be as they shall be; return what is said of that."""
        try:
            monitor = await self.kube.apply(SERVICE_MONITOR, body, manager=MANAGER)
            await self._renew(cluster, str(monitor["metadata"]["uid"]))
        except Vanished:
            return monitoring.unknown_kind()
        except NotAllowed as error:
            return _trouble("NotAllowed", error.message)
        except Refused as error:
            return _trouble("Refused", str(error))
        except (ConfigError, Unavailable) as error:  # there is no key yet, or it does not read
            return _trouble("NoSigningKey", error.message)
        return monitoring.applied(cluster)

    async def _renew(self, cluster: Cluster, monitor_uid: str) -> None:
        """Have the Secret belong to the ServiceMonitor, and its token be good for long."""
        name, now = names.metrics_token(cluster), time.time()
        found = await self.kube.get(SECRET, cluster.key.namespace, name)
        if found is not None:
            uid = monitoring.monitor_of(found)
            if uid is None:
                raise Refused(
                    f"the Secret {name} is there already, and is not of this cluster",
                    hint="delete it, or give the cluster another name",
                )
            if uid == monitor_uid and self._is_good(cluster, child_of(found), now):
                self.store.saw_child(SECRET.name, found)
                return
        key = await self.signing_key(cluster)
        token = tokens.mint(
            key,
            job=tokens.ANY_JOB,
            rights=[tokens.Right.METRICS],
            ttl_seconds=monitoring.TOKEN_SECONDS,
        )
        secret = monitoring.token_secret(
            cluster, token, monitor_uid=monitor_uid, made_of=fingerprint(key.decode()), now=now
        )
        self.store.saw_child(SECRET.name, await self.kube.apply(SECRET, secret, manager=MANAGER))
        log.info("made a token for metrics", cluster=cluster.key, secret=name)

    async def _remove(self, cluster: Cluster, before: Answer | None) -> Answer | None:
        """Take away what was made before; return what is said while that does not work."""
        self.forget(cluster.key)
        if before is None:
            return None
        namespace, name = cluster.key.namespace, names.workers(cluster)
        try:
            await self.kube.delete(SERVICE_MONITOR, namespace, name)
        except NotAllowed as error:
            self.again(Item(SHUFFLE_CLUSTER.name, cluster.key), TROUBLE_SECONDS)
            return _trouble("NotAllowed", error.message)
        return None


def _trouble(reason: str, message: str) -> Answer:
    return Answer(MONITORED, NO, reason, message[:_MESSAGE_CHARACTERS])
