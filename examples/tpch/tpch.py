"""A task of a query's stage: DuckDB on this task's share, Arrow over the exchange.

    python tpch.py q5

A stage is called like a step of its query, or has the query's name before it: q5-orders.

Tables come from the inputs that are called like them, or else each task generates its own share
with tpchgen-cli; `SCALE_FACTOR` says how much (default 1). The number of tasks is free.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
from queries import QUERIES, TABLES, Step

import crossdock
import crossdock.arrow
from crossdock.tasks import FilesInput, ShuffleInput, ShuffleOutput, Task

SMALL = {"region", "nation"}
"""Tables of so few rows that they come in one part."""


def generate(table: str, directory: Path, part: int, parts: int, scale: str = "") -> list[str]:
    """Make one part of a table, from 1 on; return its files."""
    command = [
        "tpchgen-cli", "parquet", "--tables", table, "--parts", str(parts), "--part", str(part),
        "--scale-factor", scale or os.environ.get("SCALE_FACTOR", "1"), "--num-threads", "1",
        "--output-dir", str(directory),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return [str(p) for p in directory.rglob(f"{table}.*parquet")]


def share(table: str, task: Task, directory: Path) -> list[str]:
    """Return the files of this task's share of a table; none if others have all of it."""
    source = task.inputs.get(table)
    if isinstance(source, FilesInput):
        return list(source.files)
    parts = 1 if table in SMALL else task.count
    return generate(table, directory, task.index + 1, parts) if task.index < parts else []


def whole(table: str, task: Task, directory: Path) -> list[str]:
    """Return the files of all of a table."""
    source = task.inputs.get(table)
    if not isinstance(source, FilesInput):
        return generate(table, directory, 1, 1)
    if task.count > 1:
        sys.exit(f"stage {task.stage} joins files of several tables: it needs parallelism: 1")
    return list(source.files)


def tables_of(step: Step) -> list[str]:
    """Return the tables that a stage reads, the largest last; inputs may be called like them."""
    words = set(step.sql.replace("(", " ").replace(")", " ").split())
    return [table for table in TABLES if table in words]


def fill(database: duckdb.DuckDBPyConnection, step: Step, task: Task, scratch: Path) -> None:
    """Make the stage's inputs known to the database.

    Tasks share out the largest table of a stage; those that it is joined with every task has
    whole. So no row misses its partner, and none comes twice.
    """
    for name, source in task.inputs.items():
        if isinstance(source, ShuffleInput):
            database.register("rows", crossdock.arrow.read(source))
            database.execute(f'CREATE TEMP TABLE "{name}" AS FROM rows')
            database.unregister("rows")
    tables = [t for t in tables_of(step) if not isinstance(task.inputs.get(t), ShuffleInput)]
    for table in tables:
        files_of = share if table == tables[-1] else whole
        files = files_of(table, task, scratch)
        limit = ""
        if not files:  # more tasks than parts: no rows, with the columns of a tiny table
            files, limit = generate(table, scratch / "empty", 1, 1, "0.001"), "LIMIT 0"
        database.execute(f'CREATE VIEW "{table}" AS FROM read_parquet({files!r}) {limit}')


def run(task: Task, query: str) -> None:
    """Run one stage's SQL, and pass its rows on."""
    step = QUERIES[query][task.stage.removeprefix(f"{query}-")]
    with (
        tempfile.TemporaryDirectory(prefix="tpch-") as scratch,
        duckdb.connect(config={"threads": 1}) as database,
    ):
        fill(database, step, task, Path(scratch))
        result = database.sql(step.sql)
        if isinstance(task.output, ShuffleOutput):
            rows = result.to_arrow_reader(65_536)
            partitioning = crossdock.arrow.Hash(step.keys) if step.keys else None
            with crossdock.arrow.writer(
                task.output,
                rows.schema,
                partitioning=partitioning or crossdock.arrow.RoundRobin(),
                threads=1,
            ) as writer:
                writer.write(rows)
        else:
            result.to_parquet(str(task.output.path(".parquet")))


if __name__ == "__main__":
    with crossdock.task() as this:
        run(this, sys.argv[1])
