"""The Arrow exchange: tables in, partitioned; `RecordBatchReader`s out. docs/arrow-exchange.md.

with crossdock.arrow.writer(task.output, schema, keys=["customer"]) as writer:
    writer.write(table)
reader = crossdock.arrow.read(task.input("orders"))
"""

try:
    import pyarrow as pa
except ImportError as error:
    raise ImportError("crossdock.arrow needs pyarrow: pip install 'crossdock[arrow]'") from error

from crossdock.arrow.hashing import partition_of
from crossdock.arrow.ordering import Order
from crossdock.arrow.partitioning import Given, Hash, Partitioning, RoundRobin
from crossdock.arrow.ranges import Range, sample
from crossdock.arrow.reading import read
from crossdock.arrow.words import hash_rows
from crossdock.arrow.writing import ArrowWriter, writer

del pa

__all__ = [
    "ArrowWriter", "Given", "Hash", "Order", "Partitioning", "Range", "RoundRobin", "hash_rows",
    "partition_of", "read", "sample", "writer",
]  # fmt: skip
