"""Chaos uses the servers and the fault proxy of `tests/stores`, and the runs of `tests/stages`."""

import sys
from pathlib import Path

for _folder in ("stores", "stages", "worker"):
    sys.path.append(str(Path(__file__).parents[1] / _folder))
