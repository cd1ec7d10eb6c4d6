"""What a task of a staged job sees: its index, its inputs and its output.

    task = crossdock.task()
    with task.output.writer() as writer:
        for block in task.input("words").read():
            writer.write(partition, data, rows=n)

The same in a pod as in a process: the runner says what to read by `crossdock.stagefile`.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from crossdock.blocks import Block, BlockBatch
from crossdock.cluster import Cluster, connect
from crossdock.errors import ConfigError, DataCorrupt
from crossdock.job import Job
from crossdock.stagefile import (
    ENV_ATTEMPT,
    ENV_INDEX,
    ENV_JOB_INDEX,
    ENV_POD_UID,
    ENV_STAGE_FILE,
    FilesSource,
    FilesTarget,
    Share,
    ShuffleSource,
    ShuffleTarget,
    StageFile,
    attempt_of_pod,
    read_stage_file,
)
from crossdock.view import View
from crossdock.wire.names import U32_MAX, U64_MAX
from crossdock.writer import Writer


@dataclass(frozen=True, slots=True)
class FilesInput:
    """Files that this task reads, and no other."""

    name: str
    files: tuple[str, ...]
    """Paths, or URLs."""


class ShuffleInput:
    """This task's part of an earlier stage's shuffle."""

    def __init__(self, task: "Task", source: ShuffleSource, share: Share) -> None:
        """Use `Task.input`."""
        self.name = source.name
        self.partitions = range(source.partitions) if source.read_all else share.partitions
        """Which partitions this task reads."""
        self.maps = share.maps if share.split == source.name else None
        """Which maps of them; None: all."""
        self._task = task
        self._source = source

    @cached_property
    def view(self) -> View:
        """The shuffle, as all tasks of this stage see it."""
        source = self._source
        shuffle = self._task.job.shuffle(
            source.shuffle, partitions=source.partitions, generation=source.generation
        )
        view = shuffle.view(source.winners)
        if view.id != source.view:
            raise DataCorrupt(
                f"input {self.name!r} is view {view.id}, and the runner planned for {source.view}"
            )
        return view

    def read(self) -> Iterator[Block]:
        """Yield this task's blocks, by (partition, map), each whole and verified."""
        return self.view.read(self.partitions, self.maps)

    def read_batches(self) -> Iterator[BlockBatch]:
        """Yield the same blocks, many at once: quicker where blocks are small."""
        return self.view.read_batches(self.partitions, self.maps)


class ShuffleOutput:
    """The shuffle that this task writes to, as one of its maps."""

    def __init__(self, task: "Task", target: ShuffleTarget) -> None:
        """Use `Task.output`."""
        self.partitions = target.partitions
        self.compression = target.compression
        """What `crossdock.arrow` compresses with: zstd, lz4 or none."""
        self._task = task
        self._target = target

    def writer(self, *, replicas: int = 1) -> Writer:
        """Return this attempt's writer; leaving its `with` block commits the task's output."""
        shuffle = self._task.job.shuffle(self._target.shuffle, partitions=self.partitions)
        return shuffle.writer(
            map_id=self._task.index, attempt=self._task.attempt, replicas=replicas
        )


class FilesOutput:
    """Files that are part of the job's result, once this attempt has won."""

    def __init__(self, task: "Task", target: FilesTarget) -> None:
        """Use `Task.output`."""
        self._directory = target.of_attempt(task.index, task.attempt)
        self._index = task.index

    def path(self, suffix: str = "") -> Path:
        """Return where to write a file that will be published as `part-{index}{suffix}`.

        Args:
            suffix: such as ".parquet"; several files of a task differ in it.
        """
        if "/" in suffix or "\0" in suffix:
            raise ConfigError(f"suffix {suffix!r} is no part of a file name")
        self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory / f"part-{self._index:05d}{suffix}"


