"""What a job has released, and what of that is still in the store.

{job directory}/released.json    {shuffle: first generation that is not released}
{job directory}/in-store.json    whether a worker ever wrote there; what of it is proved to be gone;
                                 bytes of what was released and is not, that are from this worker
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from crossdock.lifecycle.facts import Facts, is_known, most
from crossdock.lifecycle.lease import ALWAYS
from crossdock_worker.life import clock
from crossdock_worker.shuffle_log import ShuffleLog
from crossdock_worker.trash import Trash

_RELEASED: Final = "released.json"
_IN_STORE: Final = "in-store.json"


class Released:
    """Of one job. Its owner locks whoever changes it; what is read is replaced whole."""

    def __init__(self, directory: Path, trash: Trash) -> None:
        """Begin with nothing; `load` reads what an earlier process has kept."""
        self._directory = directory
        self._trash = trash
        self.generations: Mapping[str, int] = {}
        """By shuffle, the first generation that is not released."""
        self.cleared: Mapping[str, int] = {}
        """By shuffle, the first generation that may have something in the store."""
        self.stored = False
        """Whether a worker, maybe another one, may have written something of the job there."""
        self._bytes: Mapping[str, Mapping[int, int]] = {}
        """By shuffle and generation, of payload that this worker has brought there."""
        self._since: dict[str, float] = {}
        """By shuffle, when this process learnt of the newest release."""

    def load(self) -> None:
        """Read what there is; raises `ValueError` and the like where it is damaged."""
        path = self._directory / _RELEASED
        if path.exists():
            found = json.loads(path.read_text())
            self.generations = {str(name): int(first) for name, first in found.items()}
        path = self._directory / _IN_STORE
        if path.exists():
            found = json.loads(path.read_text())
            self.stored = found["stored"] is True
            self.cleared = {str(name): int(first) for name, first in found["cleared"].items()}
            self._bytes = {
                str(name): {int(generation): int(n) for generation, n in each.items()}
                for name, each in found["bytes"].items()
            }
        self._since = dict.fromkeys(self.generations, clock())

    @property
    def bytes_left(self) -> int:
        """Bytes of payload of this worker in the store that are not proved to be deleted.

        A crash may have come between the note of them and the release: then they count as before.
        """
        return sum(
            size
            for name, each in self._bytes.items()
            for generation, size in each.items()
            if generation < self.generations.get(name, 0)
        )

    def since(self, name: str) -> float:
        """Return when this process learnt of the newest release of a shuffle."""
        return self._since.get(name, ALWAYS)

    def write_down(self, generations: Mapping[str, int], dropped: Iterable[ShuffleLog]) -> None:
        """Write down, on disk first, what is released, and what it has in the store.

        Args:
            generations: all that are released.
            dropped: the logs of those that are here, which are about to go.
        """
        left = {name: dict(each) for name, each in self._bytes.items()}
        for log in dropped:
            if log.runs.stored_bytes:
                left.setdefault(log.key.name, {})[log.key.generation] = log.runs.stored_bytes
        if left != self._bytes:
            self._keep(self.cleared, left, stored=True)
        self._trash.write_down(self._directory / _RELEASED, dict(generations))

    def hold(self, generations: Mapping[str, int]) -> None:
        """Let hold what was written down."""
        news = [n for n, first in generations.items() if self.generations.get(n, 0) < first]
        self._since.update(dict.fromkeys(news, clock()))
        self.generations = dict(generations)

    def knows(self, facts: Facts) -> bool:
        """Whether all that somebody knows of the store is known here."""
        return self.stored >= facts.stored and is_known(self.cleared, facts.cleared)

    def learn(self, facts: Facts) -> None:
        """Take what somebody knows of the store, on disk first."""
        cleared = most(self.cleared, facts.cleared)
        left = {
            name: kept
            for name, each in self._bytes.items()
            if (kept := {g: n for g, n in each.items() if g >= cleared.get(name, 0)})
        }
        self._keep(cleared, left, stored=self.stored or facts.stored)

    def _keep(
        self, cleared: Mapping[str, int], left: Mapping[str, Mapping[int, int]], *, stored: bool
    ) -> None:
        data = {"stored": stored, "cleared": dict(cleared), "bytes": left}
        self._trash.write_down(self._directory / _IN_STORE, data)
        self.cleared, self._bytes, self.stored = cleared, left, stored
