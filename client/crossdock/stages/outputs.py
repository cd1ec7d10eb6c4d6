"""Files that are a job's result: every attempt writes apart, and the winners' appear at once.

OUT                                 made by one rename, when all winners are known
.OUT.crossdock-JOB/attempts/I-A/    what attempt A of task I has written
                   result/          the winners' files, about to become OUT
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crossdock.errors import ConfigError
from crossdock.stagefile import FilesTarget

SUCCESS: Final = "_SUCCESS"
"""Says which job made a result; readers of data sets pass over names that begin with "_"."""


@dataclass(frozen=True, slots=True)
class Output:
    """One directory of results."""

    path: Path
    job: str

    @property
    def staging(self) -> Path:
        """Everything that is not published yet; on the same file system."""
        return self.path.parent / f".{self.path.name}.crossdock-{self.job}"

    @property
    def target(self) -> FilesTarget:
        """Where attempts write."""
        return FilesTarget(directory=str(self.staging / "attempts"))

    def check(self, *, overwrite: bool) -> None:
        """Raise `ConfigError` when there are files that the result would replace."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"output {self.path} is a file", hint="name a directory")
        if not overwrite and self.path.exists() and any(self.path.iterdir()):
            raise ConfigError(
                f"output {self.path} is not empty", hint="remove it, or pass --overwrite"
            )

    def publish(self, stage: str, winners: Mapping[int, int], *, overwrite: bool) -> int:
        """Make the winners' files the result, once; return how many bytes they have.

        Called again, also by a later runner, it goes on where it stopped.
        """
        said = {"job": self.job, "stage": stage, "attempts": _as_json(winners)}
        published = self._published()
        if published != said:
            result = self.staging / "result"
            result.mkdir(parents=True, exist_ok=True)
            for index, attempt in winners.items():
                directory = self.target.of_attempt(index, attempt)
                for file in sorted(directory.iterdir()) if directory.is_dir() else ():
                    file.rename(result / file.name)
            (result / SUCCESS).write_text(json.dumps(said) + "\n")
            ours = published is not None and published["job"] == self.job
            self.check(overwrite=overwrite or ours)
            if self.path.exists():
                shutil.rmtree(self._replaced, ignore_errors=True)
                self.path.rename(self._replaced)
            result.rename(self.path)
        self.clear()
        return sum(f.stat().st_size for f in self.path.iterdir() if f.name != SUCCESS)

    @property
    def _replaced(self) -> Path:
        return self.staging / "replaced"

    def clear(self) -> None:
        """Delete what was not published; an older result that was about to go comes back."""
        if self._replaced.exists() and not self.path.exists():
            self._replaced.rename(self.path)
        shutil.rmtree(self.staging, ignore_errors=True)

    def _published(self) -> dict[str, object] | None:
        """Return what the present result says of itself."""
        try:
            said = json.loads((self.path / SUCCESS).read_bytes())
        except (OSError, ValueError):
            return None
        return said if isinstance(said, dict) and "job" in said else None


def missing_parents(paths: Iterable[Path]) -> list[Path]:
    """Return the directories above some paths that are not there, the outermost first."""
    missing = {p for path in paths for p in path.parents if not p.exists()}
    return sorted(missing, key=lambda p: len(p.parts))


def _as_json(winners: Mapping[int, int]) -> dict[str, int]:
    return {str(index): attempt for index, attempt in sorted(winners.items())}


def local_path(root: Path, name: str, *, what: str) -> Path:
    """Return the path of a name relative to `root`, an absolute one, or a file:// URL.

    Raises:
        ConfigError: a URL of another scheme, which this machine has no store for.
    """
    scheme, colon, rest = name.partition("://")
    if colon:
        if scheme != "file":
            raise ConfigError(
                f"{what} {name}: {scheme}:// is not supported here", hint="use a path or file://"
            )
        name = rest
    return Path(os.path.normpath(root / name))
