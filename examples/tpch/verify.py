"""Compares a query's result with what DuckDB makes of the whole data, and prints it.

    python verify.py q5 [RESULT_DIRECTORY]

`SCALE_FACTOR` must be that of the run (default 1).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
from queries import TABLES, WHOLE


def expected(query: str, directory: Path) -> duckdb.DuckDBPyRelation:
    """Generate all tables, and run the query as the benchmark has it."""
    scale = os.environ.get("SCALE_FACTOR", "1")
    tables = [table for table in TABLES if table in WHOLE[query]]
    subprocess.run(
        ["tpchgen-cli", "parquet", "--scale-factor", scale, "--tables", ",".join(tables),
         "--output-dir", str(directory)],
        check=True,
    )  # fmt: skip
    for table in tables:
        duckdb.sql(f"CREATE VIEW {table} AS FROM '{directory}/{table}.parquet'")
    return duckdb.sql(WHOLE[query])


def main(query: str, result: Path) -> None:
    """Print the result; exit with 1 if it is not the expected one."""
    found = duckdb.sql(f"FROM '{result}/*.parquet'")
    print(found)
    with tempfile.TemporaryDirectory(prefix="tpch-") as directory:
        wanted = expected(query, Path(directory)).fetchall()
    if found.fetchall() != wanted:
        print(f"{query} differs: DuckDB has", *wanted, sep="\n  ")
        sys.exit(1)
    print(f"verified: the {len(wanted)} rows of {query} are those that DuckDB computes on its own")


if __name__ == "__main__":
    name = sys.argv[1]
    default = Path(__file__).parent / "result" / name
    main(name, Path(sys.argv[2]) if len(sys.argv) > 2 else default)
