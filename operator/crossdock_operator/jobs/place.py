"""Stage files and results of a job on a cluster: objects of the API server, and volumes of pods.

The operator sees no volume. So what needs one is done by a pod of the stage's own template: it
lists the files that the stage reads, and publishes those that it has written.
"""

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crossdock.jobfile.model import FilesOutput, Stage
from crossdock.stagefile import FilesTarget, StageFile, pack
from crossdock.stages.inputs import InputFile
from crossdock.stages.places import output_of

_PART_BYTES: Final = 900_000
"""Of a ConfigMap, which has 1 MiB at most."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A stage file as parts, and the digest that names them."""

    parts: Mapping[str, bytes]
    digest: str


def packed(data: bytes) -> Packed:
    """Return a stage file's contents as they are kept."""
    return Packed(pack(data, part_bytes=_PART_BYTES), hashlib.sha256(data).hexdigest())


class ClusterPlace:
    """The place of one job. Thread-safe."""

    def __init__(self, uid: str, data_root: str | None) -> None:
        self._uid = uid
        self._root = Path((data_root or "/").removeprefix("file://"))
        self._lock = threading.Lock()
        self._made: dict[str, tuple[StageFile, Packed]] = {}
        self.listed: dict[str, Mapping[str, Sequence[InputFile]]] = {}
        """By stage: its files, once a pod has listed them."""
        self.finished: dict[str, Mapping[int, int]] = {}
        """By stage with files: the attempts that ended well."""
        self.published: dict[str, int] = {}
        """By stage: the bytes of its result, once a pod has published it."""

    def kept(self, stage: str) -> Packed | None:
        """Return the newest file of a stage."""
        with self._lock:
            found = self._made.get(stage)
        return None if found is None else found[1]

    def read(self, stage: str) -> StageFile | None:
        with self._lock:
            found = self._made.get(stage)
        return None if found is None else found[0]

    def write(self, made: StageFile) -> None:
        found = made, packed(made.encode())
        with self._lock:
            self._made[made.stage] = found

    def files(self, stage: Stage) -> Mapping[str, Sequence[InputFile]]:
        return self.listed.get(stage.name, {})

    @property
    def root(self) -> str:
        """What names of files are relative to, in pods."""
        return str(self._root)

    def output(self, stage: Stage) -> str:
        """Return where a stage's result goes, in pods."""
        found = output_of(stage, job=self._uid, data_root=self._root)
        assert found is not None, "only stages with files have a result"
        return str(found.path)

    def target(self, stage: Stage) -> FilesTarget | None:
        output = output_of(stage, job=self._uid, data_root=self._root)
        return None if output is None else output.target

    def done(self, stage: Stage, *, since: int) -> Mapping[int, int]:
        return {
            index: attempt
            for index, attempt in self.finished.get(stage.name, {}).items()
            if attempt >= since
        }

    def publish(self, stage: Stage, _winners: Mapping[int, int]) -> int:
        assert isinstance(stage.output, FilesOutput), "only stages with files publish"
        return self.published.get(stage.name, 0)
