"""How long a job's owner was silent, kept over restarts: {job directory}/silence.

Without it a worker that crashes again and again would keep the job of a dead owner for ever. Only
seconds in which a process listened are in it, and only once there are many: so nothing is written
while owners speak (`words.silence_to_keep`). It counts until the machine starts anew, as a crash of
the machine may bring a file back that a word had voided.
"""

import json
from pathlib import Path
from typing import Final, Self

from crossdock_worker.files import write_json, writing

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what names this start of the machine; empty where the system has no such name."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Silence:
    """Of one job. Lives on the event loop."""

    __slots__ = ("_boot", "_path", "seconds")

    def __init__(self, path: Path, boot: str, seconds: float = 0.0) -> None:
        """Use `read`."""
        self._path = path
        self._boot = boot
        self.seconds = seconds
        """What is on disk."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what an earlier process has kept: 0 if nothing, or not since the machine started."""
        boot = boot_id()
        try:
            data = json.loads(path.read_text())
            seconds = float(data["seconds"]) if boot and data["boot"] == boot else 0.0
        except (OSError, ValueError, KeyError, TypeError):
            seconds = 0.0
        return cls(path, boot, seconds)

    def keep(self, seconds: float) -> bool:
        """Write down that it was so long, if that is more than there is; return whether it was.

        Raises as `files.disk_error` says.
        """
        if not self._boot or seconds <= self.seconds:
            return False
        write_json(self._path, {"boot": self._boot, "seconds": seconds})
        self.seconds = seconds
        return True

    def forget(self) -> None:
        """Void what was kept, on disk first; raises as `files.disk_error` says."""
        if self.seconds:
            with writing(self._path):
                self._path.unlink(missing_ok=True)
            self.seconds = 0.0
