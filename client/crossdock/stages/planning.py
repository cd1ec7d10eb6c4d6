"""From what a stage reads to its stage file: asks the views, and lets `plan` decide."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from crossdock.jobfile.model import FilesInput, ShuffleOutput, Stage, StageInput
from crossdock.stagefile import (
    FilesSource,
    FilesTarget,
    Share,
    ShuffleSource,
    ShuffleTarget,
    StageFile,
)
from crossdock.stages.inputs import InputFile, share_files
from crossdock.stages.plan import BlockSizes, InputStatistics, Slice, plan, skewed
from crossdock.view import View


def stage_file(
    stage: Stage,
    *,
    job: str,
    views: Mapping[str, View],
    files: Mapping[str, Sequence[InputFile]],
    directory: FilesTarget | None,
) -> StageFile:
    """Return what the tasks of a stage are told, and so how many there are.

    Args:
        stage: as the job file has it.
        job: the job's uid.
        views: of each input that is a shuffle, by the input's name.
        files: of each input of files, by its name.
        directory: where attempts write, if the stage's output are files.
    """
    slices = _slices(stage, views)
    shared = {
        name: share_files(
            found,
            tasks=stage.parallelism if slices is None else len(slices),
            target_bytes=stage.plan.target_task_bytes,
            max_tasks=stage.plan.max_tasks,
        )
        for name, found in files.items()
    }
    if slices is None:
        tasks = stage.parallelism or max(map(len, shared.values()), default=1)
        slices = [Slice(partitions=range(0))] * tasks
    shares = tuple(
        Share(
            partitions=part.partitions,
            maps=part.maps,
            split=part.split_input,
            files={n: tuple(f.path for f in s[i]) if i < len(s) else () for n, s in shared.items()},
        )
        for i, part in enumerate(slices)
    )
    return StageFile(
        job=job,
        stage=stage.name,
        inputs=tuple(_source(i, views) for i in stage.inputs),
        output=_target(stage, directory),
        shares=shares,
    )


def with_view(made: StageFile, view: View) -> StageFile:
    """Return a stage file whose inputs from a shuffle are read by another view of it."""

    def source(old: FilesSource | ShuffleSource) -> FilesSource | ShuffleSource:
        if isinstance(old, FilesSource) or old.shuffle != view.shuffle.key.name:
            return old
        return replace(old, winners=tuple(sorted(view.winners.items())), view=view.id)

    return replace(made, inputs=tuple(map(source, made.inputs)))


def _slices(stage: Stage, views: Mapping[str, View]) -> list[Slice] | None:
    """Return the tasks' shares of the shuffles; None if no input is read by partitions."""
    shared = [i for i in stage.inputs if isinstance(i, StageInput) and not i.read_all]
    if not shared:
        return None
    blocks: dict[str, dict[int, BlockSizes]] = {i.name: {} for i in shared}
    inputs = {
        i.name: InputStatistics(
            bytes=views[i.name].bytes,
            may_split=i.split,
            maps=max(views[i.name].winners, default=-1) + 1,
            blocks=blocks[i.name],
        )
        for i in shared
    }
    for name, partitions in skewed(inputs, stage.plan, tasks=stage.parallelism).items():
        for partition in partitions:
            sizes = views[name].block_sizes(range(partition, partition + 1))
            blocks[name][partition] = (
                sizes["map"].astype(np.uint32),
                sizes["bytes"].astype(np.uint64),
            )
    return plan(inputs, stage.plan, tasks=stage.parallelism)


def _source(
    source: FilesInput | StageInput, views: Mapping[str, View]
) -> FilesSource | ShuffleSource:
    if isinstance(source, FilesInput):
        return FilesSource(name=source.name)
    view = views[source.name]
    return ShuffleSource(
        name=source.name,
        shuffle=view.shuffle.key.name,
        generation=view.shuffle.key.generation,
        partitions=view.partitions,
        winners=tuple(sorted(view.winners.items())),
        view=view.id,
        read_all=source.read_all,
    )


def _target(stage: Stage, directory: FilesTarget | None) -> ShuffleTarget | FilesTarget:
    if isinstance(stage.output, ShuffleOutput):
        return ShuffleTarget(
            shuffle=stage.name,
            partitions=stage.output.partitions,
            compression=stage.output.compression,
        )
    assert directory is not None
    return directory
