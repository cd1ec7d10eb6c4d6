"""What the operator takes and how fast it is, with thousands of ShuffleJobs.

    .venv/bin/python benchmarks/operator.py --json [--jobs N] [--only PART …]

A real API server with etcd on loopback; no kubelet. `docs/benchmarks.md` says what the keys mean.
"""

import os
import sys

if __name__ == "__main__":
    from support.operating import main

    main()
else:
    # The benchmarks beside this file mean the standard library's module of this name.
    _path = list(sys.path)
    _here = os.path.dirname(__file__)  # noqa: PTH120 -- pathlib needs that module, too
    sys.path[:] = [p for p in _path if os.path.abspath(p) != _here]  # noqa: PTH100
    del sys.modules[__name__]
    import operator  # noqa: F401

    sys.path[:] = _path
