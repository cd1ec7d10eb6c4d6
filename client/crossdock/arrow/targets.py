"""What the Arrow writer writes to, as far as it needs to know."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from crossdock.wire.crc import BytesLike


class PieceWriter(Protocol):
    """What a `crossdock.Writer` does, as far as it is needed here."""

    @property
    def piece_bytes(self) -> int:
        """Largest piece that `write_batch` takes."""

    def write(self, partition: int, data: BytesLike, *, rows: int = 0) -> None:
        """Append a piece to a block."""

    def write_batch(
        self,
        partitions: npt.NDArray[np.integer],
        data: BytesLike,
        lengths: npt.NDArray[np.integer],
        rows: npt.NDArray[np.integer] | None = None,
    ) -> None:
        """Append many pieces."""

    def commit(self) -> None:
        """Complete the attempt."""

    def abort(self) -> None:
        """Give the attempt up."""


class Target(Protocol):
    """Where a task writes to, such as `crossdock.task().output`."""

    @property
    def partitions(self) -> int:
        """P of the shuffle."""

    def writer(self) -> PieceWriter:
        """Return the writer of this attempt."""
