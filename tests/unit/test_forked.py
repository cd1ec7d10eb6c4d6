"""Forked workers are processes like others, and end with the tests, however those end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import forked
from harness import StartWorker, WorkerProcess, eventually

_TESTS = """
import sys
from pathlib import Path
from harness import WorkerProcess
with WorkerProcess(directory=Path(sys.argv[1])).start() as worker:
    print(worker.pid, flush=True)
    sys.stdin.read()
"""


def test_forked_workers_end_when_the_tests_are_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _TESTS, tmp_path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    ) as tests:  # fmt: skip
        assert tests.stdout is not None
        worker = psutil.Process(int(tests.stdout.readline()))
        tests.kill()
        tests.wait()
        try:
            eventually(lambda: not worker.is_running(), what="the end of the worker")
        finally:
            if worker.is_running():
                worker.kill()


def test_forked_workers_are_processes_of_their_own(start_worker: StartWorker) -> None:
    one, two = start_worker(), start_worker()
    assert len({os.getsid(pid) for pid in (one.pid, two.pid, os.getpid())}) == 3
    assert one.terminate() == 0
    assert two.running
    two.kill9()


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        WorkerProcess(directory=tmp_path, options={"store": "nothing"}) as worker,
        pytest.raises(AssertionError, match=r"ended with 2:\ncrossdock: "),
    ):
        worker.start()


def test_how_a_process_ended_is_known_as_of_any(tmp_path: Path) -> None:
    log = tmp_path / "log"
    modules = ("crossdock_worker.cli",)
    line = ["crossdock", "worker", "--data-dir", str(tmp_path / "data"), "--insecure-no-auth"]
    process = forked.start([*line, "--listen", "127.0.0.1:0"], log=log, modules=modules)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert process.poll() == process.returncode == -signal.SIGKILL
    process.kill()
