"""The program `kubectl-crossdock`. Without the extra `operator` it says how to install it."""

import sys

import typer

from crossdock.errors import ConfigError, CrossdockError
from crossdock.extras import lacks

_INTERRUPTED = 130
"""What shells say of a command that Ctrl-C ended."""


def main() -> None:
    """Run the plugin; errors of ours are one line, and exit code 2 or 1."""
    try:
        _load()()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except CrossdockError as error:
        typer.secho(f"kubectl crossdock: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def _load() -> typer.Typer:
    try:
        from crossdock_operator.kubectl.cli import app  # noqa: PLC0415 -- it may lack packages
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("crossdock"):
            raise  # no extra would help
        raise lacks("`kubectl crossdock`", "operator", error) from error
    return app
