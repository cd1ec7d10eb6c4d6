"""What a runner tells the tasks of a stage: a JSON file, the same for all of them.

    {"version": 1, "job": uid, "stage": name,
     "inputs": [{"name": …, "kind": "files"},
                {"name": …, "kind": "shuffle", "shuffle": …, "generation": 0, "partitions": P,
                 "all": false, "winners": [[map, attempt], …], "view": id}],
     "output": {"kind": "shuffle", "shuffle": …, "partitions": P, "compression": "zstd"}
               or {"kind": "files", "directory": …},
     "shares": [{"partitions": [a, b], "maps": [i, j] or null, "split": name or null,
                 "files": {name: [path, …]}}, …]}

`shares` has what each task reads, by its index. The task's index and attempt, the workers and the
token come by environment variables (`ENV_…`).

In a pod the file is compressed, and in parts, since an object of the API server has 1 MiB at most.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from crossdock.errors import ConfigError

ENV_STAGE_FILE: Final = "CROSSDOCK_STAGE_FILE"
ENV_INDEX: Final = "CROSSDOCK_TASK_INDEX"
ENV_ATTEMPT: Final = "CROSSDOCK_TASK_ATTEMPT"
ENV_JOB_INDEX: Final = "JOB_COMPLETION_INDEX"
"""What Kubernetes sets in the pods of an Indexed Job."""
ENV_POD_UID: Final = "CROSSDOCK_POD_UID"
"""Of several pods of one try each writes under an attempt of its own: `attempt_of_pod`."""
VERSION: Final = 1
_PART: Final = "part-"
_MAX_BYTES: Final = 2**30
"""Of a stage file that came compressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSource:
    """An input of files; each task's are in its share."""

    name: str

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "kind": "files"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleSource:
    """An input that is an earlier stage's shuffle."""

    name: str
    shuffle: str
    partitions: int
    winners: tuple[tuple[int, int], ...]
    view: str
    """Id of the view of these winners: every task must see the same."""
    read_all: bool = False
    generation: int = 0

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "kind": "shuffle",
            "shuffle": self.shuffle,
            "generation": self.generation,
            "partitions": self.partitions,
            "all": self.read_all,
            "winners": [list(w) for w in self.winners],
            "view": self.view,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleTarget:
    """An output that is a shuffle."""

    shuffle: str
    partitions: int
    compression: str

    def to_json(self) -> dict[str, object]:
        return {
            "kind": "shuffle",
            "shuffle": self.shuffle,
            "partitions": self.partitions,
            "compression": self.compression,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesTarget:
    """An output of files: each attempt writes to a directory of its own below this one."""

    directory: str

    def to_json(self) -> dict[str, object]:
        return {"kind": "files", "directory": self.directory}

    def of_attempt(self, index: int, attempt: int) -> Path:
        return Path(self.directory) / f"{index}-{attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one task reads."""

    partitions: range = range(0)
    """Of every shuffle that is not read whole."""
    maps: range | None = None
    """Only these maps, of the input `split`; None: all."""
    split: str | None = None
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return {
            "partitions": [self.partitions.start, self.partitions.stop],
            "maps": None if self.maps is None else [self.maps.start, self.maps.stop],
            "split": self.split,
            "files": {name: list(paths) for name, paths in self.files.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(
            partitions=range(*value["partitions"]),
            maps=None if value["maps"] is None else range(*value["maps"]),
            split=value["split"],
            files={name: tuple(paths) for name, paths in value["files"].items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFile:
    """All that the tasks of a stage are told."""

    job: str
    stage: str
    inputs: tuple[FilesSource | ShuffleSource, ...]
    output: ShuffleTarget | FilesTarget
    shares: tuple[Share, ...]

    def encode(self) -> bytes:
        """Return the file's contents."""
        value = {
            "version": VERSION,
            "job": self.job,
            "stage": self.stage,
            "inputs": [i.to_json() for i in self.inputs],
            "output": self.output.to_json(),
            "shares": [s.to_json() for s in self.shares],
        }
        return json.dumps(value).encode()

    @classmethod
    def decode(cls, data: bytes, *, what: str) -> Self:
        """Read a file's contents, or raise `ConfigError` naming `what`."""
        try:
            value = json.loads(data)
            if value["version"] != VERSION:
                raise ConfigError(
                    f"{what} is of version {value['version']}, this crossdock reads {VERSION}",
                    hint="use the same version of crossdock in the tasks as in the runner",
                )
            return cls(
                job=value["job"],
                stage=value["stage"],
                inputs=tuple(_source(i) for i in value["inputs"]),
                output=_target(value["output"]),
                shares=tuple(Share.from_json(s) for s in value["shares"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{what} is no stage file: {error!r}") from error


def attempt_of_pod(attempt: int, uid: str) -> int:
    """Return the attempt under which a pod writes.

    Args:
        attempt: that its try was started with; its low 16 bits are 0.
        uid: of the pod. Kubernetes may start another for the same try when the first is lost.
    """
    return attempt | int.from_bytes(hashlib.sha256(uid.encode()).digest()[:2])


def pack(data: bytes, *, part_bytes: int) -> dict[str, bytes]:
    """Return a stage file's contents as files of a directory, none larger than `part_bytes`."""
    packed = zlib.compress(data)
    starts = range(0, len(packed), part_bytes)
    return {f"{_PART}{n:05d}": packed[at : at + part_bytes] for n, at in enumerate(starts)}


def unpack(parts: Mapping[str, bytes]) -> bytes:
    """Return the contents of a stage file from what `pack` made of it.

    Raises:
        ConfigError: these are no such files.
    """
    names = sorted(name for name in parts if name.startswith(_PART))
    packed = b"".join(parts[name] for name in names)
    return inflate(packed, most_bytes=_MAX_BYTES, what="stage file in parts")


def inflate(packed: bytes, *, most_bytes: int, what: str) -> bytes:
    """Return what `zlib.compress` made something of, which is no more than a number of bytes.

    Raises:
        ConfigError: it is damaged, cut off, or has more.
    """
    decoder = zlib.decompressobj()
    try:
        data = decoder.decompress(packed, most_bytes)
    except zlib.error as error:
        raise ConfigError(f"the {what} is damaged: {error}") from error
    if not decoder.eof:
        raise ConfigError(f"of the {what} some is missing, or it has more than {most_bytes} bytes")
    return data


def read_stage_file(path: Path) -> StageFile:
    """Read a stage file, or a directory with one in parts.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        if path.is_dir():
            data = unpack({p.name: p.read_bytes() for p in path.iterdir() if p.is_file()})
        else:
            data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {ENV_STAGE_FILE}: {error}") from error
    return StageFile.decode(data, what=str(path))


def _source(value: Mapping[str, Any]) -> FilesSource | ShuffleSource:
    if value["kind"] == "files":
        return FilesSource(name=value["name"])
    return ShuffleSource(
        name=value["name"],
        shuffle=value["shuffle"],
        generation=value["generation"],
        partitions=value["partitions"],
        read_all=value["all"],
        winners=tuple((m, a) for m, a in value["winners"]),
        view=value["view"],
    )


def _target(value: Mapping[str, Any]) -> ShuffleTarget | FilesTarget:
    if value["kind"] == "files":
        return FilesTarget(directory=value["directory"])
    return ShuffleTarget(
        shuffle=value["shuffle"],
        partitions=value["partitions"],
        compression=value["compression"],
    )
