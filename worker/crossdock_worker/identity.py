"""Who a worker is: {data_dir}/identity."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from crossdock.errors import ConfigError
from crossdock_worker.files import write_json

FORMAT_VERSION: Final = 1
_BEFORE_IDENTITY: Final = {"lock", "lost+found", ".identity.new"}
"""What an empty volume, or a start that was killed at once, leaves behind."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is. Another id at the same address means that the disk is another."""

    id: str
    incarnation: int

    @classmethod
    def claim(cls, data_dir: Path) -> Self:
        """Read the identity of a data directory, or make one; counts the start."""
        path = data_dir / "identity"
        if path.exists():
            try:
                data = json.loads(path.read_text())
                identity = cls(str(data["id"]), int(data["incarnation"]) + 1)
                version = int(data["format"])
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path} is damaged: {error}") from error
            if version != FORMAT_VERSION:
                raise ConfigError(
                    f"{data_dir} has format {version}, this worker writes {FORMAT_VERSION}",
                    hint="use a new data directory, or the version that made it",
                )
        elif any(p.name not in _BEFORE_IDENTITY for p in data_dir.iterdir()):
            raise ConfigError(
                f"--data-dir {data_dir} holds other files and no worker's identity",
                hint="name an empty directory, or one that a worker has used",
            )
        else:
            identity = cls(os.urandom(16).hex(), 1)
        write_json(path, {**asdict(identity), "format": FORMAT_VERSION})
        return identity
