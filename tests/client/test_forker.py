"""The tests' own forked workers end with the tests, however those end."""

import subprocess
import sys
from pathlib import Path

import psutil

from harness import eventually

_TESTS = """
import sys
from pathlib import Path
from support import ForkedWorker, Forker
with Forker() as forker, ForkedWorker(forker, Path(sys.argv[1])) as worker:
    print(worker._pid, flush=True)
    sys.stdin.read()
"""


def test_forked_workers_end_when_the_tests_are_killed(tmp_path: Path) -> None:
    here = Path(__file__).parent
    tests = subprocess.Popen(
        [sys.executable, "-c", _TESTS, tmp_path / "worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={"PYTHONPATH": f"{here}:{here.parent}"},
    )  # fmt: skip
    with tests:
        assert tests.stdout is not None
        worker = psutil.Process(int(tests.stdout.readline()))
        tests.kill()
        tests.wait()
        try:
            eventually(lambda: not worker.is_running(), what="the end of the worker")
        finally:
            if worker.is_running():
                worker.kill()
