"""Files, of directories that change meanwhile."""

import os
from pathlib import Path


def files_below(root: Path) -> list[Path]:
    """Return all files below a directory, sorted. Directories may go while it looks."""
    return sorted(Path(folder, name) for folder, _, names in os.walk(root) for name in names)
