"""`crossdock audit`."""

import json
from contextlib import ExitStack
from typing import Annotated, Final

import typer

from crossdock.cleanup.audit import AuditOptions, audit
from crossdock.cleanup.fleet import Fleet
from crossdock.cleanup.living import by_kubernetes
from crossdock.cleanup.showing import as_object, show
from crossdock.cluster import connect
from crossdock.errors import ConfigError, CrossdockError
from crossdock.store.accounting import Requests
from crossdock.store.buckets import each_bucket
from crossdock.store.opening import open_store
from crossdock.store.settings import store_options
from crossdock.wire.names import check_name

ORPHANS: Final = 1
"""Exit code: something is not as it should be."""
FAILED: Final = 2
"""Exit code: a usage error, or something that was asked does not answer, or is not known."""


def run_audit(
    store: Annotated[str, typer.Option(help="URL of the store, as the workers have it.")],
    cluster: Annotated[str, typer.Option(help="Uid of the cluster: the workers' --cluster.")],
    *,
    live: Annotated[
        str | None, typer.Option(help="Uids of all jobs that live, by commas; '' for none.")
    ] = None,
    workers: Annotated[
        str, typer.Option(help="URLs of workers, by commas: one is enough. Asked for live jobs.")
    ] = "",
    kube: Annotated[
        bool, typer.Option("--kube", help="Ask Kubernetes for live jobs: ShuffleJobs.")
    ] = False,
    no_process_jobs: Annotated[
        bool,
        typer.Option("--no-process-jobs", help="With --kube: all live jobs are ShuffleJobs."),
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the orphans.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    grace_seconds: Annotated[
        float, typer.Option(min=0, help="What is younger is never touched.")
    ] = 3600.0,
    least_uptime_seconds: Annotated[
        float,
        typer.Option(
            min=0, help="For how long workers must be up for their word on live jobs to count."
        ),
    ] = 3600.0,
    store_option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the store; docs/stores.md. Repeatable.")
    ] = None,
) -> None:
    """Find what jobs that are gone have left in the store, and at workers.

    Ends with 0 if there is nothing, 1 if there are orphans, 2 if that cannot be said.
    """
    try:
        if kube and live is not None:
            raise ConfigError("--live and --kube both say which jobs live", hint="leave one out")
        if no_process_jobs and not kube:
            raise ConfigError("--no-process-jobs goes with --kube: else nobody names live jobs")
        if delete and live is None and not kube:  # workers whose disks are new know of no job
            raise ConfigError(
                "--delete needs to be told which jobs live",
                hint="--live UID,… names them (--live '' for none), --kube asks Kubernetes",
            )
        options = AuditOptions(
            cluster=check_name("cluster", cluster),
            grace_seconds=grace_seconds,
            least_uptime_seconds=least_uptime_seconds,
            live=None if live is None else _uids(live),
            ask_live=by_kubernetes() if kube else None,
            has_processes=not no_process_jobs,
            delete=delete,
        )
        meter = Requests()
        with ExitStack() as stack:
            opened = open_store(store, store_options(store_option or ()), meter=meter)
            stack.callback(opened.close)
            fleet = None
            if workers:
                endpoints = [url.strip() for url in workers.split(",")]
                fleet = Fleet(stack.enter_context(connect(endpoints)), cluster)
            found = audit(each_bucket(opened), fleet, options)
    except CrossdockError as error:
        typer.secho(f"crossdock: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(FAILED) from error
    requests = sum(count.requests for count in meter.total().values())
    if as_json:
        typer.echo(json.dumps(as_object(found, requests)))
    else:
        show(found, requests)
    if found.has_orphans:
        raise typer.Exit(ORPHANS)
    if found.is_unsure:
        raise typer.Exit(FAILED)


def _uids(text: str) -> frozenset[str]:
    return frozenset(check_name("job", uid.strip()) for uid in text.split(",") if uid.strip())
