"""For how long processes have run on a disk: a clock that nobody sets, and that restarts keep.

{data_dir}/ran-seconds    what it showed a while ago
"""

import json
from pathlib import Path

from crossdock_worker.files import write_json
from crossdock_worker.life import clock


class RunningTime:
    """In seconds. Time in which nothing ran does not count, nor the last that a crash cut off."""

    def __init__(self, path: Path) -> None:
        """Go on from what an earlier process has kept; from 0 if that does not read."""
        self._path = path
        self._began = clock()
        try:
            self._before = float(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            self._before = 0.0

    def now(self) -> float:
        """Return the reading."""
        return self._before + clock() - self._began

    def keep(self) -> None:
        """Write it down, for who starts on this disk again; raises as `files.disk_error` says."""
        write_json(self._path, round(self.now(), 3))
