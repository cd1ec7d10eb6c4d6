"""Which partition each row goes to. Small frozen objects; anything with `assign` will do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crossdock.arrow.hashing import partition_of
from crossdock.arrow.words import check_keys, hash_rows
from crossdock.errors import ConfigError

Ids = npt.NDArray[np.integer]
"""The partition of each row."""


class Partitioning(Protocol):
    """Decides where rows go. Several threads call it at once: keep no state.

    The first call has no rows, so that what does not fit the schema is told before any are written.
    """

    def assign(self, batch: pa.RecordBatch, *, partitions: int, first_row: int) -> Ids:
        """Return the partition of each row of a batch.

        Args:
            batch: rows, with the plain types that travel.
            partitions: P; every id must be below it.
            first_row: how many rows the writer was given before these.
        """


@dataclass(frozen=True, slots=True)
class Hash:
    """Rows with equal keys go to one partition: the same one in every task and every release.

    The hash is that of docs/protocol.md, "Hash partitioning".
    """

    keys: Sequence[str]
    """Names of the key columns, in order."""

    def __post_init__(self) -> None:
        """Refuse what is no list of names."""
        check_keys(self.keys)

    def assign(self, batch: pa.RecordBatch, *, partitions: int, first_row: int) -> Ids:
        """See `Partitioning.assign`."""
        del first_row
        return partition_of(hash_rows(batch, self.keys), partitions)


@dataclass(frozen=True, slots=True)
class RoundRobin:
    """Rows go to the partitions in turn."""

    start: int = 0
    """Partition of the first row. Tasks of few rows should not all begin with 0: use the map id."""

    def assign(self, batch: pa.RecordBatch, *, partitions: int, first_row: int) -> Ids:
        """See `Partitioning.assign`."""
        first = (self.start + first_row) % partitions
        return np.arange(first, first + batch.num_rows) % partitions


@dataclass(frozen=True, slots=True)
class Given:
    """The caller says where each row goes: `writer.write(rows, partitions=ids)`."""

    def assign(self, batch: pa.RecordBatch, *, partitions: int, first_row: int) -> Ids:
        """Refuse rows that came without ids."""
        del batch, partitions, first_row
        raise ConfigError("rows came without their partitions", hint="write(rows, partitions=ids)")
