"""`crossdock operator`."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from crossdock.errors import ConfigError

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def operator(
    worker_image: Annotated[str, typer.Option(help="Image of workers whose cluster names none.")],
    kubeconfig: Annotated[
        Path | None,
        typer.Option(envvar="KUBECONFIG", help="Credentials; default: those of the pod."),
    ] = None,
    namespace: Annotated[
        str, typer.Option(help="Where the operator runs, and its Lease is; default: the pod's.")
    ] = "",
    watch: Annotated[
        list[str] | None,
        typer.Option(help="A namespace to look after; repeatable; default: all."),
    ] = None,
    resolve: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMESPACE/NAME=URL",
            help="Reach a cluster's workers at this URL, not at its Service; repeatable.",
        ),
    ] = None,
) -> None:
    """Run the operator: look after ShuffleClusters. What it does so far: docs/operator.md."""
    from crossdock_operator.run import Settings, run  # noqa: PLC0415 -- keeps --help quick

    settings = Settings(
        kubeconfig=kubeconfig,
        namespace=namespace or _own_namespace(),
        namespaces=tuple(watch or ()),
        worker_image=worker_image,
        resolve=_resolved(resolve or ()),
    )
    asyncio.run(run(settings))


def _resolved(given: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for each in given:
        where, equals, url = each.partition("=")
        namespace, slash, name = where.partition("/")
        if not (equals and slash and namespace and name and url):
            raise ConfigError(f"--resolve {each!r} is not NAMESPACE/NAME=URL")
        found.setdefault((namespace, name), []).append(url)
    return found


def _own_namespace() -> str:
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError:
        return "default"
