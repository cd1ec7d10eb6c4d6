"""kopf's part: watches that fill the store and the queue. No other module imports kopf.

Of kopf only `on.event` is used: it watches, and keeps nothing on the objects. Its handlers that
promise more write annotations and finalizers of their own, several times for each change.
"""

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias, cast

import kopf

from crossdock_operator.calls import call_of
from crossdock_operator.intake import Intake
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
from crossdock_operator.kube import Kube, Told
from crossdock_operator.plan.names import MANAGED_BY, MANAGER
from crossdock_operator.watches import SILENT_SECONDS, WATCH_SECONDS, Watches

_OURS: Final = f"{MANAGED_BY}={MANAGER}"
WATCHED: Final[dict[Kind, str]] = {
    SHUFFLE_CLUSTER: "",
    SHUFFLE_JOB: "",
    STATEFUL_SET: _OURS,
    SERVICE: _OURS,
    SERVICE_ACCOUNT: _OURS,
    SECRET: _OURS,
    POD_DISRUPTION_BUDGET: _OURS,
    NETWORK_POLICY: _OURS,
    JOB: _OURS,
}
"""What is watched, and by which labels: only what the operator made, but for our own kinds."""
_PAGE: Final = 200
"""Objects of one answer to a watch's first list: kopf has it all in memory at once."""

_LONGEST_PAUSE_SECONDS: Final = 4.0

_Login: TypeAlias = Callable[..., Awaitable[kopf.AiohttpSession]]


async def watch(
    kube: Kube, intake: Intake, watches: Watches, *, namespaces: Sequence[str], told: Told
) -> None:
    """Watch until the process is told to end, by SIGTERM or SIGINT.

    Args:
        kube: gives the credentials.
        intake: takes in what is seen.
        watches: is told of each request.
        namespaces: to watch; none: all.
        told: is told of them too.
    """
    registry = kopf.OperatorRegistry()
    for kind in WATCHED:
        _register(registry, intake, kind)

    def tell(method: str, url: str, status: int) -> None:
        told(method, url, status)
        watches.asked(call_of(method, url), status)

    kopf.on.login(registry=registry)(_login(kube, tell))
    await kopf.operator(
        registry=registry,
        settings=_settings(),
        standalone=True,
        # Not used, but kopf would ask for the user's name, and in a pod the user often has none.
        identity=cast("Any", "crossdock-operator"),
        clusterwide=not namespaces,
        namespaces=namespaces,
    )


def _register(registry: kopf.OperatorRegistry, intake: Intake, kind: Kind) -> None:
    async def saw(body: kopf.Body, type: str | None, **_: Any) -> None:  # noqa: A002
        found = dict(body)
        if type is None and intake.store.knows(kind.name, found):
            return  # of a list, and not news
        intake.saw(kind, found, deleted=type == "DELETED")

    where = (kind.group, kind.version, kind.plural)
    kopf.on.event(*where, id=kind.plural, registry=registry)(saw)


def _login(kube: Kube, told: Told) -> _Login:
    async def login(**_: Any) -> kopf.AiohttpSession:
        server, session = await kube.session(told)
        return kopf.AiohttpSession(server=server, aiohttp_session=session)

    return login


class _NoDiffs(kopf.DiffBaseStorage):
    """Nothing of objects is kept, and none is copied to be compared: we do that."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _Pauses:
    """Seconds between tries of a watch, for ever: kopf gives up after the last one."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0), itertools.repeat(_LONGEST_PAUSE_SECONDS))


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    # Else it lists and watches namespaces and CRDs. Who changes the CRDs starts the operator anew.
    settings.scanning.disabled = True
    settings.watching.server_timeout = WATCH_SECONDS
    settings.watching.client_timeout = WATCH_SECONDS + 60
    settings.watching.inactivity_timeout = SILENT_SECONDS
    settings.watching.chunk_size = _PAGE
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _Pauses()
    settings.persistence.finalizer = "crossdock.dev/unused"
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.queueing.idle_timeout = 1.0
    settings.execution.max_workers = 2
    for kind, labels in WATCHED.items():
        if labels:
            settings.watching.label_selectors[kind.group, kind.plural] = labels
    return settings
