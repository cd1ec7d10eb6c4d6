"""How fast rows are exchanged, as ratios to other engines on the same machine.

    .venv/bin/python benchmarks/exchange.py --json [--only KEY …] [--runs N]

Higher is better; each figure is the median over alternating runs. Each key is a function of a
module in `support`: it is given its key, a directory to itself and the number of runs.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("POLARS_MAX_THREADS", "2")  # before anything imports it: both cores, as ours

from support import hash_partition
from support.measure import Figure


class Measure(Protocol):
    def __call__(self, key: str, *, directory: Path, runs: int) -> Figure: ...


FIGURES: dict[str, Measure] = {
    "hash_partition_ratio": hash_partition.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.add_argument("--only", nargs="*", default=[], metavar="KEY", choices=FIGURES)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    for key in arguments.only or FIGURES:
        with tempfile.TemporaryDirectory(prefix="crossdock-bench-") as directory:
            figure = FIGURES[key](key, directory=Path(directory), runs=arguments.runs)
        figures[key] = round(figure.ratio, 3)
        print(figure.show(), flush=True)
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
