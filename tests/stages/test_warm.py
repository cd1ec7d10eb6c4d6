"""Tasks that are forks of a process that has imported: they must be as processes of their own."""

import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from crossdock.stages.processes import Processes
from crossdock.stages.warm import can_fork
from harness import WAIT_SECONDS, eventually

BASE = {**os.environ, "PYTHONUNBUFFERED": "1"}
SEEN = """
import json, os, sys
import pyarrow.compute as pc
print(json.dumps({
    "name": __name__, "file": __file__, "argv": sys.argv, "path": sys.path[0], "cwd": os.getcwd(),
    "env": dict(os.environ), "stdin": sys.stdin.read(), "main": sys.modules["__main__"].__file__,
    "modules": sorted(m for m in sys.modules if m.startswith("crossdock.stages")),
    "leads": os.getsid(0) == os.getpgid(0) == os.getpid(), "sum": pc.sum(list(range(9))).as_py(),
    "fds": len(os.listdir("/proc/self/fd")),
}))
"""


class Scripts:
    """Runs scripts, and tells how they ended and what they wrote."""

    def __init__(self, directory: Path, *preload: str) -> None:
        self.directory = directory
        self.processes = Processes(preload=preload)
        self.ends: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def start(
        self, name: str, script: str, *args: str, done: Path | None = None, **env: str
    ) -> None:
        path = self.directory / f"{name}.py"
        path.write_text(script)
        self.processes.start(
            name,
            [sys.executable, str(path), *args],
            env={**BASE, **env},
            cwd=self.directory,
            log=self.log(name),
            done=done,
            on_end=lambda how: self.ends.put((name, how)),
        )

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def run(self, script: str, *args: str, **env: str) -> tuple[str, str]:
        """Return how a script ended and what it wrote."""
        name = f"s{len(list(self.directory.iterdir()))}"
        self.start(name, script, *args, **env)
        return self.ends.get(timeout=WAIT_SECONDS)[1], self.log(name).read_text()

    def said(self, name: str) -> str:
        """Return what a script wrote, once it wrote something."""
        return eventually(lambda: self.log(name).exists() and self.log(name).read_text())

    def warm(self) -> psutil.Process:
        """Return the process that tasks are forked from."""

        def found() -> psutil.Process | None:
            with suppress(psutil.NoSuchProcess):  # others end meanwhile
                for nanny in psutil.Process().children():
                    if "nanny.py" in str(nanny.cmdline()):
                        warm = (p for p in nanny.children() if "warm.py" in str(p.cmdline()))
                        return next(warm, None)
            return None

        return eventually(found)


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    found = Scripts(tmp_path, "crossdock.arrow", "no_such_module")
    yield found
    found.processes.close()


def is_forked(text: str) -> bool:
    """Whether a script that prints `'pyarrow' in sys.modules` first found it there."""
    return text.startswith("True")


FORKED = "import sys; print('pyarrow' in sys.modules)\n"


