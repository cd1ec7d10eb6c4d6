"""What a job has released, and what of that is still in the store.

{job directory}/released.json    {shuffle: first generation that is not released}
{job directory}/in-store.json    whether a worker ever wrote there; what of it is proved to be gone;
                                 bytes of what was released and was not deleted there, that are from
                                 this worker
{job directory}/released-damaged.json    the same as released.json: what was released while other
                                 files of the job did not read
"""

import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from crossdock.lifecycle.facts import Facts, is_known, most, to_clear
from crossdock.lifecycle.lease import ALWAYS
from crossdock.lifecycle.unproved import Unproved
from crossdock_worker.life import clock
from crossdock_worker.shuffle_log import ShuffleLog
from crossdock_worker.trash import Trash

NOTHING: Final[Mapping[str, int]] = {}

_RELEASED: Final = "released.json"
_IN_STORE: Final = "in-store.json"
_WHILE_DAMAGED: Final = "released-damaged.json"


def _read(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    return {str(name): int(first) for name, first in json.loads(path.read_text()).items()}


def note_beside(directory: Path, generations: Mapping[str, int], trash: Trash) -> None:
    """Write down what is released of a job whose files are damaged, beside them.

    What does not read is left as it is: if somebody mends it, the job knows of these releases.

    Raises:
        ValueError: what was noted before does not read either.
        CrossdockError: the disk does not take it.
    """
    path = directory / _WHILE_DAMAGED
    known = _read(path)
    if not is_known(known, generations):
        trash.write_down(path, dict(most(known, generations)))


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
        self._unproved = Unproved()
        self._unproved_lock = threading.Lock()

    def load(self) -> None:
        """Read what there is; raises `ValueError` and the like where it is damaged."""
        self.generations = most(
            _read(self._directory / _RELEASED), _read(self._directory / _WHILE_DAMAGED)
        )
        path = self._directory / _IN_STORE
        if path.exists():
            found = json.loads(path.read_text())
            self.stored = found["stored"] is True
            self.cleared = {str(name): int(first) for name, first in found["cleared"].items()}
            self._bytes = {
                str(name): {int(generation): int(n) for generation, n in each.items()}
                for name, each in found["bytes"].items()
            }
        now = clock()
        for name, generations in to_clear(
            Facts(released=self.generations, cleared=self.cleared, stored=True)
        ).items():
            self._unproved.released(name, generations.stop, now)

    @property
    def bytes_left(self) -> int:
        """Bytes of payload of this worker in the store that were not deleted there yet.

        A crash may have come between the note of them and the release: then they count as before.
        """
        return sum(
            size
            for name, each in self._bytes.items()
            for generation, size in each.items()
            if generation < self.generations.get(name, 0)
        )

    def since(self, name: str) -> float:
        """Return when this process learnt of the oldest release that is not proved to be clear."""
        with self._unproved_lock:
            since = self._unproved.since(name)
        return ALWAYS if since is None else since

    def unproved(self, most_names: int) -> list[str]:
        """Return up to so many shuffles that may have to be cleared; others come the next times."""
        with self._unproved_lock:
            return self._unproved.look(most_names)

    def write_down(self, news: Mapping[str, int], dropped: Iterable[ShuffleLog]) -> None:
        """Write down, on disk first, what is released, and what it has in the store.

        Args:
            news: what was not released.
            dropped: the logs of those that are here, which are about to go.
        """
        left = {name: dict(each) for name, each in self._bytes.items()}
        for log in dropped:
            if log.runs.stored_bytes:
                left.setdefault(log.key.name, {})[log.key.generation] = log.runs.stored_bytes
        if left != self._bytes:
            self._keep(self.cleared, left, stored=True)
        self._trash.write_down(self._directory / _RELEASED, {**self.generations, **news})

    def hold(self, news: Mapping[str, int]) -> None:
        """Let hold what was written down."""
        now = clock()
        with self._unproved_lock:
            for name, stop in news.items():
                if self.cleared.get(name, 0) < stop:
                    self._unproved.released(name, stop, now)
        self.generations = {**self.generations, **news}

    def knows(self, facts: Facts) -> bool:
        """Whether all that somebody knows of the store is known here."""
        return self.stored >= facts.stored and is_known(self.cleared, facts.cleared)

    def news(self, generations: Mapping[str, int]) -> dict[str, int]:
        """Return what of this is not known here yet; 0 is a word too."""
        return {n: stop for n, stop in generations.items() if self.generations.get(n, -1) < stop}

    def learn(self, facts: Facts, emptied: Mapping[str, int]) -> None:
        """Take what somebody knows of the store, on disk first.

        Args:
            facts: of the job.
            emptied: by shuffle, the first generation of which not all that there was is deleted.
                What was on its way may still come, until it is cleared; it counts no more.
        """
        news = {n: first for n, first in facts.cleared.items() if self.cleared.get(n, 0) < first}
        stored, left = self.stored or facts.stored, self._bytes_from(most(emptied, news))
        if not news and stored == self.stored and left == self._bytes:
            return
        self._keep({**self.cleared, **news}, left, stored=stored)
        with self._unproved_lock:
            for name, stop in news.items():
                self._unproved.proved(name, stop)

    def _bytes_from(self, generations: Mapping[str, int]) -> dict[str, Mapping[int, int]]:
        """Return what counts if nothing before these generations does any more."""
        return {
            name: kept
            for name, each in self._bytes.items()
            if (kept := {g: n for g, n in each.items() if g >= generations.get(name, 0)})
        }

    def _keep(
        self, cleared: Mapping[str, int], left: Mapping[str, Mapping[int, int]], *, stored: bool
    ) -> None:
        data = {"stored": stored, "cleared": dict(cleared), "bytes": left}
        self._trash.write_down(self._directory / _IN_STORE, data)
        self.cleared, self._bytes, self.stored = cleared, left, stored
