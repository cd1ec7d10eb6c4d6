"""Credentials of the store, from files: an environment shows in every dump of a container.

They are read again while the worker runs: who renews them restarts nobody.
"""

import os
import re
import threading
import time
from pathlib import Path
from typing import Final

import structlog

from crossdock.errors import ConfigError
from crossdock.store import renewal

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")
_LOOK_SECONDS: Final = 10.0
"""Between two looks at the files, as long as the store refuses nothing."""

log = structlog.get_logger()


def take(directory: Path | None) -> None:
    """Make the files of a directory variables of this process, whose names they have.

    What was set when the process began is all that others see of its environment. So nobody but
    the process and the libraries in it finds what is set here. Other names are passed over, such
    as those that Kubernetes keeps beside the files of a Secret. Stores have the files looked at
    again from now on.

    Raises:
        ConfigError: the directory or a file cannot be read.
    """
    if directory is None:
        return
    try:
        files = _Files(directory)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--store-credentials {directory}: {error}",
            hint="give a directory with files like AWS_ACCESS_KEY_ID that the worker may read",
        ) from error
    renewal.renewed_by(files.look)


class _Files:
    """What was taken from the files of a directory. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._taken = _read(directory)
        self._renewals = 0
        self._looked = time.monotonic()
        os.environ.update(self._taken)

    def look(self, *, at_once: bool) -> int:
        """Take what the files have now, if it is other; return how often it was."""
        with self._lock:
            now = time.monotonic()
            if at_once or now - self._looked >= _LOOK_SECONDS:
                self._looked = now
                self._take()
            return self._renewals

    def _take(self) -> None:
        try:
            found = _read(self._directory)
            # Read twice, for a Secret's files are swapped while they are read: a key of the old
            # ones and a secret of the new ones open nothing.
            if found == self._taken or not found or found != _read(self._directory):
                return
        except (OSError, UnicodeDecodeError) as error:  # half written: the old ones hold
            log.warning("store credentials are not read again", error=str(error))
            return
        for name in self._taken.keys() - found.keys():
            os.environ.pop(name, None)
        os.environ.update(found)
        self._taken = found
        self._renewals += 1
        log.info("store credentials were read again", names=sorted(found))


def _read(directory: Path) -> dict[str, str]:
    found = [file for file in directory.iterdir() if _VARIABLE.fullmatch(file.name)]
    return {file.name: file.read_text("utf-8").strip() for file in found}
