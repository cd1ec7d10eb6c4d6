"""What the machine wants done, done: each action asks workers or files, and answers by an event."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from crossdock.errors import AttemptsMissing, CrossdockError, ShuffleReleased
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
from crossdock.stages.events import (
    Answer,
    InputsChecked,
    Observed,
    OutputMissing,
    Planned,
    Recorded,
)
from crossdock.stages.inputs import InputFile, find_files
from crossdock.stages.places import Place
from crossdock.stages.planning import stage_file, with_view
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
        place: Place,
    ) -> None:
        """Begin.

        Args:
            job: the job file.
            handle: the job at the workers.
            place: where stage files and results are.
        """
        self._job = job
        self._handle = handle
        self._place = place
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        """Held while a stage file is written, or changed: stages that are recorded tell readers."""
        self._winners: dict[str, dict[int, int]] = {}
        self.held: dict[str, int] = {}
        """Bytes that the workers had of each stage's shuffle at the last `look`."""
        self.facts = {stage.name: StageFacts() for stage in job.stages}

    def restore(self, stage: str, winners: Mapping[int, int]) -> None:
        """Take over the winners that an earlier runner recorded."""
        with self._lock:
            self._winners[stage] = dict(winners)

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
        files = self._place.files(stage)
        made = stage_file(
            stage,
            job=self._handle.uid,
            views=views,
            files=files,
            directory=self._place.target(stage),
        )
        with self._writing:
            self._place.write(made)
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
            return Observed(stage.name, self._place.done(stage, since=since))
        shuffle = self._handle.shuffle(stage.name, partitions=stage.output.partitions)
        return Observed(stage.name, shuffle.complete_attempts(since=since))

    def record(self, stage: Stage, winners: Mapping[int, int]) -> Answer:
        """Make sure that all is there that won; publish it, if it is the job's result."""
        facts = self.facts[stage.name]
        if isinstance(stage.output, FilesOutput):
            facts.bytes_out = self._place.publish(stage, winners)
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

    def secure(self, stage: Stage) -> bool:
        """Go on with bringing into the store what a recorded stage wrote; return if all is there.

        What was released since counts as there: nobody needs it.

        Raises:
            ConfigError: the workers have no store.
            AttemptsMissing: some of it was lost.
            Unavailable: call again.
        """
        try:
            return self._view(stage.name).try_persist() is not None
        except ShuffleReleased:
            return True

    def _tell_readers(self, stage: str, view: View) -> None:
        """Name the winners in the files of stages that were planned before some ran again.

        If they wrote something else the stages are planned anew; else their plan holds.
        """
        for reader in self._job.stages:
            if not any(i.stage == stage for i in stage_inputs(reader)):
                continue
            with self._writing:
                made = self._place.read(reader.name)
                if made is not None:
                    self._place.write(with_view(made, view))

    def _view(self, stage: str) -> View:
        output = self._job.stage(stage).output
        assert isinstance(output, ShuffleOutput)
        with self._lock:
            winners = dict(self._winners[stage])
        return self._handle.shuffle(stage, partitions=output.partitions).view(winners)


def stage_inputs(stage: Stage) -> Sequence[StageInput]:
    """Return the inputs of a stage that are shuffles."""
    return [i for i in stage.inputs if isinstance(i, StageInput)]
