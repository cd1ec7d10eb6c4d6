"""kopf's part: watches that fill the store and the queue. No other module imports kopf.

Of kopf only `on.event` is used: it watches, and keeps nothing on the objects. Its handlers that
promise more write annotations and finalizers of their own, several times for each change.
"""

from collections.abc import Sequence
from typing import Any, Final

import kopf

from crossdock_operator.kinds import (
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    SHUFFLE_CLUSTER,
    STATEFUL_SET,
    Kind,
)
from crossdock_operator.plan.names import MANAGED_BY, MANAGER
from crossdock_operator.queue import Queue
from crossdock_operator.records import Key
from crossdock_operator.store import Store

CHILDREN: Final = (
    STATEFUL_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    SECRET,
    POD_DISRUPTION_BUDGET,
    NETWORK_POLICY,
)
_WATCH_SECONDS: Final = 300
"""After so long a watch begins anew: some proxies drop it without a word."""


async def watch(store: Store, queue: Queue[Key], *, namespaces: Sequence[str]) -> None:
    """Watch until the process is told to end, by SIGTERM or SIGINT.

    Args:
        store: is filled with what is seen.
        queue: gets the keys of clusters to look at.
        namespaces: to watch; none: all.
    """
    registry = kopf.OperatorRegistry()
    _register(registry, store, queue)
    await kopf.operator(
        registry=registry,
        settings=_settings(namespaced=bool(namespaces)),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
    )


def _register(registry: kopf.OperatorRegistry, store: Store, queue: Queue[Key]) -> None:
    async def cluster(body: kopf.Body, type: str | None, **_: Any) -> None:  # noqa: A002
        deleted = type == "DELETED"
        key = store.saw_cluster(dict(body), deleted=deleted)
        queue.add(key)

    _on(registry, SHUFFLE_CLUSTER, cluster)
    for kind in CHILDREN:

        async def child(
            body: kopf.Body,
            type: str | None,  # noqa: A002
            kind: Kind = kind,
            **_: Any,
        ) -> None:
            key = store.saw_child(kind.name, dict(body), deleted=type == "DELETED")
            if key is not None:
                queue.add(key)

        _on(registry, kind, child)
    kopf.on.login(registry=registry)(_login)


def _on(registry: kopf.OperatorRegistry, kind: Kind, handler: Any) -> None:
    where = (kind.group, kind.version, kind.plural)
    kopf.on.event(*where, id=kind.plural, registry=registry)(handler)


def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Return the pod's credentials; outside of a pod those of the file KUBECONFIG."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


def _settings(*, namespaced: bool) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = namespaced
    settings.watching.server_timeout = _WATCH_SECONDS
    settings.watching.client_timeout = _WATCH_SECONDS + 60
    settings.networking.request_timeout = 30
    settings.persistence.finalizer = "crossdock.dev/unused"
    settings.execution.max_workers = 2
    for kind in CHILDREN:
        where = (kind.group, kind.plural)
        settings.watching.label_selectors[where] = f"{MANAGED_BY}={MANAGER}"
    return settings
