"""`crossdock store lifecycle`: the last net, in the store itself."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Annotated, Final

import typer

from crossdock.errors import ConfigError, CrossdockError
from crossdock.store.api import Store
from crossdock.store.buckets import each_bucket
from crossdock.store.opening import open_store
from crossdock.store.rules import (
    ABORT_DAYS,
    EXPIRE_DAYS,
    HasLifecycle,
    Lifecycle,
    Net,
    lost,
)
from crossdock.store.settings import store_options
from crossdock.store.versions import HasVersions

MISSING: Final = 1
"""Exit code: the rules are not all there."""
FAILED: Final = 2
"""Exit code: a usage error, or a server that does not answer."""

app = typer.Typer(help="What is done with the object store itself.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `lifecycle` a subcommand: typer would make the only one the command itself."""


@app.command()
def lifecycle(
    store: Annotated[str, typer.Option(help="URL of the store: s3://bucket/prefix.")],
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Say whether the rules are there.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Put them there, beside others'.")] = False,
    abort_days: Annotated[
        int, typer.Option(min=1, help="After which an unfinished upload goes.")
    ] = ABORT_DAYS,
    expire_days: Annotated[
        int, typer.Option(min=1, help="After which an object goes: more than any job lives.")
    ] = EXPIRE_DAYS,
    store_option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the store; docs/stores.md. Repeatable.")
    ] = None,
) -> None:
    """Have the bucket itself abort old uploads, and delete old objects, below the prefix.

    Ends with 0 if the rules are there, 1 if the server has not got all, 2 if that cannot be said.
    """
    problems: list[str] = []
    try:
        if check == apply:
            raise ConfigError("one of --check and --apply is needed")
        with closing(open_store(store, store_options(store_option or ()))) as opened:
            for bucket in each_bucket(opened):
                problems += _problems(bucket, abort_days, expire_days, apply=apply)
    except CrossdockError as error:
        typer.secho(f"crossdock: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(FAILED) from error
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(MISSING)
    typer.echo(
        f"{store}: uploads are aborted after {abort_days} days, objects expire after {expire_days}"
    )


def _problems(bucket: Store, abort_days: int, expire_days: int, *, apply: bool) -> Iterator[str]:
    if not isinstance(bucket, HasLifecycle):
        raise ConfigError(f"{bucket.url} has no lifecycle rules: only s3:// has")
    net = Net(prefix=bucket.prefix, abort_days=abort_days, expire_days=expire_days)
    versions = bucket.keeps_versions() if isinstance(bucket, HasVersions) else False
    net = replace(net, versions=bool(versions))
    before = bucket.read_lifecycle()
    if before is None:
        yield (
            f"{bucket.url}: this server has no lifecycle rules at all;"
            " run `crossdock audit --delete` now and then"
        )
        return
    if versions is None:  # then a rule of ours for them stays as it is
        net = replace(net, versions=net.has_versions(before.rules))
        yield (
            f"{bucket.url}: these credentials do not say whether the bucket keeps versions;"
            " allow them s3:GetBucketVersioning"
        )
    now: Lifecycle | None = before
    if apply:
        bucket.write_lifecycle(Lifecycle(net.merged(before.rules), before.size))
        now = bucket.read_lifecycle()
    there = [] if now is None else now.rules
    kept = "the server has not kept it: " if apply else ""
    yield from (f"{bucket.url}: {kept}{problem}" for problem in net.lacks(there))
    yield from (f"{bucket.url}: {problem}" for problem in net.conflicts(there))
    yield from (
        f"{bucket.url}: rule {name!r} of somebody else is gone: put it back"
        for name in lost(before.rules, there, net)
    )
