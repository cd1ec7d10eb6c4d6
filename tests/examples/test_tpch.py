"""Five TPC-H queries in stages have the results of DuckDB on the whole data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "tpch"
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path) -> str:
    env = {**os.environ, "SCALE_FACTOR": "0.05", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("query", ["q3", "q5", "q9", "q18", "q21"])
def test_the_result_is_that_of_one_engine(query: str, tmp_path: Path) -> None:
    example = shutil.copytree(EXAMPLE, tmp_path / "tpch", ignore=shutil.ignore_patterns("result"))
    run(BIN / "crossdock", "run", f"{query}.yaml", cwd=example)
    said = run(sys.executable, "verify.py", query, cwd=example)
    assert f"of {query} are those that DuckDB computes on its own" in said


@pytest.mark.timeout(900)
def test_more_tasks_than_parts_of_a_table(tmp_path: Path) -> None:
    """Tasks without rows write none, and no supplier misses the nation that another task has."""
    example = shutil.copytree(EXAMPLE, tmp_path / "tpch", ignore=shutil.ignore_patterns("result"))
    job = yaml.safe_load((example / "q5.yaml").read_text())
    for stage in job["spec"]["stages"]:
        if "inputs" not in stage:
            stage["parallelism"] = 3
        if stage["name"] in {"customer", "orders", "lineitem"}:  # two files for three tasks
            table = stage["name"]
            run(BIN / "tpchgen-cli", "parquet", "--scale-factor", "0.05", "--tables", table,
                "--parts", "2", "--output-dir", "data", cwd=example)  # fmt: skip
            stage["inputs"] = [{"files": f"data/{table}/*.parquet", "name": table}]
    (example / "wide.yaml").write_text(yaml.safe_dump(job))
    run(BIN / "crossdock", "run", "wide.yaml", cwd=example)
    run(sys.executable, "verify.py", "q5", cwd=example)


def test_every_query_has_a_job_with_its_stages() -> None:
    sys.path.insert(0, str(EXAMPLE))
    try:
        from queries import QUERIES  # noqa: PLC0415
    finally:
        sys.path.remove(str(EXAMPLE))
    for query, steps in QUERIES.items():
        job = yaml.safe_load((EXAMPLE / f"{query}.yaml").read_text())
        assert [stage["name"] for stage in job["spec"]["stages"]] == list(steps)
