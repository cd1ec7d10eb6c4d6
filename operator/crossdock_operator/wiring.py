"""kopf's part: watches that fill the store and the queue. No other module imports kopf.

Of kopf only `on.event` is used: it watches, and keeps nothing on the objects. Its handlers that
promise more write annotations and finalizers of their own, several times for each change.
"""

from collections.abc import Sequence
from typing import Any, Final

import kopf

from crossdock_operator.kinds import (
    JOB,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    SHUFFLE_CLUSTER,
    SHUFFLE_JOB,
    STATEFUL_SET,
    Kind,
)
from crossdock_operator.plan.names import MANAGED_BY, MANAGER
from crossdock_operator.queue import Queue
from crossdock_operator.records import Item
from crossdock_operator.store import Store

CHILDREN: Final = (
    STATEFUL_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    SECRET,
    POD_DISRUPTION_BUDGET,
    NETWORK_POLICY,
    JOB,
)
_WATCH_SECONDS: Final = 300
"""After so long a watch begins anew: some proxies drop it without a word."""


async def watch(store: Store, queue: Queue[Item], *, namespaces: Sequence[str]) -> None:
    """Watch until the process is told to end, by SIGTERM or SIGINT.

    Args:
        store: is filled with what is seen.
        queue: gets the clusters and jobs to look at.
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


def _register(registry: kopf.OperatorRegistry, store: Store, queue: Queue[Item]) -> None:
    async def cluster(body: kopf.Body, type: str | None, **_: Any) -> None:  # noqa: A002
        key = store.saw_cluster(dict(body), deleted=type == "DELETED")
        queue.add(Item(SHUFFLE_CLUSTER.name, key))
        for waiting in store.jobs_of(key):
            queue.add(Item(SHUFFLE_JOB.name, waiting.key))

    async def job(body: kopf.Body, type: str | None, **_: Any) -> None:  # noqa: A002
        key = store.saw_job(dict(body), deleted=type == "DELETED")
        queue.add(Item(SHUFFLE_JOB.name, key))

    _on(registry, SHUFFLE_CLUSTER, cluster)
    _on(registry, SHUFFLE_JOB, job)
    for kind in CHILDREN:

        async def child(
            body: kopf.Body,
            type: str | None,  # noqa: A002
            kind: Kind = kind,
            **_: Any,
        ) -> None:
            item = store.saw_child(kind.name, dict(body), deleted=type == "DELETED")
            if item is not None:
                queue.add(item)

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
