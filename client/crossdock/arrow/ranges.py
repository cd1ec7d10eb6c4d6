"""Range partitioning: boundaries, and choosing them from samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import numpy as np
import pyarrow as pa

from crossdock.arrow.hashing import U64
from crossdock.arrow.ordering import Order, count_not_above, order_words, string_words_of
from crossdock.arrow.partitioning import Ids
from crossdock.arrow.plain import plain_batch, plain_type
from crossdock.arrow.words import key_column
from crossdock.errors import ConfigError

Rows: TypeAlias = pa.RecordBatch | pa.Table | Iterable[pa.RecordBatch]


@dataclass(frozen=True, slots=True)
class Range:
    """Rows go to the range between boundaries that they lie in, so partitions are in order.

    Partition i + 1 begins with boundary i: rows equal to it go there. B boundaries make B + 1
    ranges; there are at most P - 1, and with fewer the last partitions stay empty.

    NaN is above all numbers, -0.0 equals 0.0, strings compare by bytes, False is below True.
    Nulls go where `Order.nulls` says: by default behind everything, `descending` or not.
    """

    orders: Sequence[Order]
    """By which columns, the most significant first."""
    boundaries: pa.RecordBatch
    """Rows in rising order by `orders`; other columns do not matter."""
    _words: tuple[U64, ...] = field(init=False, repr=False, compare=False)
    _string_words: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Bring the boundaries into words once.

        Raises:
            ConfigError: no columns, an unknown column, a type without order, or they fall.
        """
        if not self.orders:
            raise ConfigError("a range needs columns to order by")
        plain = plain_batch(self.boundaries)
        count = string_words_of([key_column(plain, order.column) for order in self.orders])
        words = _words_of(plain, self.orders, count)
        if (np.lexsort(words[::-1]) != np.arange(plain.num_rows)).any():
            raise ConfigError("the boundaries of a range fall", hint="sort them by its orders")
        object.__setattr__(self, "boundaries", plain)
        object.__setattr__(self, "_string_words", count)
        object.__setattr__(self, "_words", tuple(words))

    def assign(self, batch: pa.RecordBatch, *, partitions: int, first_row: int) -> Ids:
        """See `Partitioning.assign`."""
        del first_row
        count = self.boundaries.num_rows
        if count >= partitions:
            raise ConfigError(f"{count} boundaries make more than {partitions} ranges")
        for order in self.orders:
            ours = key_column(self.boundaries, order.column).type
            given = plain_type(key_column(batch, order.column).type)
            if ours != given:
                raise ConfigError(f"column {order.column!r} is {given}, its boundaries are {ours}")
        if not count:
            return np.zeros(batch.num_rows, np.uint8)
        rows = _words_of(batch, self.orders, self._string_words)
        return count_not_above(self._words, rows).astype(np.min_scalar_type(count))

    @classmethod
    def from_samples(cls, samples: Rows, keys: Sequence[str | Order], *, partitions: int) -> Self:
        """Choose boundaries that spread the samples evenly over the partitions.

        All tasks must use the same boundaries: choose them once, from samples of all tasks (see
        `sample`), and hand on either the samples or the boundaries.

        Args:
            samples: rows with the key columns; none make one range.
            keys: columns to order by, the most significant first; a name is `Order(name)`.
            partitions: P of the shuffle. Samples with few distinct keys make fewer ranges.
        """
        orders = tuple(key if isinstance(key, Order) else Order(key) for key in keys)
        if not orders:
            raise ConfigError("a range needs columns to order by")
        batch = _key_batch(samples, orders)
        columns = [key_column(batch, order.column) for order in orders]
        words = _words_of(batch, orders, string_words_of(columns))
        ordered = np.lexsort(words[::-1])
        cuts = np.arange(1, partitions) * batch.num_rows // partitions
        chosen = ordered[np.unique(cuts[cuts > 0])]
        new = np.ones(len(chosen), np.bool_)  # between equal boundaries no row can lie
        for i, word in enumerate(words):
            picked = word[chosen]
            changed = picked[1:] != picked[:-1]
            new[1:] = changed if i == 0 else new[1:] | changed
        return cls(orders, batch.take(pa.array(chosen[new])))


def sample(rows: Rows, count: int, *, seed: int = 0) -> pa.Table:
    """Return `count` rows chosen at random, or all if there are fewer.

    Every set of rows is equally likely. An iterable is passed through once, and a few times
    `count` rows of it are held.

    Args:
        rows: a table, a batch, or batches one after the other.
        count: how many; a hundred a partition and more give even ranges.
        seed: the same seed and the same rows give the same sample.
    """
    random = np.random.default_rng(seed)
    kept: list[pa.RecordBatch] = []
    draws = np.empty(0)  # each row draws a number; the smallest `count` of them are the sample
    for batch in _batches(rows):
        draws = np.concatenate([draws, random.random(batch.num_rows)])
        kept.append(batch)
        table = pa.Table.from_batches(kept)
        if table.num_rows > count:
            which = np.sort(np.argpartition(draws, count)[:count])
            draws = draws[which]
            kept = table.take(pa.array(which)).combine_chunks().to_batches()
    if not kept and isinstance(rows, pa.Table | pa.RecordBatch):
        return pa.table(rows).slice(0, 0)
    return pa.Table.from_batches(kept)


def _batches(rows: Rows) -> Iterable[pa.RecordBatch]:
    if isinstance(rows, pa.RecordBatch):
        return [rows]
    batches: Iterable[pa.RecordBatch] = rows.to_batches() if isinstance(rows, pa.Table) else rows
    return batches


def _key_batch(rows: Rows, orders: Sequence[Order]) -> pa.RecordBatch:
    """Return the key columns of some rows as one batch of plain types."""
    if isinstance(rows, pa.Table):
        table = rows
    else:
        batches = list(_batches(rows))
        if not batches:
            raise ConfigError("no samples and no schema of them", hint="pass an empty table")
        table = pa.Table.from_batches(batches)
    columns = {order.column: key_column(table, order.column) for order in orders}
    arrays = [c.combine_chunks() for c in columns.values()]
    arrays = [pa.concat_arrays(a.chunks) if isinstance(a, pa.ChunkedArray) else a for a in arrays]
    return plain_batch(pa.RecordBatch.from_arrays(arrays, names=list(columns)))


def _words_of(batch: pa.RecordBatch, orders: Sequence[Order], string_words: int) -> list[U64]:
    """Return the words of all columns of a batch, the most significant first."""
    return [
        word
        for order in orders
        for word in order_words(key_column(batch, order.column), order, string_words)
    ]
