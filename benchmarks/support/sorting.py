"""`sort_ratio`: the example `examples/sort`, as anybody would run it, against GNU sort."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from support.measure import MIB, Figure, alternate

RECORDS: Final = 1024 * MIB // 100
"""1 GiB of lines of 100 bytes."""
EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "sort"


def sort_ratio(directory: Path, runs: int) -> Figure:
    """Sort one file of 1 GiB of text lines into files, start-up and all, with two processes each.

    Input, output and what is in between lie in `directory`, for both. That both have the same
    lines in the same order is checked afterwards.
    """
    root = directory / "sort"
    between = root / "between"
    between.mkdir(parents=True)
    _call(sys.executable, EXAMPLE / "generate.py", root / "input", "--files=1",
          f"--records={RECORDS}")  # fmt: skip
    (lines,) = (root / "input").iterdir()
    output, by_sort = root / "output", root / "by-sort"

    def ours() -> float:
        shutil.rmtree(output, ignore_errors=True)
        return _rate(
            Path(sys.executable).with_name("crossdock"), "run", EXAMPLE / "job.yaml", "--slots=2",
            "--data-root", root, "--dir", between / "run",
        )  # fmt: skip

    def theirs() -> float:
        by_sort.unlink(missing_ok=True)
        return _rate("sort", "-S", "1G", "--parallel=2", "-T", between, "-o", by_sort, lines)

    try:
        figure = alternate("sort_ratio", ours, theirs, runs=runs, unit="MiB/s")
        parts = sorted(output.glob("part-*"))
        with subprocess.Popen(["cat", *parts], stdout=subprocess.PIPE) as cat:  # noqa: S607
            subprocess.run(["cmp", "-", by_sort], stdin=cat.stdout, check=True)  # noqa: S607
    finally:
        shutil.rmtree(root)
    return figure


def _rate(*command: str | Path) -> float:
    """Run a command; return in how many MiB/s it sorts."""
    began = time.perf_counter()
    _call(*command)
    return RECORDS * 100 / MIB / (time.perf_counter() - began)


def _call(*command: str | Path) -> None:
    done = subprocess.run(
        command, env={**os.environ, "LC_ALL": "C"}, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
