"""How fast work on real data is, as ratios to other engines on the same machine.

    .venv/bin/python benchmarks/exchange.py --json [--only KEY …] [--runs N]

Higher is better; each figure is the median over alternating runs. `docs/benchmarks.md` says what
the keys mean.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("POLARS_MAX_THREADS", "2")  # before anything imports it: both cores, as ours

from support import hash_partition, sorting, tpch
from support.measure import Figure

FIGURES: Final[dict[str, Callable[[Path, int], Figure]]] = {
    "hash_partition_ratio": lambda directory, runs: hash_partition.measure(
        "hash_partition_ratio", directory=directory, runs=runs
    ),
    "sort_ratio": sorting.sort_ratio,
    "tpch_ratio": lambda directory, runs: tpch.measure(
        "tpch_ratio", directory=directory, runs=runs
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.add_argument("--only", nargs="*", default=[], metavar="KEY", choices=FIGURES)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 -- page cache without a disk
    figures: dict[str, float] = {}
    for key in arguments.only or FIGURES:
        with tempfile.TemporaryDirectory(prefix="crossdock-bench-", dir=memory) as directory:
            figure = FIGURES[key](Path(directory), arguments.runs)
        figures[key] = round(figure.ratio, 3)
        print(figure.show(), flush=True)
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
