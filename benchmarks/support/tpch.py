"""Five TPC-H queries: staged jobs against PySpark or Dask, whichever is faster, on the same files.

Wall time of everything: all begin as a command line and end with results in files. All have one
session for all five: ours is one staged job with a worker and two task processes, which have
DuckDB imported; PySpark is in `local-cluster` mode with two executors of one core; Dask has two
processes of one thread.
"""

import os
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from support.measure import Figure, alternate

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "tpch"
PARTS = {"region": 1, "nation": 1, "supplier": 1}
SCALE = os.environ.get("SCALE_FACTOR", "1")

sys.path.insert(0, str(EXAMPLE))

from queries import QUERIES, TABLES


def generate(data: Path) -> None:
    """Make all tables as Parquet, two files each where they are large."""
    for table in TABLES:
        subprocess.run(
            [_beside("tpchgen-cli"), "parquet", "--scale-factor", SCALE, "--tables", table,
             "--parts", str(PARTS.get(table, 2)), "--output-dir", str(data)],
            check=True,
        )  # fmt: skip


def job_file(*, data: Path, out: Path) -> Path:
    """Write one job of all queries that reads files where the examples generate tables."""
    stages = [stage for query in QUERIES for stage in stages_of(query, out)]
    job = yaml.safe_load((EXAMPLE / f"{next(iter(QUERIES))}.yaml").read_text())
    job["spec"] |= {"dataRoot": str(data), "stages": stages}
    path = out / "queries.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def stages_of(query: str, out: Path) -> list[dict[str, Any]]:
    """Return the stages of an example, with the query's name before their own."""
    stages = yaml.safe_load((EXAMPLE / f"{query}.yaml").read_text())["spec"]["stages"]
    for stage in stages:
        name = stage["name"]
        stage["name"] = f"{query}-{name}"
        stage["podTemplate"]["spec"]["containers"][0]["workingDir"] = str(EXAMPLE)
        if "inputs" in stage:
            for source in stage["inputs"]:
                source |= {"stage": f"{query}-{source['stage']}", "name": source["stage"]}
        else:
            sql = QUERIES[query][name].sql.split()
            read = [table for table in TABLES if table in sql]
            stage["inputs"] = [{"files": f"{table}/*.parquet", "name": table} for table in read]
            if len(read) == 1:
                del stage["parallelism"]  # by its bytes
        if "files" in stage["output"]:
            stage["output"]["files"] = str(out / query)
    return stages


def ours(data: Path, out: Path) -> float:
    """Return five queries per their seconds."""
    out.mkdir(exist_ok=True)
    began = time.perf_counter()
    command = [_beside("crossdock"), "run", job_file(data=data, out=out), "--overwrite"]
    options = ["--slots", "2", "--preload", "crossdock.arrow,duckdb"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    return len(QUERIES) / (time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class Baseline:
    """Another engine, installed apart from the project."""

    packages: tuple[str, ...]
    script: str
    """Beside this file; its arguments are the directories of the data and of the results."""

    def __str__(self) -> str:
        """Return name and version."""
        return self.packages[0]

    @property
    def _directory(self) -> Path:
        return ROOT / "build" / f"bench-{Path(self.script).stem}"

    def prepare(self) -> None:
        """Install it, once."""
        ready, wanted = self._directory / "ready", "\n".join(self.packages)
        if ready.exists() and ready.read_text() == wanted:
            return
        venv.create(self._directory, with_pip=True, clear=True)
        pip = self._directory / "bin" / "pip"
        subprocess.run([pip, "install", "--quiet", *self.packages], check=True)
        ready.write_text(wanted)

    def run(self, data: Path, out: Path) -> float:
        """Return five queries per their seconds."""
        shutil.rmtree(out, ignore_errors=True)
        script = Path(__file__).with_name(self.script)
        began = time.perf_counter()
        command = [self._directory / "bin" / "python", script, data, out]
        subprocess.run(command, check=True, capture_output=True)
        return len(QUERIES) / (time.perf_counter() - began)


SPARK = Baseline(("pyspark==4.3.0",), "tpch_spark.py")
DASK = Baseline(
    ("dask==2026.8.0", "distributed==2026.8.0", "pandas==3.1.1", "pyarrow==26.0.1"), "tpch_dask.py"
)


def rows_of(out: Path) -> dict[str, int]:
    """Return how many rows each query's result has."""
    found = {}
    for query in QUERIES:
        files = [out / f"{query}.parquet"] if (out / f"{query}.parquet").is_file() else []
        files = files or sorted((out / query).glob("*.parquet"))
        found[query] = sum(pq.read_metadata(path).num_rows for path in files)
    return found


def measure(key: str, *, directory: Path, runs: int) -> Figure:
    """Compare with the baseline that is faster here: the better of two runs each."""
    if shutil.which("java") is None:
        sys.exit("tpch_ratio needs Java 17: apt-get install openjdk-17-jre-headless")
    data, out = directory / "data", directory / "ours"
    generate(data)
    ours(data, out)
    speeds = {}
    for baseline in (SPARK, DASK):
        baseline.prepare()
        theirs = directory / baseline.script
        speeds[baseline] = max(baseline.run(data, theirs) for _ in range(2))
        print(f"{key}: {baseline} has {speeds[baseline]:.2f} queries/s", flush=True)
        if rows_of(theirs) != rows_of(out):
            sys.exit(f"{baseline} has other results: {rows_of(theirs)}, not {rows_of(out)} rows")
    faster = max(speeds, key=speeds.__getitem__)
    print(f"{key}: against {faster} at scale factor {SCALE}", flush=True)
    return alternate(
        key,
        lambda: ours(data, out),
        lambda: faster.run(data, directory / faster.script),
        runs=min(runs, 3),
        unit="queries/s",
    )


def _beside(command: str) -> str:
    return str(Path(sys.executable).with_name(command))
