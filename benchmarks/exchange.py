"""How fast work on real data is, as ratios to what others do on the same machine.

    .venv/bin/python benchmarks/exchange.py --json [--only KEY …] [--runs N]

Each figure is the median over alternating runs; higher is better. The functions of `FIGURES` say
what is compared.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from support.measure import Figure
from support.sorting import sort_ratio

FIGURES: Final[dict[str, Callable[[Path, int], Figure]]] = {
    "sort_ratio": sort_ratio,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.add_argument("--only", nargs="*", default=[], metavar="KEY")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 -- page cache without a disk
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="crossdock-bench-", dir=memory) as directory:
        for key, measure in FIGURES.items():
            if not arguments.only or key in arguments.only:
                figure = measure(Path(directory), arguments.runs)
                found[key] = round(figure.ratio, 3)
                print(figure.show(), flush=True)
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
