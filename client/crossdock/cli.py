"""The command line. Subcommands are entry points of the group `crossdock.commands`."""

import functools
import secrets
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from crossdock.errors import ConfigError, CrossdockError
from crossdock.extras import lacks
from crossdock.wire import tokens
from crossdock.wire.tokens import ANY_JOB, JOB_RIGHTS, Right

app = typer.Typer(
    name="crossdock",
    help="A remote shuffle service for Kubernetes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def key() -> None:
    """Print a new signing key for workers (--key-file)."""
    typer.echo(secrets.token_hex(32))


@app.command()
def token(
    key_file: Annotated[Path, typer.Option(help="The workers' signing keys.")],
    job: Annotated[str, typer.Option(help="Uid of the job that the token opens.")] = ANY_JOB,
    rights: Annotated[
        str, typer.Option(help="By commas: read, write, own, admin, metrics.")
    ] = ",".join(JOB_RIGHTS),
    ttl_seconds: Annotated[float, typer.Option(help="For how long it is good.")] = 86_400,
) -> None:
    """Print a token for a job's tasks, its owner, an administrator or a metrics scraper."""
    try:
        wanted = [Right(r.strip()) for r in rights.split(",")]
    except ValueError as error:
        raise ConfigError(f"--rights {rights}: {error}", hint=", ".join(Right)) from error
    if job == ANY_JOB and not set(wanted) <= {Right.ADMIN, Right.METRICS}:
        raise ConfigError("--job is needed: only admin and metrics tokens are of no job")
    if ttl_seconds <= 0:
        raise ConfigError("--ttl-seconds must be more than 0")
    try:
        keys = tokens.parse_keys(key_file.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read --key-file {key_file}: {error.strerror}") from error
    typer.echo(tokens.mint(keys[0], job=job, rights=wanted, ttl_seconds=ttl_seconds))


def _load_commands(wanted: str) -> None:
    """Add the subcommands. One that lacks a package says how to install it.

    Args:
        wanted: the one that is called, if it is one of them: it does not wait for the others'
            imports.
    """
    found = entry_points(group="crossdock.commands")
    for entry in found.select(name=wanted) or found:
        extra = entry.extras[0] if entry.extras else entry.name
        try:
            command = entry.load()
        except ModuleNotFoundError as error:
            _add_missing(entry.name, lacks(f"`crossdock {entry.name}`", extra, error))
        else:
            if isinstance(command, typer.Typer):
                app.add_typer(command, name=entry.name)
            else:
                app.command(entry.name)(_explained(entry.name, extra, command))


def _add_missing(command: str, problem: ConfigError) -> None:
    def explain() -> None:
        raise problem

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    app.command(command, context_settings=settings, help=f"({problem.hint})")(explain)


def _explained(name: str, extra: str, command: Callable[..., None]) -> Callable[..., None]:
    """Return the command, which may import what it needs when it runs."""

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        try:
            command(*args, **options)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("crossdock"):
                raise  # no extra would help
            raise lacks(f"`crossdock {name}`", extra, error) from error

    return run


def main() -> None:
    """Run the command line; errors of ours are one line, and exit code 2 or 1."""
    _load_commands(sys.argv[1] if len(sys.argv) > 1 else "")
    try:
        app()
    except CrossdockError as error:
        typer.secho(f"crossdock: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
