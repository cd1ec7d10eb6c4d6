"""A task of a query's stage: DuckDB on this task's share, Arrow over the exchange.

    python tpch.py q5

Tables come from the input files that are called like them, or else each task generates its own
part with tpchgen-cli; `SCALE_FACTOR` says how much (default 1).
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


def generate(table: str, task: Task, directory: Path) -> list[str]:
    """Make this task's part of a table; return its files."""
    parts, part = (1, 1) if table in SMALL else (task.count, task.index + 1)
    if table in SMALL and task.index:
        return []
    command = [
        "tpchgen-cli", "parquet", "--scale-factor", os.environ.get("SCALE_FACTOR", "1"),
        "--tables", table, "--parts", str(parts), "--part", str(part), "--num-threads", "1",
        "--output-dir", str(directory),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return [str(p) for p in directory.rglob(f"{table}.*parquet")]


def tables_of(step: Step) -> list[str]:
    """Return the tables that a stage reads; inputs of the same name go before them."""
    words = set(step.sql.replace("(", " ").replace(")", " ").split())
    return [table for table in TABLES if table in words]


def fill(database: duckdb.DuckDBPyConnection, step: Step, task: Task, scratch: Path) -> None:
    """Make the stage's inputs known to the database."""
    for name, source in task.inputs.items():
        if isinstance(source, ShuffleInput):
            database.register("rows", crossdock.arrow.read(source))
            database.execute(f'CREATE TEMP TABLE "{name}" AS FROM rows')
            database.unregister("rows")
    for table in tables_of(step):
        source = task.inputs.get(table)
        if isinstance(source, ShuffleInput):
            continue
        files = source.files if isinstance(source, FilesInput) else generate(table, task, scratch)
        database.execute(f'CREATE VIEW "{table}" AS FROM read_parquet({list(files)!r})')


def run(task: Task, query: str) -> None:
    """Run one stage's SQL, and pass its rows on."""
    step = QUERIES[query][task.stage]
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
