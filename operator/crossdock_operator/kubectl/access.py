"""Who calls, where to, and what the API server's refusals mean for a person."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crossdock.errors import ConfigError
from crossdock_operator.errors import Expired, NotAllowed, Vanished
from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB, Kind, Object
from crossdock_operator.kube import Kube, namespace_of
from crossdock_operator.kubectl.streams import Streams
from crossdock_operator.living import kubeconfig

_OURS: Final = frozenset({SHUFFLE_CLUSTER, SHUFFLE_JOB})
_TRIES: Final = 3
"""Of a list whose later pages are gone before they were asked for."""
_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the options of a command say."""

    kubeconfig: Path | None = None
    """None: as kubectl finds it, else the account of the pod."""
    context: str | None = None
    namespace: str = ""
    """Empty: that of the context."""
    everywhere: bool = False
    """All namespaces."""


@dataclass(frozen=True, slots=True)
class Person:
    """A connection with somebody's own rights."""

    kube: Kube
    streams: Streams
    namespace: str
    """Where to look; empty: everywhere."""
    home: str
    """Where names are meant that have no namespace."""

    async def listed(self, kind: Kind, *, labels: str = "", home: bool = False) -> list[Object]:
        """Return all objects of a kind, in the namespace that is looked at.

        Args:
            kind: of the objects.
            labels: a selector.
            home: in the namespace of names, also where everything is looked at.

        Raises:
            NotAllowed: says which right it takes.
            ConfigError: the CRDs are not there.
        """
        namespace = self.home if home else self.namespace
        for tried in range(_TRIES):
            try:
                with explained("list", kind, namespace):
                    every = self.kube.every(kind, namespace, labels=labels)
                    return [body async for body in every]
            except Expired:
                if tried == _TRIES - 1:
                    raise
        raise AssertionError("the last try ends it")

    async def get(self, kind: Kind, name: str) -> Object:
        """Return an object of the namespace of names.

        Raises:
            ConfigError: it is not there.
        """
        with explained("get", kind, self.home):
            found = await self.kube.get(kind, self.home, name)
        if found is None:
            raise ConfigError(
                f"there is no {kind.name} {name!r} in the namespace {self.home}",
                hint="give another --namespace or --context",
            )
        return found


@asynccontextmanager
async def opened(target: Target) -> AsyncIterator[Person]:
    """Connect.

    Raises:
        ConfigError: there are no credentials, or the context is not there.
    """
    path = target.kubeconfig or kubeconfig()
    if path is None and not _POD_NAMESPACE.exists():
        raise ConfigError(
            "there is no kubeconfig: KUBECONFIG is not set, and ~/.kube/config is not there",
            hint="give --kubeconfig, or set KUBECONFIG",
        )
    if path is None:
        home = target.namespace or _POD_NAMESPACE.read_text().strip()
    else:
        home = target.namespace or namespace_of(path, target.context)
    async with await Kube.connect(path, target.context) as kube, Streams(kube) as streams:
        yield Person(kube, streams, "" if target.everywhere else home, home)


@contextmanager
def explained(verb: str, kind: Kind, namespace: str, sub: str = "") -> Iterator[None]:
    """Say of refusals which right lacks, and of a kind that is not known that it is ours.

    Raises:
        NotAllowed: with the right, in the words of roles.
        ConfigError: the CRDs are not there.
    """
    what = f"{kind.plural}/{sub}" if sub else kind.plural
    where = f"in the namespace {namespace}" if namespace else "in all namespaces"
    group = f" (API group {kind.group})" if kind.group else ""
    try:
        yield
    except NotAllowed as error:
        if ": 401 " in error.message:
            raise NotAllowed(
                error.message, hint="the credentials are not taken: log in, or take another context"
            ) from error
        raise NotAllowed(
            error.message, hint=f"it takes the right to {verb} {what}{group} {where}"
        ) from error
    except Vanished as error:
        if kind not in _OURS or not _is_unknown_kind(error):
            raise
        raise ConfigError(
            f"the API server does not know {kind.name}s",
            hint="Crossdock's CRDs are not installed: is this the right context?",
        ) from error


def _is_unknown_kind(error: Vanished) -> bool:
    """Whether not even the resource is there: the API server names no object then."""
    return "could not find the requested resource" in error.message or "page not found" in (
        error.message
    )


async def closing_lines(lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[str, None]:
    """Yield lines as text, whatever they are made of; close the answer at the end."""
    try:
        async for line in lines:
            yield line.decode(errors="replace").rstrip("\n")
    finally:
        await lines.aclose()
