"""Where a job's stage files and results are: a directory here, objects of the API server there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from crossdock.jobfile.model import FilesOutput, Stage
from crossdock.stagefile import FilesTarget, StageFile
from crossdock.stages.inputs import InputFile
from crossdock.stages.outputs import Output, local_path
from crossdock.stages.rundir import RunDirectory, write_atomically


class Place(Protocol):
    """What the actions of a job need beside its workers. Thread-safe."""

    def read(self, stage: str) -> StageFile | None:
        """Return a stage's file; None if it was not planned yet."""

    def write(self, made: StageFile) -> None:
        """Keep a stage's file, for tasks that start from now on."""

    def files(self, stage: Stage) -> Mapping[str, Sequence[InputFile]]:
        """Return the files that a stage reads, by the names of its inputs."""

    def target(self, stage: Stage) -> FilesTarget | None:
        """Return where attempts write, if the stage's output are files."""

    def done(self, stage: Stage, *, since: int) -> Mapping[int, int]:
        """Return index → attempt of the tasks that have written their files."""

    def publish(self, stage: Stage, winners: Mapping[int, int], /) -> int:
        """Make the winners' files the result; return how many bytes they have."""


class LocalPlace:
    """A run's directory, and the file system of this machine."""

    def __init__(
        self,
        run: RunDirectory,
        *,
        job: str,
        data_root: Path,
        files: Mapping[str, Mapping[str, Sequence[InputFile]]],
        overwrite: bool,
    ) -> None:
        """Begin.

        Args:
            run: where stage files go.
            job: the job's uid.
            data_root: what names of files are relative to.
            files: what each stage reads, by stage and input.
            overwrite: whether a result may replace files.
        """
        self._run = run
        self._uid = job
        self._root = data_root
        self._files = files
        self._overwrite = overwrite

    def path(self, stage: str) -> Path:
        """Return the stage file that its tasks read."""
        return self._run.path / "stages" / f"{stage}.json"

    def read(self, stage: str) -> StageFile | None:
        path = self.path(stage)
        return StageFile.decode(path.read_bytes(), what=str(path)) if path.exists() else None

    def write(self, made: StageFile) -> None:
        write_atomically(self.path(made.stage), made.encode())

    def files(self, stage: Stage) -> Mapping[str, Sequence[InputFile]]:
        return self._files[stage.name]

    def target(self, stage: Stage) -> FilesTarget | None:
        output = self._output(stage)
        return None if output is None else output.target

    def done(self, stage: Stage, *, since: int) -> Mapping[int, int]:
        return self._run.done(stage.name, since=since)

    def publish(self, stage: Stage, winners: Mapping[int, int]) -> int:
        output = self._output(stage)
        assert output is not None, "only stages with files publish"
        return output.publish(stage.name, winners, overwrite=self._overwrite)

    def _output(self, stage: Stage) -> Output | None:
        return output_of(stage, job=self._uid, data_root=self._root)


def output_of(stage: Stage, *, job: str, data_root: Path) -> Output | None:
    """Return where a stage's files go, if its output are files."""
    if not isinstance(stage.output, FilesOutput):
        return None
    return Output(local_path(data_root, stage.output.files, what="output"), job)
