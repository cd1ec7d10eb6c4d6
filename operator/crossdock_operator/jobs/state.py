"""What must survive the operator of a job that runs: one ConfigMap, written before it is acted on.

Who takes a job up writes a higher epoch first, by the version that it has read. So of two operators
that both hold themselves for the leader the slower one fails, and does nothing more.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

from crossdock.errors import ConfigError
from crossdock.stagefile import inflate
from crossdock.stages.states import Checkpoint

FILE: Final = "state"
_MOST_BYTES: Final = 1_000_000
"""An object of the API server has 1 MiB at most."""
_MOST_TEXT_BYTES: Final = 64 * 2**20
"""Of what is packed in it, some ten times what real states have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended."""

    failure: str | None
    reason: str
    """In one word."""
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One job, as far as it has come."""

    document: Mapping[str, Any]
    """The spec's stages, and what else a run needs of it, as they were when it was accepted."""
    epoch: int = 0
    """Counts the operators that have taken the job up."""
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By stage, the ConfigMaps with its newest stage file."""
    used_seconds: float = 0.0
    """For how long it had run when it was suspended last."""
    since: float | None = None
    """Since when it runs, in seconds since 1970; None: it is suspended."""
    ended: Ended | None = None
    released: bool = False
    """Whether the shuffles of a job that ended are released."""

    def encode(self) -> bytes:
        """Return the contents of the ConfigMap.

        Raises:
            ConfigError: they are too large for one.
        """
        value = {**asdict(replace(self, document={})), "document": dict(self.document)}
        packed = zlib.compress(json.dumps(value).encode())
        if len(packed) > _MOST_BYTES:
            raise ConfigError(
                f"the state of the job has {len(packed)} bytes, and {_MOST_BYTES} can be kept",
                hint="fewer tasks: raise targetTaskSize or lower maxTasks",
            )
        return packed

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` made.

        Raises:
            ConfigError: it is something else: whoever may write ConfigMaps there may write it.
        """
        text = inflate(data, most_bytes=_MOST_TEXT_BYTES, what="kept state of the job")
        value = json.loads(text)
        ended = value.pop("ended")
        value["document"].get("spec", {}).pop("activeDeadlineSeconds", None)  # kept once
        return cls(
            **{
                **value,
                "checkpoint": Checkpoint.from_json(value["checkpoint"]),
                "files": {stage: tuple(names) for stage, names in value["files"].items()},
                "ended": None if ended is None else Ended(**ended),
            }
        )

    def run_seconds(self, now: float) -> float:
        """Return for how long the job has run."""
        return self.used_seconds + (0.0 if self.since is None else now - self.since)

    def paused(self, now: float, *, suspend: bool) -> Self:
        """Return the state with the clock stopped, or going on."""
        if suspend == (self.since is None):
            return self
        used = self.run_seconds(now)
        return replace(self, used_seconds=used, since=None if suspend else now)


def document_of(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ShuffleJob's spec as a job file, with only what is fixed when it begins."""
    kept = ("stages", "dataRoot", "persistence")
    return {
        "metadata": {"name": name},
        "spec": {k: spec[k] for k in kept if spec.get(k) is not None},
    }
