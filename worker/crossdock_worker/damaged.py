"""Jobs whose files do not read: for these this process takes no frame, and sends the store nothing.

The files stay as they are: somebody may mend them, and start the worker again. So it keeps what the
job must know then, and believes of its epoch what peers say.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog

from crossdock.errors import DataCorrupt, StaleEpoch, Unavailable
from crossdock.lifecycle import lease
from crossdock_worker.life import Conditions
from crossdock_worker.released import note_beside
from crossdock_worker.trash import Trash

log = structlog.get_logger()


class Damaged:
    """All of a worker's. Its owner locks."""

    def __init__(self, trash: Trash, conditions: Conditions) -> None:
        """Begin with none.

        Args:
            trash: writes down what is released.
            conditions: what jobs live under.
        """
        self._trash = trash
        self._conditions = conditions
        self._errors: dict[str, DataCorrupt] = {}
        self._directories: dict[str, Path] = {}
        self._epochs: dict[str, int] = {}
        """The highest that a peer has told this process."""

    def __contains__(self, uid: object) -> bool:
        return uid in self._errors

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._errors))

    def add(self, directory: Path, error: Exception) -> None:
        """Note that a job's files in a directory do not read."""
        uid = directory.name
        self._errors[uid] = DataCorrupt(
            f"the files of job {uid} in {directory} are damaged: {error}",
            hint="end the job and run it again under a new uid, or read other copies",
        )
        self._directories[uid] = directory
        log.error("job is damaged", job=uid, problem=str(error))

    def discard(self, uid: str) -> bool:
        """Forget a job that is to go; returns whether it was damaged."""
        self._epochs.pop(uid, None)
        self._directories.pop(uid, None)
        return self._errors.pop(uid, None) is not None

    def check(self, uid: str) -> None:
        """Raise `DataCorrupt` for such a job."""
        if uid in self._errors:
            raise self._errors[uid]

    def hear_epoch(self, uid: str, epoch: int) -> None:
        """Take from a peer at which epoch a job is."""
        if uid in self._errors:
            self._epochs[uid] = max(epoch, self._epochs.get(uid, 0))

    def check_epoch(self, uid: str, epoch: int) -> None:
        """Raise unless who comes with an epoch may end such a job.

        Raises:
            StaleEpoch: a peer knows of a higher one.
            Unavailable: not all peers have told yet.
        """
        if uid not in self._errors:
            return
        told = self._epochs.get(uid, 0)
        may_end = lease.may_end_damaged(self._conditions.around, epoch, told)
        if may_end is None:
            raise Unavailable(
                f"the files of job {uid} are damaged here, and not all peers have told its epoch",
                hint="start this worker's peers, declare those gone that never come back",
            )
        if not may_end:
            raise StaleEpoch(f"job {uid} is at epoch {told}, this call is from {epoch}")

    def learn_released(self, uid: str, generations: Mapping[str, int]) -> bool:
        """Agree to releases of such a job; returns whether it is one.

        That is sound: this process sends the store nothing for it, and what an earlier one sent, it
        sent before this one began. If the files are mended, the job finds the releases beside them.

        Raises:
            DataCorrupt: what was noted before does not read either.
            CrossdockError: the disk does not take it.
        """
        if uid not in self._errors:
            return False
        try:
            note_beside(self._directories[uid], generations, self._trash)
        except (ValueError, TypeError, AttributeError):
            raise self._errors[uid] from None
        return True
