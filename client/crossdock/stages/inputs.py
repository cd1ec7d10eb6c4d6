"""Files as inputs: which there are, and which task reads which."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossdock.errors import ConfigError
from crossdock.stages.outputs import local_path


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, or a URL that only the task can read."""

    path: str
    size: int
    """Bytes; 0 for a URL."""


def find_files(root: Path, pattern: str) -> list[InputFile]:
    """Return the files that an input names, by name.

    Args:
        root: what a relative name is relative to.
        pattern: a path, a directory (all files below it), a glob pattern with `**`, or a URL.

    Raises:
        ConfigError: there is none.
    """
    if "://" in pattern and not pattern.startswith("file://"):
        return [InputFile(pattern, 0)]
    path = local_path(root, pattern, what="input")
    found = [path] if path.is_file() else _below(path) if path.is_dir() else _matching(path)
    if not found:
        raise ConfigError(
            f"no file matches {pattern!r} below {root}",
            hint="names are relative to dataRoot (--data-root)",
        )
    return [InputFile(str(p), p.stat().st_size) for p in sorted(found)]


def _below(directory: Path) -> list[Path]:
    return [
        p
        for p in directory.rglob("*")
        if p.is_file() and not any(part[0] in "._" for part in p.relative_to(directory).parts)
    ]


def _matching(pattern: Path) -> list[Path]:
    found = glob.glob(str(pattern), recursive=True)  # noqa: PTH207 -- Path's has no absolute ones
    return [p for p in map(Path, found) if p.is_file()]


def share_files(
    files: Sequence[InputFile], *, tasks: int | None, target_bytes: int, max_tasks: int
) -> list[list[InputFile]]:
    """Share files out among tasks; no file is cut.

    Args:
        files: in order.
        tasks: how many; None: as many as have about `target_bytes` each.
        target_bytes: what a task should read.
        max_tasks: bound for a number that was not given.

    Returns:
        Files of each task, in their order. With more tasks than files, some have none.
    """
    if tasks is None:
        total = sum(f.size for f in files)
        target = max(target_bytes, -(-total // max_tasks))
        shares: list[list[InputFile]] = [[]]
        filled = 0
        for file in files:
            if shares[-1] and filled + file.size > target and len(shares) < max_tasks:
                shares.append([])
                filled = 0
            shares[-1].append(file)
            filled += file.size
        return shares
    # Largest first, each to whoever has least: at most a third over the best there is
    # (Graham, "Bounds on multiprocessing timing anomalies", 1969).
    loads = [(0, i) for i in range(tasks)]
    chosen: list[list[InputFile]] = [[] for _ in range(tasks)]
    for file in sorted(files, key=lambda f: (-f.size, f.path)):
        load, least = min(loads)
        loads[least] = (load + max(1, file.size), least)
        chosen[least].append(file)
    return [sorted(share, key=lambda f: f.path) for share in chosen]