class Task:
    """The task that this process runs. Close it, or use it as a context manager."""

    def __init__(
        self, stage: StageFile, *, index: int, attempt: int, cluster: Cluster | None = None
    ) -> None:
        """Use `crossdock.task`."""
        self.index = index
        """From 0 to `count` - 1; the map id of what it writes."""
        self.attempt = attempt
        """Which try of the task this is; u64."""
        self.count = len(stage.shares)
        """How many tasks the stage has."""
        self.stage = stage.stage
        self.job_uid = stage.job
        self._cluster = cluster
        share = stage.shares[index]
        self.inputs: Mapping[str, FilesInput | ShuffleInput] = MappingProxyType(
            {source.name: self._input(source, share) for source in stage.inputs}
        )
        """By name: of the input, or of the stage it reads."""
        self.output: ShuffleOutput | FilesOutput = (
            ShuffleOutput(self, stage.output)
            if isinstance(stage.output, ShuffleTarget)
            else FilesOutput(self, stage.output)
        )

    def _input(
        self, source: FilesSource | ShuffleSource, share: Share
    ) -> FilesInput | ShuffleInput:
        if isinstance(source, ShuffleSource):
            return ShuffleInput(self, source, share)
        return FilesInput(source.name, share.files.get(source.name, ()))

    @cached_property
    def job(self) -> Job:
        """The job, attached to when it is first needed."""
        if self._cluster is None:
            self._cluster = connect()
        return self._cluster.job(self.job_uid)

    def input(self, name: str | None = None) -> ShuffleInput:
        """Return the shuffle input of a name, or the only one."""
        found = self._named(name, ShuffleInput)
        assert isinstance(found, ShuffleInput)
        return found

    def files(self, name: str | None = None) -> tuple[str, ...]:
        """Return this task's files of the input of a name, or of the only one of files."""
        found = self._named(name, FilesInput)
        assert isinstance(found, FilesInput)
        return found.files

    def _named(
        self, name: str | None, kind: type[FilesInput | ShuffleInput]
    ) -> FilesInput | ShuffleInput:
        of_kind = {n: i for n, i in self.inputs.items() if isinstance(i, kind)}
        what = "shuffle" if kind is ShuffleInput else "files"
        if name is None and len(of_kind) == 1:
            return next(iter(of_kind.values()))
        if name is None or name not in of_kind:
            asked = "an input was asked for without a name" if name is None else f"no {name!r}"
            raise ConfigError(
                f"stage {self.stage!r}: {asked}, and its inputs of kind {what} are "
                f"{sorted(of_kind) or 'none'}",
                hint="name one of them, or add it to the stage's inputs in the job file",
            )
        return of_kind[name]

    def close(self) -> None:
        """Close the connection to the workers. Idempotent."""
        if self._cluster is not None:
            self._cluster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def task() -> Task:
    """Return the task that this process was started for.

    Raises:
        ConfigError: this is no task of a staged job.
    """
    path = os.environ.get(ENV_STAGE_FILE)
    if not path:
        raise ConfigError(
            f"{ENV_STAGE_FILE} is not set: this process is no task of a staged job",
            hint="run the job with: crossdock run job.yaml",
        )
    stage = read_stage_file(Path(path))
    index = _number(ENV_INDEX, os.environ.get(ENV_INDEX) or os.environ.get(ENV_JOB_INDEX), U32_MAX)
    if index >= len(stage.shares):
        raise ConfigError(f"task {index} of stage {stage.stage!r}, which has {len(stage.shares)}")
    given = os.environ.get(ENV_ATTEMPT)
    attempt = _number(ENV_ATTEMPT, given, U64_MAX) if given else secrets.randbits(64)
    pod = os.environ.get(ENV_POD_UID)
    return Task(stage, index=index, attempt=attempt_of_pod(attempt, pod) if pod else attempt)


def _number(name: str, text: str | None, top: int) -> int:
    if text is None or not (text.isascii() and text.isdigit()) or int(text) > top:
        raise ConfigError(f"{name}={text!r} is not a whole number from 0 to {top}")
    return int(text)
