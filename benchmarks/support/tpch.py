"""Five TPC-H queries at scale factor 1: staged jobs against PySpark on the same files.

Wall time of everything: both begin as a command line and end with results in files. Ours are five
runs of `crossdock run`, each with a worker of its own and two task processes; PySpark is one
session for all five, in `local-cluster` mode with two executors of one core.
"""

import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

import yaml

from support.measure import Figure, alternate

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "tpch"
SPARK = ROOT / "build" / "bench-spark"
SPARK_VERSION = "pyspark==4.3.0"
PARTS = {"region": 1, "nation": 1, "supplier": 1}
SCALE = os.environ.get("SCALE_FACTOR", "1")

sys.path.insert(0, str(EXAMPLE))

from queries import QUERIES, TABLES  # noqa: E402 -- lies in the example


def generate(data: Path) -> None:
    """Make all tables as Parquet, two files each where they are large."""
    for table in TABLES:
        subprocess.run(
            [_beside("tpchgen-cli"), "parquet", "--scale-factor", SCALE, "--tables", table,
             "--parts", str(PARTS.get(table, 2)), "--output-dir", str(data)],
            check=True,
        )  # fmt: skip


def job_file(query: str, *, data: Path, out: Path) -> Path:
    """Write a job that reads files where the example generates tables."""
    job = yaml.safe_load((EXAMPLE / f"{query}.yaml").read_text())
    job["spec"]["dataRoot"] = str(data)
    for stage in job["spec"]["stages"]:
        stage["podTemplate"]["spec"]["containers"][0]["workingDir"] = str(EXAMPLE)
        if "inputs" not in stage:
            sql = QUERIES[query][stage["name"]].sql.split()
            stage["inputs"] = [
                {"files": f"{table}/*.parquet", "name": table} for table in TABLES if table in sql
            ]
        if "files" in stage["output"]:
            stage["output"]["files"] = str(out / query)
    path = out / f"{query}.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def ours(data: Path, out: Path) -> float:
    """Return five queries per their seconds."""
    out.mkdir(exist_ok=True)
    began = time.perf_counter()
    for query in QUERIES:
        command = [_beside("crossdock"), "run", str(job_file(query, data=data, out=out))]
        subprocess.run([*command, "--slots", "2", "--overwrite"], check=True, capture_output=True)
    return len(QUERIES) / (time.perf_counter() - began)


def spark(data: Path, out: Path) -> float:
    """Return five queries per PySpark's seconds."""
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    subprocess.run(
        [SPARK / "bin" / "python", Path(__file__).with_name("tpch_spark.py"), data, out],
        check=True,
        capture_output=True,
    )
    return len(QUERIES) / (time.perf_counter() - began)


def prepare_spark() -> None:
    """Install PySpark apart from the project, once."""
    if (SPARK / "ready").exists():
        return
    if shutil.which("java") is None:
        sys.exit("tpch_ratio needs Java 17: apt-get install openjdk-17-jre-headless")
    venv.create(SPARK, with_pip=True, clear=True)
    subprocess.run([SPARK / "bin" / "pip", "install", "--quiet", SPARK_VERSION], check=True)
    (SPARK / "ready").touch()


def measure(key: str, *, directory: Path, runs: int) -> Figure:
    prepare_spark()
    data = directory / "data"
    generate(data)
    print(f"{key}: against {SPARK_VERSION} at scale factor {SCALE}", flush=True)
    return alternate(
        key,
        lambda: ours(data, directory / "ours"),
        lambda: spark(data, directory / "spark"),
        runs=min(runs, 3),
        unit="queries/s",
    )


def _beside(command: str) -> str:
    return str(Path(sys.executable).with_name(command))