def test_a_fork_is_like_a_process_of_its_own(scripts: Scripts, tmp_path: Path) -> None:
    how, text = scripts.run(SEEN, "a", "b c", OWN="x")
    assert how == ""
    script = next(tmp_path.glob("*.py"))
    own = subprocess.run(
        [sys.executable, script, "a", "b c"],
        env={**BASE, "OWN": "x"}, cwd=tmp_path, capture_output=True, check=True,
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert json.loads(text) == json.loads(own.stdout)


def test_scripts_are_forked(scripts: Scripts) -> None:
    assert is_forked(scripts.run(FORKED)[1])


def test_what_the_interpreter_reads_at_its_start_makes_a_process_of_its_own(
    scripts: Scripts,
) -> None:
    assert not is_forked(scripts.run(FORKED, PYTHONHASHSEED="7")[1])
    assert can_fork([sys.executable, "x.py"], {**BASE, "OWN": "1"}, BASE) is True
    for argv in (
        ["python", "x.py"],
        [sys.executable, "-u", "x.py"],
        [sys.executable],
        ["sh", "x.py"],
    ):
        assert not can_fork(argv, BASE, BASE)
    assert not can_fork([sys.executable, "x.py"], {**BASE, "OMP_NUM_THREADS": "3"}, BASE)
    assert not can_fork([sys.executable, "x.py", "\0"], BASE, BASE)


def test_how_a_fork_ends_is_told(scripts: Scripts, tmp_path: Path) -> None:
    assert scripts.run("import sys; sys.exit(3)")[0] == "exit code 3"
    how, text = scripts.run("import sys; sys.exit('because')")
    assert (how, text) == ("exit code 1", "because\n")
    assert scripts.run("import os, signal; os.kill(0, signal.SIGKILL)")[0] == "killed by SIGKILL"
    how, text = scripts.run("def fails():\n    raise ValueError('oh')\nfails()")
    assert how == "exit code 1"
    assert text.startswith("Traceback (most recent call last):\n  File ")
    assert text.count("  File ") == 2
    assert text.endswith("ValueError: oh\n")
    how, text = scripts.run("def (")
    assert how == "exit code 1"
    assert "SyntaxError" in text
    done = tmp_path / "done"
    scripts.start("good", "import atexit; atexit.register(print, 'last')", done=done)
    assert scripts.ends.get(timeout=WAIT_SECONDS) == ("good", "")
    assert done.exists()
    assert scripts.log("good").read_text() == "last\n"


def test_a_fork_can_be_ended(scripts: Scripts) -> None:
    stubborn = "import signal, time\nsignal.signal(15, lambda *_: print('no', flush=True))\n"
    scripts.start("waits", "import time; print('here', flush=True); time.sleep(600)")
    scripts.said("waits")
    scripts.processes.kill("waits")
    assert scripts.ends.get(timeout=WAIT_SECONDS) == ("waits", "killed by SIGTERM")
    scripts.start("stays", stubborn + "print('here', flush=True)\nwhile True: time.sleep(600)")
    scripts.said("stays")
    scripts.processes.kill("stays")
    assert scripts.ends.get(timeout=WAIT_SECONDS) == ("stays", "killed by SIGKILL")


def test_what_forks_leave_behind_ends_with_them(scripts: Scripts) -> None:
    how, text = scripts.run(
        "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    )
    assert how == ""
    eventually(lambda: not psutil.pid_exists(int(text)))


def test_forks_have_random_numbers_of_their_own(scripts: Scripts) -> None:
    text = "import random, uuid, numpy.random as r; print(random.random(), r.rand(), uuid.uuid4())"
    found = [scripts.run(text)[1].split() for _ in range(2)]
    assert all(a != b for a, b in zip(*found, strict=True))


def test_a_fork_may_have_threads_and_processes(scripts: Scripts) -> None:
    script = """
import concurrent.futures, multiprocessing
import pyarrow as pa, pyarrow.compute as pc, numpy as np
def double(n):
    return 2 * n
if __name__ == "__main__":
    table = pa.table({"x": np.arange(1_000_000) % 7})
    assert table.group_by("x").aggregate([("x", "count")]).num_rows == 7
    assert (np.ones((300, 300)) @ np.ones((300, 300)))[0, 0] == 300
    for method in "spawn", "fork":
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            print(sum(pool.map(double, range(4))))
"""
    assert scripts.run(script) == ("", "12\n12\n")


def test_tasks_start_when_the_warm_process_died(scripts: Scripts) -> None:
    scripts.warm().kill()
    how, text = scripts.run(FORKED)
    assert how == ""
    assert not is_forked(text)


def test_nothing_stays_when_the_nanny_is_killed(scripts: Scripts) -> None:
    scripts.start("waits", "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    pid = int(scripts.said("waits"))
    warm = scripts.warm()
    os.kill(warm.ppid(), signal.SIGKILL)
    assert "killed" in scripts.ends.get(timeout=WAIT_SECONDS)[1]
    for process in (warm.pid, pid):
        eventually(lambda p=process: not psutil.pid_exists(p))


def test_without_preload_nothing_is_forked(tmp_path: Path) -> None:
    plain = Scripts(tmp_path)
    try:
        assert not is_forked(plain.run(FORKED)[1])
    finally:
        plain.processes.close()
