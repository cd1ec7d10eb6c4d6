"""`crossdock operator`."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from crossdock.errors import ConfigError

_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def operator(  # noqa: PLR0917 -- typer makes an option of each
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
    listen: Annotated[
        str, typer.Option(help="HOST:PORT for health, metrics and the page.")
    ] = "0.0.0.0:8080",
    owner_kinds: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND.GROUP",
            help="A kind that may own jobs, beside Pod and Job.batch; repeatable; with =RESOURCE "
            "where that is not its plural.",
        ),
    ] = None,
    scalable: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP/VERSION/KIND",
            help="A kind that executors of jobs may be; repeatable; "
            "default: apps/v1/Deployment and apps/v1/StatefulSet.",
        ),
    ] = None,
    worker_pull_secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A Secret for the registry of worker images, in the cluster's namespace; "
            "repeatable.",
        ),
    ] = None,
    look_seconds: Annotated[
        float,
        typer.Option(min=0.1, help="How often owners of jobs, and what workers have, are seen."),
    ] = 15.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    resolve: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMESPACE/NAME=URL",
            help="Reach a cluster's workers at this URL, not at its Service; repeatable.",
        ),
    ] = None,
    ui: Annotated[  # noqa: FBT002
        bool, typer.Option("--ui/--no-ui", help="Serve a page for people at /ui/, too.")
    ] = True,
) -> None:
    """Run the operator: look after ShuffleClusters and ShuffleJobs. See docs/operator.md."""
    from crossdock import logs  # noqa: PLC0415 -- keeps --help quick
    from crossdock_operator.plan.owners import OwnerKind  # noqa: PLC0415
    from crossdock_operator.plan.targets import SCALABLE, kind_of_option  # noqa: PLC0415
    from crossdock_operator.run import Settings, run  # noqa: PLC0415

    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen {listen!r} is not HOST:PORT")
    logs.configure(level=log_level)
    settings = Settings(
        kubeconfig=kubeconfig,
        namespace=namespace or _own_namespace(),
        namespaces=tuple(watch or ()),
        worker_image=worker_image,
        host=host.strip("[]") or "0.0.0.0",
        port=int(port),
        resolve=_resolved(resolve or ()),
        owner_kinds=tuple(map(OwnerKind.parse, owner_kinds or ())),
        look_seconds=look_seconds,
        page=ui,
        worker_pull_secrets=tuple(worker_pull_secret or ()),
        scalable=tuple(kind_of_option(text) for text in scalable or ()) or SCALABLE,
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
