"""`crossdock run` as a process, jobs for it, and what it must not leave behind."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import psutil
import yaml

from harness import eventually

MARK: Final = "CROSSDOCK_TEST_MARK"
PARTITIONS: Final = 6
END_SECONDS: Final = 120.0

TASK: Final = '''
"""A task that does as files in the directory `control` say."""
import os, secrets, signal, sys, time
from pathlib import Path

CONTROL = Path("control")
TRY = secrets.token_hex(4)

def among_starts(task):
    """Note a start; return how many there were of this task, with this one."""
    name = f"{task.stage}-{task.index}"
    (CONTROL / f"started-{name}-{TRY}").touch()
    return len(list(CONTROL.glob(f"started-{name}-*")))

def hold(name):
    while (CONTROL / f"hold-{name}").exists():
        time.sleep(0.02)

import crossdock
with crossdock.task() as task:
    starts = among_starts(task)
    name = f"{task.stage}-{task.index}"
    hold(task.stage)
    hold(name)
    seen = []
    for source in task.inputs.values():
        if hasattr(source, "files"):
            seen += [Path(f).read_text().strip() for f in source.files]
        else:
            seen += [f"{b.partition} {bytes(b.data).decode()}" for b in source.read()]
    token = secrets.token_hex(4) if (CONTROL / f"changing-{task.stage}").exists() else "same"
    failing = CONTROL / f"fail-{name}"
    fail = failing.exists() and starts <= int(failing.read_text())
    if hasattr(task.output, "writer"):
        said = f"{task.stage} {task.index} {token}"
        if (CONTROL / f"show-{task.stage}").exists():
            said += " " + "+".join(sorted(seen))
        with task.output.writer() as writer:
            for partition in range(task.output.partitions):
                writer.write(partition, said.encode(), rows=1)
    else:
        suffix = f".{starts}.txt" if fail or failing.exists() else ".txt"
        task.output.path(suffix).write_text("".join(f"{line}\\n" for line in seen))
    (CONTROL / f"written-{name}-{TRY}").touch()
    hold(f"{task.stage}-end")
    if fail:
        print("about to fail", name)
        print("last words", name)
        sys.exit(7)
    (CONTROL / f"done-{name}-{TRY}").touch()
'''

Stage = dict[str, Any]


def stage(name: str, *command: str, **fields: Any) -> Stage:
    """Return a stage of a job file that runs TASK, or a command."""
    container = {"name": "task", "command": list(command) or ["python", "task.py"]}
    return {"name": name, "podTemplate": {"spec": {"containers": [container]}}, **fields}


def maps(count: int = 3, *command: str, name: str = "map", **fields: Any) -> Stage:
    """Return a first stage."""
    output = {"shuffle": {"partitions": PARTITIONS}}
    return stage(name, *command, **{"parallelism": count, "output": output, **fields})


def reduces(
    count: int = 2, *command: str, name: str = "reduce", of: str = "map", **fields: Any
) -> Stage:
    """Return a last stage."""
    given = {"parallelism": count, "inputs": [{"stage": of}], "output": {"files": "result"}}
    return stage(name, *command, **{**given, **fields})


class JobDirectory:
    """A job file with what its tasks are told, and the TMPDIR of its runs."""

    def __init__(self, path: Path, *stages: Stage, **spec: Any) -> None:
        self.path = path / "job"
        self.control = self.path / "control"
        self.result = self.path / "result"
        self.temporary = path / "tmp"
        self.control.mkdir(parents=True)
        self.temporary.mkdir()
        (self.path / "task.py").write_text(TASK)
        self.file = self.path / "job.yaml"
        job = {
            "apiVersion": "crossdock.dev/v1alpha1",
            "kind": "ShuffleJob",
            "metadata": {"name": "job"},
            "spec": {"stages": list(stages), **spec},
        }
        self.file.write_text(yaml.safe_dump(job))
        self._before = set(self.path.iterdir())

    # -- what tasks do ---------------------------------------------------------------------

    def hold(self, name: str) -> None:
        """Make tasks of a stage, or one (STAGE-INDEX), wait; with -end before they exit."""
        (self.control / f"hold-{name}").touch()

    def release(self, name: str) -> None:
        (self.control / f"hold-{name}").unlink()

    def fail(self, name: str, times: int) -> None:
        """Make the first tries of a task fail after it has written."""
        (self.control / f"fail-{name}").write_text(str(times))

    def changing(self, name: str) -> None:
        """Make tasks of a stage write something else each time."""
        (self.control / f"changing-{name}").touch()

    def _count(self, what: str) -> Counter[str]:
        names = [p.name for p in self.control.glob(f"{what}-*")]
        return Counter(name.removeprefix(f"{what}-").rpartition("-")[0] for name in names)

    def starts(self) -> Counter[str]:
        """Return how often each task has been started, by STAGE-INDEX."""
        return self._count("started")

    def written(self) -> Counter[str]:
        """Return how often each task has written its output."""
        return self._count("written")

    def done(self) -> Counter[str]:
        """Return how often each task has come to its end."""
        return self._count("done")

    def until(self, what: str, probe: Callable[[], object]) -> None:
        """Wait for something that tasks do."""
        eventually(probe, seconds=END_SECONDS, what=what)

    # -- what comes of it ------------------------------------------------------------------

    def lines(self) -> list[str]:
        """Return the lines of all files of the result."""
        files = [f for f in sorted(self.result.iterdir()) if f.name != "_SUCCESS"]
        assert all(f.name.startswith("part-") for f in files), files
        return [line for f in files for line in f.read_text().splitlines()]

    def check_result(self, tasks: int = 3, of: str = "map") -> None:
        """Every partition has read one and the same content of every map, once."""
        words = [line.split() for line in self.lines()]
        pairs = sorted((int(p), m) for p, _, m, _ in words)
        assert pairs == [(p, str(m)) for p in range(PARTITIONS) for m in range(tasks)]
        assert {s for _, s, _, _ in words} == {of}
        assert len({(m, token) for _, _, m, token in words}) == tasks, "two contents of a map"

    def check_clean(self, *more: str) -> None:
        """Nothing is beside the result, and nothing in TMPDIR."""
        made = {p.name for p in set(self.path.iterdir()) - self._before}
        assert made - {"__pycache__"} == set(more)
        assert list(self.temporary.iterdir()) == []

    # -- runs ------------------------------------------------------------------------------

    @contextmanager
    def run(self, *options: object, job: bool = True) -> Iterator["Run"]:
        """Start `crossdock run`; nothing of it lives when the context ends."""
        with Run(self, [self.file, *options] if job else options) as run:
            yield run

    def finish(self, *options: object, job: bool = True, code: int = 0) -> "Run":
        """Run to the end; the exit code must be as given, and no process left."""
        with self.run(*options, job=job) as run:
            run.wait(code)
        return run


class Run:
    """One `crossdock run`. All processes that descend from it are marked, wherever they go."""

    def __init__(self, job: JobDirectory, options: Sequence[object]) -> None:
        self._mark = secrets.token_hex(8)
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by __exit__
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self.out = self.err = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "crossdock", "run", *map(str, options)],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={**os.environ, "TMPDIR": str(job.temporary), MARK: self._mark},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()

    def processes(self) -> list[psutil.Process]:
        """Return everything that lives and descends from the run, the runner too."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                marked = process.environ().get(MARK) == self._mark
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def find(self, *words: str) -> list[psutil.Process]:
        """Return the processes whose command line has all these words."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if process.pid != self.process.pid and all(word in line for word in words):
                    found.append(process)
        return found

    def worker(self) -> psutil.Process:
        """Return the process that was started as the worker."""
        found = self.find("crossdock worker")
        return min(found, key=lambda p: p.create_time())

    def wait(self, *codes: int, seconds: float = END_SECONDS) -> None:
        """Wait for the end, with one of these exit codes (default 0); nothing may live on."""
        try:
            got = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on:\n{self.read()}") from None
        self.read()
        assert got in (codes or (0,)), f"exit code {got}\n{self.out}\n{self.err}"
        assert self.processes() == []

    def kill9(self) -> None:
        """Kill the runner; all else must end by itself."""
        self.kill9_only()
        eventually(lambda: not self.processes(), what="the end of all children")

    def kill9_only(self) -> None:
        """Kill the runner; what it has started may still be ending."""
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def read(self) -> str:
        """Read what it has printed so far, into `out` and `err`."""
        for file, name in ((self._out, "out"), (self._err, "err")):
            file.seek(0)
            setattr(self, name, file.read().decode())
        return self.out + self.err

    def json_lines(self) -> list[Mapping[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]
