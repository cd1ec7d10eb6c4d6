"""What a job file says, as values. No I/O here: `load` makes them from YAML.

A job that came from `load` is sound: names are unique, inputs read shuffles of earlier stages,
inputs that are read by partitions have the same number of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from crossdock.errors import ConfigError
from crossdock.jobfile.pod import Container, container_of
from crossdock.records import Persistence

MIB: Final = 2**20

Compression: TypeAlias = Literal["zstd", "lz4", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """How a stage's inputs are shared out among its tasks."""

    target_task_bytes: int = 64 * MIB
    """Bytes that a task should read; small neighbouring partitions are joined up to it."""
    skew_factor: float = 5.0
    """A partition is large beyond this multiple of the median …"""
    skew_floor_bytes: int = 256 * MIB
    """… if it is also larger than this."""
    max_tasks: int = 1000
    """Most tasks that are made when their number is not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesInput:
    """Files, shared out among the tasks."""

    name: str
    """How the task calls it."""
    files: str
    """A name or glob relative to the data root, or a URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageInput:
    """The shuffle of an earlier stage."""

    name: str
    """How the task calls it."""
    stage: str
    read_all: bool = False
    """Every task reads all of it; else each reads its partitions."""
    split: bool = False
    """Whether several tasks may share a large partition of it, by ranges of maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleOutput:
    """A shuffle, for later stages."""

    partitions: int
    compression: Compression = "zstd"
    """What `crossdock.arrow` compresses with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesOutput:
    """Final output."""

    files: str
    """A directory relative to the data root, or a URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Tasks that run one program, each on its share of the inputs."""

    name: str
    output: ShuffleOutput | FilesOutput
    pod_template: Mapping[str, object]
    """A Kubernetes PodTemplateSpec as it was written."""
    inputs: tuple[FilesInput | StageInput, ...] = ()
    parallelism: int | None = None
    """Number of tasks; None: by the bytes of the inputs."""
    plan: PlanSettings = field(default_factory=PlanSettings)
    retries: int = 3
    """Further tries of a task after its first."""

    @property
    def container(self) -> Container:
        """How to start a task of this stage."""
        return container_of(self.pod_template)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleJob:
    """A whole job: stages in an order in which they can run."""

    name: str
    stages: tuple[Stage, ...]
    data_root: str | None = None
    """A URL or path as it was written; None: the job file's directory."""
    active_deadline_seconds: float | None = None
    """After so long the job fails; None: never."""
    persistence: Persistence = Persistence.ON_PRESSURE
    """When workers with a store persist by themselves."""
    for_clusters: tuple[str, ...] = ()
    """Names of the fields it has that only a cluster honours."""

    def stage(self, name: str) -> Stage:
        """Return the stage of this name, or raise `ConfigError`."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(s.name for s in self.stages)
        raise ConfigError(f"job {self.name} has no stage {name!r}", hint=f"stages: {known}")

    def upstream(self, stage: Stage) -> tuple[Stage, ...]:
        """Return the stages whose shuffles this one reads, each once, in the job's order."""
        read = {i.stage for i in stage.inputs if isinstance(i, StageInput)}
        return tuple(s for s in self.stages if s.name in read)
