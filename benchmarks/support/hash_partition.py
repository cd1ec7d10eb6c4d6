"""Hash-partitioning TPC-H lineitem into Arrow IPC in memory: our exchange against Polars.

Both begin with the whole table in their own uncompressed memory, partition it by a hash of
l_orderkey into 200, and end with the uncompressed IPC bytes of each partition in memory. Ours goes
through the public writer with its default settings; only the network is left out.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import crossdock.arrow
from support.measure import Figure, alternate

PARTITIONS = 200
KEY = "l_orderkey"
CORES = 2
TRIES = 3


class Memory:
    """A target that keeps the blocks: what would go to workers."""

    partitions = PARTITIONS
    piece_bytes = 8 * 2**20

    def __init__(self) -> None:
        self.pieces: list[object] = []
        self.nbytes = self.rows = self.messages = 0

    def writer(self) -> "Memory":
        return self

    def write(self, partition: int, data: bytes, *, rows: int = 0) -> None:
        del partition
        self.pieces.append(data)
        self.nbytes += len(data)
        self.rows += rows

    def write_batch(
        self,
        partitions: np.ndarray,
        data: memoryview,
        lengths: np.ndarray,
        rows: np.ndarray | None = None,
    ) -> None:
        assert rows is not None
        self.pieces.append((partitions, data, lengths))
        self.nbytes += len(data)
        self.rows += int(rows.sum())
        self.messages += len(lengths)

    def commit(self) -> None:
        pass

    def abort(self) -> None:
        pass


def lineitem(directory: Path) -> Path:
    """Make lineitem at scale factor 1; return the Parquet file."""
    command = [Path(sys.executable).with_name("tpchgen-cli"), "parquet", "-q", "-s", "1"]
    subprocess.run([*command, "--tables", "lineitem", "--output-dir", directory], check=True)
    return directory / "lineitem.parquet"


def exchange(table: pa.Table) -> Memory:
    target = Memory()
    with crossdock.arrow.writer(
        target, table.schema, keys=[KEY], compression="none", threads=CORES
    ) as writer:
        writer.write(table)
    assert target.rows == table.num_rows
    return target


def polars_groups(frame: pl.DataFrame) -> list[BytesIO]:
    """Collect the row numbers of each partition, then gather and encode each in a thread."""
    number = (pl.col(KEY).hash() % PARTITIONS).alias("partition")
    groups = frame.select(number).with_row_index().group_by("partition").agg("index")

    def encode(rows: pl.Series) -> BytesIO:
        return frame[rows].write_ipc(None, compression="uncompressed")

    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(encode, groups["index"]))


def polars_partition_by(frame: pl.DataFrame) -> list[BytesIO]:
    """`partition_by`, then encode each partition in a thread."""
    number = (pl.col(KEY).hash() % PARTITIONS).alias("partition")
    parts = frame.with_columns(number).partition_by(
        "partition", include_key=False, maintain_order=False
    )

    def encode(part: pl.DataFrame) -> BytesIO:
        return part.write_ipc(None, compression="uncompressed")

    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(encode, parts))


def measure(key: str, *, directory: Path, runs: int) -> Figure:
    """Rows a second of both; Polars in the faster of two ways, found by trying."""
    path = lineitem(directory)
    table = pq.read_table(path)
    plain = pa.schema(
        [f.with_type(pa.string()) if f.type == pa.string_view() else f for f in table.schema]
    )
    table = table.cast(plain)
    frame = pl.read_parquet(path).rechunk()
    assert pl.thread_pool_size() == CORES

    def rate(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        made = work()  # freeing what was made is not measured, on either side
        seconds = time.perf_counter() - began
        del made
        return table.num_rows / seconds / 1e6

    ways = {polars_groups: 0.0, polars_partition_by: 0.0}
    for way in ways:
        ways[way] = statistics.median(rate(partial(way, frame)) for _ in range(TRIES))
    theirs = max(ways, key=ways.__getitem__)
    tried = ", ".join(f"{way.__name__} {value:.2f}" for way, value in ways.items())
    print(f"{key}: Polars {pl.__version__}, Arrow {pa.__version__}; {tried} M rows/s", flush=True)
    return alternate(
        key,
        partial(rate, partial(exchange, table)),
        partial(rate, partial(theirs, frame)),
        runs=runs,
        unit="M rows/s",
    )
