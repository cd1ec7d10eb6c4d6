"""`crossdock operator`."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crossdock_operator.records import Key

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
    workers_at: Annotated[
        list[str] | None,
        typer.Option(help="NAMESPACE/CLUSTER=URL,URL…: where workers answer, if not by name."),
    ] = None,
) -> None:
    """Run the operator: look after ShuffleClusters. What it does so far: docs/operator.md."""
    from crossdock_operator.run import Settings, run  # noqa: PLC0415 -- keeps --help quick

    settings = Settings(
        kubeconfig=kubeconfig,
        namespace=namespace or _own_namespace(),
        namespaces=tuple(watch or ()),
        worker_image=worker_image,
        workers_at=dict(map(_workers_at, workers_at or ())),
    )
    asyncio.run(run(settings))


def _workers_at(text: str) -> "tuple[Key, tuple[str, ...]]":
    from crossdock_operator.records import Key  # noqa: PLC0415 -- keeps --help quick

    where, _, urls = text.partition("=")
    namespace, slash, name = where.partition("/")
    found = tuple(url.strip() for url in urls.split(",") if url.strip())
    if not (namespace and slash and name and found):
        raise typer.BadParameter(f"{text!r} is not NAMESPACE/CLUSTER=URL,URL…")
    return Key(namespace, name), found


def _own_namespace() -> str:
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError:
        return "default"
