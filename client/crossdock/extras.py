"""What is installed only with an extra of the package."""

from crossdock.errors import ConfigError


def lacks(what: str, extra: str, error: ModuleNotFoundError) -> ConfigError:
    """Return the error that says how to install what an import has not found.

    Args:
        what: what needs it.
        extra: of the package, which brings it.
        error: of the import.
    """
    return ConfigError(
        f"{what} needs the package {error.name!r}", hint=f"pip install 'crossdock[{extra}]'"
    )
