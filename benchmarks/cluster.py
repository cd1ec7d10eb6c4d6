"""What a user of a real cluster waits and pays for: install, executors, drains, release.

    .venv/bin/python benchmarks/cluster.py --json [--only PART …]

Without KUBECONFIG a node of its own comes up, as root, and goes at the end; another cluster needs
the images of `tests/cluster`. `docs/benchmarks.md` says what the keys mean.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

NODE = Path(__file__).parents[1] / "tests" / "cluster" / "cluster"
IMAGES = ("versitygw", "crossdock", "examples")
PARTS = ("install", "saved", "drain", "release")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    given = parser.parse_args()
    if "KUBECONFIG" not in os.environ:
        sys.exit(_on_a_node())
    from support import on_cluster  # noqa: PLC0415 -- needs a cluster

    figures = on_cluster.measure(given.only)
    if given.json:
        print(json.dumps(figures))


def _on_a_node() -> int:
    """Run this program again, on a node of its own."""
    try:
        subprocess.run([NODE, "up"], check=True, stdout=sys.stderr)
        subprocess.run([NODE, "load", *IMAGES], check=True, stdout=sys.stderr)
        return subprocess.run([NODE, "run", sys.executable, *sys.argv], check=False).returncode
    finally:
        subprocess.run([NODE, "down"], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
