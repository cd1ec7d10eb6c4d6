"""What the machine wants done, done: each action asks workers or files, and answers by an event."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from crossdock.errors import AttemptsMissing, CrossdockError
from crossdock.job import Job
from crossdock.jobfile.model import (
    FilesInput,
    FilesOutput,
    ShuffleJob,
    ShuffleOutput,
    Stage,
    StageInput,
)
from crossdock.retry import patiently
from crossdock.stagefile import StageFile
from crossdock.stages.events import (
    Answer,
    InputsChecked,
    Observed,
    OutputMissing,
    Planned,
    Recorded,
)
from crossdock.stages.inputs import InputFile, find_files
from crossdock.stages.outputs import Output, local_path
from crossdock.stages.planning import stage_file, with_view
from crossdock.stages.rundir import RunDirectory, write_atomically
from crossdock.view import View
from crossdock.views import contents

FilesByStage: TypeAlias = Mapping[str, Mapping[str, Sequence[InputFile]]]
"""By stage and input."""
_WORKER_SECONDS: Final = 60.0


@dataclass(slots=True)
class StageFacts:
    """What is known of a stage beyond the machine's state; for tables and displays."""

    bytes_in: int = 0
    bytes_out: int = 0
    partitions: int = 0
    largest_bytes: int = 0
    median_bytes: int = 0


def find_inputs(job: ShuffleJob, data_root: Path) -> FilesByStage:
    """Return the files that each stage reads, by the names of its inputs.

    Raises:
        ConfigError: an input names no file.
    """
    return {
        stage.name: {
            i.name: find_files(data_root, i.files)
            for i in stage.inputs
            if isinstance(i, FilesInput)
        }
        for stage in job.stages
    }


class Actions:
    """The actions of one job. Thread-safe: several stages act at once."""

    def __init__(
        self,
        job: ShuffleJob,
        *,
        handle: Job,
        run: RunDirectory,
        data_root: Path,
        files: FilesByStage,
        overwrite: bool,
    ) -> None:
        """Begin.

        Args:
            job: the job file.
            handle: the job at the workers.
            run: where stage files go.
            data_root: what names of files are relative to.
            files: what `find_inputs` has found.
            overwrite: whether a result may replace files.
        """
        self._job = job
        self._handle = handle
        self._run = run
        self._root = data_root
        self._overwrite = overwrite
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        """Held while a stage file is written, or changed: stages that are recorded tell readers."""
        self._winners: dict[str, dict[int, int]] = {}
        self.held: dict[str, int] = {}
        """Bytes that the workers had of each stage's shuffle at the last `look`."""
        self.facts = {stage.name: StageFacts() for stage in job.stages}
        self._files = files

    def restore(self, stage: str, winners: Mapping[int, int]) -> None:
        """Take over the winners that an earlier runner recorded."""
        with self._lock:
            self._winners[stage] = dict(winners)

    def stage_path(self, stage: str) -> Path:
        """Return the stage file that its tasks read."""
        return self._run.path / "stages" / f"{stage}.json"

    def output(self, stage: Stage) -> Output | None:
        """Return where a stage's files go, if it has any."""
        return output_of(stage, job=self._handle.uid, data_root=self._root)

    def look(self) -> None:
        """Ask how much the workers hold of each stage's shuffle."""
        with suppress(CrossdockError):  # whoever needs the worker says what is wrong, not a display
            self.held = self._handle.held_bytes()

    def introduce(self) -> None:
        """Tell the job to a worker that has lost its disk; wait for one that starts again.

        Raises:
            Unavailable: it does not.
        """
        on_all = partial(self._handle.cluster.on_all, self._handle.introduce)
        patiently(on_all, deadline_seconds=_WORKER_SECONDS)

    # -- actions ---------------------------------------------------------------------------

    def plan(self, stage: Stage) -> Answer:
        """Write the stage file."""
        try:
            views = {i.name: self._view(i.stage) for i in stage_inputs(stage)}
        except AttemptsMissing:
            return self.check_inputs(stage)
        facts = self.facts[stage.name]
        files = self._files[stage.name]
        output = self.output(stage)
        made = stage_file(
            stage,
            job=self._handle.uid,
            views=views,
            files=files,
            directory=None if output is None else output.target,
        )
        with self._writing:
            write_atomically(self.stage_path(stage.name), made.encode())
        facts.bytes_in = sum(int(v.bytes.sum()) for v in views.values()) + sum(
            f.size for found in files.values() for f in found
        )
        return Planned(stage.name, tuple(s.to_json() for s in made.shares))

    def check_inputs(self, stage: Stage) -> Answer:
        """Look whether the shuffles that a stage reads are whole."""
        missing: dict[str, frozenset[int]] = {}
        for source in stage_inputs(stage):
            try:
                self._view(source.stage)
            except AttemptsMissing as error:
                missing[source.stage] = frozenset(m.map_id for m in error.missing)
        return InputsChecked(stage.name, missing)

    def observe(self, stage: Stage, *, since: int) -> Answer:
        """Find tasks that were complete before this runner began; no attempt below `since`."""
        if isinstance(stage.output, FilesOutput):
            return Observed(stage.name, self._run.done(stage.name, since=since))
        shuffle = self._handle.shuffle(stage.name, partitions=stage.output.partitions)
        return Observed(stage.name, shuffle.complete_attempts(since=since))

    def record(self, stage: Stage, winners: Mapping[int, int]) -> Answer:
        """Make sure that all is there that won; publish it, if it is the job's result."""
        facts = self.facts[stage.name]
        output = self.output(stage)
        if output is not None:
            facts.bytes_out = output.publish(stage.name, winners, overwrite=self._overwrite)
            return Recorded(stage.name)
        with self._lock:
            self._winners[stage.name] = dict(winners)
        try:
            view = self._view(stage.name)
        except AttemptsMissing as error:
            return OutputMissing(
                stage.name,
                {
                    m.map_id: f"it ended well, and its output is not there: {m.reason}"
                    for m in error.missing
                },
            )
        self._tell_readers(stage.name, view)
        facts.bytes_out = int(view.bytes.sum())
        facts.partitions = view.partitions
        facts.largest_bytes = int(view.bytes.max())
        facts.median_bytes = int(np.median(view.bytes))
        return Recorded(stage.name, contents(view.frames))

    def _tell_readers(self, stage: str, view: View) -> None:
        """Name the winners in the files of stages that were planned before some ran again.

        If they wrote something else the stages are planned anew; else their plan holds.
        """
        for reader in self._job.stages:
            path = self.stage_path(reader.name)
            if not any(i.stage == stage for i in stage_inputs(reader)):
                continue
            with self._writing:
                if path.exists():
                    made = StageFile.decode(path.read_bytes(), what=str(path))
                    write_atomically(path, with_view(made, view).encode())

    def _view(self, stage: str) -> View:
        output = self._job.stage(stage).output
        assert isinstance(output, ShuffleOutput)
        with self._lock:
            winners = dict(self._winners[stage])
        return self._handle.shuffle(stage, partitions=output.partitions).view(winners)


def stage_inputs(stage: Stage) -> Sequence[StageInput]:
    """Return the inputs of a stage that are shuffles."""
    return [i for i in stage.inputs if isinstance(i, StageInput)]


def output_of(stage: Stage, *, job: str, data_root: Path) -> Output | None:
    """Return where a stage's files go, if its output are files."""
    if not isinstance(stage.output, FilesOutput):
        return None
    return Output(local_path(data_root, stage.output.files, what="output"), job)
