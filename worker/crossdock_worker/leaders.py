"""Whose commands about other workers are taken: of operators that led in turn, the newest one's."""

from pathlib import Path

from crossdock.errors import StaleEpoch
from crossdock_worker.files import write_atomically


class Leaders:
    """The highest epoch of a leader that commanded this worker, over restarts too."""

    def __init__(self, file: Path) -> None:
        """Take up what the file has, if it is there."""
        self._file = file
        self._newest = int(file.read_text()) if file.exists() else 0

    def check(self, epoch: int) -> None:
        """Take a leader's command.

        Raises:
            StaleEpoch: another one has led since.
        """
        if epoch < self._newest:
            raise StaleEpoch(
                f"a leader with epoch {self._newest} commands here, and epoch {epoch} no more",
                hint="end: another operator leads",
            )
        if epoch > self._newest:
            write_atomically(self._file, str(epoch).encode())
            self._newest = epoch
