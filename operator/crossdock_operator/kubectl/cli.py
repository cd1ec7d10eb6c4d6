"""The commands of `kubectl crossdock`."""

import asyncio
import datetime as dt
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from crossdock_operator.kubectl import acting, looking, reaching, tables
from crossdock_operator.kubectl import logs as pod_logs
from crossdock_operator.kubectl.access import Target
from crossdock_operator.kubectl.tunnel import OPERATOR

app = typer.Typer(
    name="kubectl crossdock",
    help="Crossdock on Kubernetes, with your own rights. See docs/kubectl.md.",
    no_args_is_help=True,
    add_completion=False,  # it would complete `kubectl-crossdock`, not what is typed
    pretty_exceptions_enable=False,
)


class Output(StrEnum):
    """What is printed."""

    TABLE = "table"
    JSON = "json"


Namespace: TypeAlias = Annotated[
    str, typer.Option("--namespace", "-n", help="Default: that of the context.")
]
Everywhere: TypeAlias = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="Look in all namespaces.")
]
Context: TypeAlias = Annotated[str, typer.Option(help="Of the kubeconfig; default: its current.")]
Kubeconfig: TypeAlias = Annotated[
    Path | None, typer.Option(help="Credentials; default: as kubectl finds them.")
]
OperatorNamespace: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="CROSSDOCK_OPERATOR_NAMESPACE",
        help="Where the operator runs; default: as ClusterRoleBindings say, else crossdock.",
    ),
]
OperatorLabels: TypeAlias = Annotated[str, typer.Option(help="Labels of the operator's pods.")]
Account: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="NAMESPACE/NAME",
        envvar="CROSSDOCK_ACCOUNT",
        help="Ask the operator as this service account: for kubeconfigs without a token.",
    ),
]
Format: TypeAlias = Annotated[Output, typer.Option("--output", "-o", help="table or json.")]


@app.command()
def status(
    *,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    output: Format = Output.TABLE,
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show ShuffleClusters, what is wrong with them and their jobs, and what to do.

    Ends with 1 if something is wrong.
    """
    target = _target(kubeconfig, context, namespace, everywhere=everywhere)
    found = _run(looking.status(target))
    if output is Output.JSON:
        tables.print_json(clusters=found.clusters, findings=found.findings)
    else:
        out = tables.console()
        if found.clusters:
            out.print(tables.clusters(found.clusters, _now()))
        else:
            out.print(_nothing("ShuffleClusters", found.namespace))
        tables.tell(found.findings, out)
    if found.findings:
        raise typer.Exit(1)


@app.command()
def jobs(
    *,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    output: Format = Output.TABLE,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show them again after each change.")
    ] = False,
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show ShuffleJobs and how far their stages are."""
    target = _target(kubeconfig, context, namespace, everywhere=everywhere)
    if watch:
        show = looking.JsonJobs() if output is Output.JSON else looking.LiveJobs()
        with show:
            _run(looking.watch_jobs(target, show))
        return
    found = _run(looking.jobs(target))
    if output is Output.JSON:
        tables.print_json(jobs=found.jobs)
    elif found.jobs:
        tables.console().print(tables.jobs(found.jobs, _now()))
    else:
        tables.console().print(_nothing("ShuffleJobs", found.namespace))


@app.command()
def logs(
    job: Annotated[str, typer.Argument(help="The ShuffleJob.")],
    stage: Annotated[str, typer.Argument(help="One of its stages; default: all.")] = "",
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print what comes, until the job is over.")
    ] = False,
    tail: Annotated[int, typer.Option(help="Last lines of each pod; -1: all.")] = 100,
    pods: Annotated[int, typer.Option(min=1, help="So many pods, the newest.")] = 10,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print what tasks of a job wrote: of those pods that are there, the newest first."""
    target = _target(kubeconfig, context, namespace)
    wanted = pod_logs.Wanted(job=job, stage=stage, tail=tail, pods=pods)
    _run(looking.logs(target, wanted, follow=follow))


@app.command()
def top(
    *,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    output: Format = Output.TABLE,
    operator_namespace: OperatorNamespace = "",
    operator_labels: OperatorLabels = OPERATOR,
    account: Account = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show jobs by what they use, and how full workers are now, as the operator says."""
    target = _target(kubeconfig, context, namespace, everywhere=everywhere)
    way = reaching.ToOperator(namespace=operator_namespace, labels=operator_labels, account=account)
    found = _run(reaching.top(target, way))
    if output is Output.JSON:
        tables.print_json(jobs=found.jobs, workers=found.workers)
    else:
        out = tables.console()
        out.print(tables.jobs(found.jobs, _now()))
        if found.workers:
            out.print()
            out.print(tables.workers(found.workers))
    if found.problem:
        typer.secho(f"workers are not shown: {found.problem}", err=True, fg=typer.colors.YELLOW)


@app.command()
def ui(
    *,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it, or only print the URL.")
    ] = True,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of this machine; 0: any.")] = 0,
    operator_namespace: OperatorNamespace = "",
    operator_labels: OperatorLabels = OPERATOR,
    account: Account = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Open the operator's page with your own token, until the command is interrupted."""
    target = _target(kubeconfig, context, "")
    way = reaching.ToOperator(namespace=operator_namespace, labels=operator_labels, account=account)
    _run(reaching.ui(target, way, port=port, browser=browser))


@app.command()
def audit(
    cluster: Annotated[str, typer.Argument(help="A ShuffleCluster; default: all.")] = "",
    *,
    now: Annotated[
        bool, typer.Option("--now", help="Have an audit made, and wait for it.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for it.")] = 600.0,
    namespace: Namespace = "",
    everywhere: Everywhere = False,
    output: Format = Output.TABLE,
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what the operator's newest audits of stores and disks have found.

    Ends with 1 if there are orphans, 2 if that is not known.
    """
    target = _target(kubeconfig, context, namespace, everywhere=everywhere)
    found = _run(acting.audits(target, name=cluster, now=now, timeout_seconds=timeout))
    if output is Output.JSON:
        tables.print_json(clusters=found.clusters, findings=found.findings)
    else:
        out = tables.console()
        out.print(tables.clusters(found.clusters, _now()))
        tables.tell(found.findings, out)
    if any(row.orphans for row in found.clusters):
        raise typer.Exit(1)
    if found.findings or not all(row.audited for row in found.clusters):
        raise typer.Exit(2)


@app.command()
def drain(
    pod: Annotated[str, typer.Argument(help="A worker's pod, such as main-worker-0.")],
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone.")] = True,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait.")] = 3900.0,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Evict a worker's pod: it hands over what it holds alone, and is made anew."""
    target = _target(kubeconfig, context, namespace)
    _run(acting.drain(target, pod, wait=wait, timeout_seconds=timeout))


def _target(
    kubeconfig: Path | None, context: str, namespace: str, *, everywhere: bool = False
) -> Target:
    return Target(
        kubeconfig=kubeconfig,
        context=context or None,
        namespace=namespace,
        everywhere=everywhere,
    )


def _run(work: Coroutine[None, None, looking.T]) -> looking.T:
    return asyncio.run(work)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _nothing(what: str, namespace: str) -> str:
    where = f"in the namespace {namespace}; -A looks everywhere" if namespace else "anywhere"
    return f"there are no {what} {where}"
