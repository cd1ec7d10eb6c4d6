"""`ShuffleJob`: the owner of shuffles, with stages of its own or an engine attached."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final

from crossdock_operator.api.common import Conditions, Seconds
from crossdock_operator.api.fields import (
    Fragment,
    Items,
    Name,
    ObjectName,
    Quantity,
    Range,
    Rule,
    Text,
    unchanged,
)
from crossdock_operator.api.lifecycle import Lifecycle
from crossdock_operator.api.stages import spec_fields

_FILE: Final = spec_fields()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReference:
    """The cluster that serves a job."""

    name: Annotated[Name, "Name of the ShuffleCluster."] = "default"
    namespace: Annotated[Name | None, "Its namespace; default: the job's own."] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleTarget:
    """What has a scale subresource, in the job's namespace."""

    api_version: Annotated[str, "Such as apps/v1.", Text(253, least=1)]
    kind: Annotated[str, "Such as Deployment.", Text(63, least=1)]
    name: Annotated[ObjectName, "Its name."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Executors:
    """An engine's executors, scaled by what it reports."""

    RULES: ClassVar = (
        Rule("self.min <= self.max", "must not be more than max", ".min"),
        Rule("self.idle <= self.max", "must not be more than max", ".idle"),
    )
    scale_target_ref: Annotated[
        ScaleTarget,
        "What is scaled. It must carry the annotation crossdock.dev/scalable-by: <job>.",
    ]
    min: Annotated[int, "Fewest executors while a stage runs.", Range(0, 100_000)] = 0
    max: Annotated[int, "Most executors.", Range(1, 100_000)]
    idle: Annotated[int, "Executors between stages.", Range(0, 100_000)] = 0
    cooldown_seconds: Annotated[Seconds, "Shortest time between two steps down."] = 30
    tasks_per_executor: Annotated[int, "Tasks that an executor runs at once.", Range(1, 1024)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerReference:
    """An object of the job's namespace whose end ends the job."""

    api_version: Annotated[str, "Such as batch/v1.", Text(253, least=1)]
    kind: Annotated[
        str,
        "Pod, Job, or another that the operator was told of by --owner-kinds.",
        Text(63, least=1),
    ]
    name: Annotated[ObjectName, "Its name."]


_AGAIN: Final = "cannot be changed: make a new ShuffleJob"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleJobSpec:
    """Stages to run, or what the operator does for an engine that runs its own."""

    RULES: ClassVar = (
        Rule(
            "!(has(self.stages) && has(self.executors))",
            "a job has stages of its own or executors of an engine, not both",
        ),
        Rule("has(self.stages) || !has(self.dataRoot)", "is for jobs with stages", ".dataRoot"),
        unchanged("stages", _AGAIN),
        unchanged("dataRoot", _AGAIN),
        unchanged("owner", _AGAIN),
        unchanged("persistence", _AGAIN),
        unchanged("executors", f"their target {_AGAIN}", part="scaleTargetRef"),
        Rule("self.clusterRef == oldSelf.clusterRef", _AGAIN, ".clusterRef"),
    )
    cluster_ref: Annotated[ClusterReference, "The ShuffleCluster that serves the job."] = field(
        default_factory=ClusterReference
    )
    data_root: Annotated[str | None, Fragment(_FILE["dataRoot"])] = None
    stages: Annotated[tuple[Mapping[str, Any], ...], Fragment(_FILE["stages"])] = ()
    executors: Annotated[Executors | None, "An attached engine's executors to scale."] = None
    owner: Annotated[
        OwnerReference | None, "An object whose end or deletion ends the job, such as a driver pod."
    ] = None
    persistence: Annotated[str | None, Fragment(_FILE["persistence"])] = None
    quota: Annotated[
        int | None, "Bytes that the job may have on each worker's disk.", Quantity()
    ] = None
    lifecycle: Annotated[Lifecycle, "How long the job and its shuffles stay."] = field(
        default_factory=Lifecycle
    )
    active_deadline_seconds: Annotated[float | None, Fragment(_FILE["activeDeadlineSeconds"])] = (
        None
    )
    suspend: Annotated[bool, "While true no task runs. Shuffles stay."] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """One stage."""

    name: Annotated[Name, "The stage."]
    phase: Annotated[str, "Waiting, Planned, Running, Done or Failed.", Text(32)] = ""
    tasks: Annotated[int, "Tasks it has."] = 0
    done: Annotated[int, "Tasks that are done."] = 0
    attempts: Annotated[int, "Tries of tasks so far."] = 0
    partitions: Annotated[int, "Partitions of its shuffle."] = 0
    bytes: Annotated[int, "Bytes of its shuffle."] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorsStatus:
    """Executors of an attached engine."""

    current: Annotated[int, "Executors there are."] = 0
    desired: Annotated[int, "Executors there shall be."] = 0
    releasable: Annotated[int, "Executors without data that only they have."] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleJobStatus:
    """What the operator saw last."""

    observed_generation: Annotated[int, "Generation of the spec that this is about."] = 0
    phase: Annotated[
        str, "Pending, Waiting, Ready, Running, Suspended, Succeeded, Failed or Deleting.", Text(32)
    ] = ""
    stages: Annotated[tuple[StageStatus, ...], "The job's stages.", Items(100, keys=("name",))] = ()
    progress: Annotated[str, "Stages that are done of all, such as 2/5.", Text(32)] = ""
    executors: Annotated[ExecutorsStatus | None, "Executors of an attached engine."] = None
    worker_bytes: Annotated[int, "Bytes on the workers' disks."] = 0
    store_bytes: Annotated[int, "Bytes in the store."] = 0
    disk_only_bytes: Annotated[int, "Of those on disks, bytes that the store does not have."] = 0
    store_requests: Annotated[int, "Requests to the store so far."] = 0
    estimated_cost: Annotated[str, "Dollars that these requests cost, estimated.", Text(32)] = ""
    connection_secret: Annotated[
        str, "Secret with which an engine reaches the workers.", Text(253)
    ] = ""
    owner_uid: Annotated[str, "Uid of the job's owner, once it was seen.", Text(64)] = ""
    conditions: Annotated[Conditions, "Answers about the job."] = ()
