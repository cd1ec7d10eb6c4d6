"""How files go: a rename takes them out of sight at once, then they are deleted without haste.

{data_dir}/trash/{random}    nothing that anybody needs; emptied at every start
"""

import os
import shutil
from pathlib import Path


class Trash:
    """A directory on the file system of what is thrown into it."""

    def __init__(self, directory: Path) -> None:
        """Delete what a process that was killed left behind."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(exist_ok=True)
        self._directory = directory

    def take(self, path: Path) -> Path:
        """Move a directory out of sight; returns where it is now, for `delete`."""
        place = self._directory / os.urandom(16).hex()
        try:
            path.rename(place)
        except OSError:  # gone, or a disk that takes no change: then it is deleted where it is
            return path
        return place

    def delete(self, place: Path) -> None:
        """Delete what `take` moved; takes its time."""
        shutil.rmtree(place, ignore_errors=True)
