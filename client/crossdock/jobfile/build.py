"""A valid document → the model. Expects what the schema and the checks let through."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from crossdock.jobfile.checks import input_name
from crossdock.jobfile.model import (
    FilesInput,
    FilesOutput,
    PlanSettings,
    ShuffleJob,
    ShuffleOutput,
    Stage,
    StageInput,
)
from crossdock.jobfile.quantity import parse_bytes
from crossdock.records import Persistence

_AUTO: Final = "auto"


def build(document: Mapping[str, Any], *, for_clusters: Collection[str]) -> ShuffleJob:
    """Return the job that a valid document describes.

    Args:
        document: the parsed job file.
        for_clusters: names of the spec's fields that only a cluster honours.
    """
    spec = document["spec"]
    deadline = spec.get("activeDeadlineSeconds")
    return ShuffleJob(
        name=document["metadata"]["name"],
        data_root=spec.get("dataRoot"),
        active_deadline_seconds=None if deadline is None else float(deadline),
        persistence=Persistence(spec.get("persistence", Persistence.ON_PRESSURE)),
        for_clusters=tuple(name for name in spec if name in for_clusters),
        stages=tuple(map(_stage, spec["stages"])),
    )


def _stage(stage: Mapping[str, Any]) -> Stage:
    parallelism = stage.get("parallelism", _AUTO)
    return Stage(
        name=stage["name"],
        inputs=tuple(map(_input, stage.get("inputs", ()))),
        parallelism=None if parallelism == _AUTO else int(parallelism),
        plan=_plan(stage.get("plan", {})),
        retries=int(stage.get("retries", 3)),
        output=_output(stage["output"]),
        pod_template=stage["podTemplate"],
    )


def _input(each: Mapping[str, Any]) -> FilesInput | StageInput:
    name = input_name(each)
    if "files" in each:
        return FilesInput(name=name, files=each["files"])
    return StageInput(
        name=name,
        stage=each["stage"],
        read_all=each.get("read") == "All",
        split=each.get("split", False),
    )


def _plan(plan: Mapping[str, Any]) -> PlanSettings:
    default = PlanSettings()
    return PlanSettings(
        target_task_bytes=parse_bytes(plan.get("targetTaskSize", default.target_task_bytes)),
        skew_factor=float(plan.get("skewFactor", default.skew_factor)),
        skew_floor_bytes=parse_bytes(plan.get("skewFloor", default.skew_floor_bytes)),
        max_tasks=int(plan.get("maxTasks", default.max_tasks)),
    )


def _output(output: Mapping[str, Any]) -> ShuffleOutput | FilesOutput:
    if "files" in output:
        return FilesOutput(files=output["files"])
    shuffle = output["shuffle"]
    return ShuffleOutput(
        partitions=int(shuffle["partitions"]), compression=shuffle.get("compression", "zstd")
    )
