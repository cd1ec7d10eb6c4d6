"""Credentials of the store, from files: an environment shows in every dump of a container."""

import os
import re
from pathlib import Path
from typing import Final

from crossdock.errors import ConfigError

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")


def take(directory: Path | None) -> None:
    """Make the files of a directory variables of this process, whose names they have.

    What was set when the process began is all that others see of its environment. So nobody but
    the process and the libraries in it finds what is set here. Other names are passed over, such
    as those that Kubernetes keeps beside the files of a Secret.

    Raises:
        ConfigError: the directory or a file cannot be read.
    """
    if directory is None:
        return
    try:
        found = [file for file in directory.iterdir() if _VARIABLE.fullmatch(file.name)]
        variables = {file.name: file.read_text("utf-8").strip() for file in found}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--store-credentials {directory}: {error}",
            hint="give a directory with files like AWS_ACCESS_KEY_ID that the worker may read",
        ) from error
    os.environ.update(variables)
