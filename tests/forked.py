"""Processes of `crossdock` that start in hundredths of a second: forks of one that imported all.

They are processes like others: with a command line, an environment, a log and a session of their
own. Run as a script, this is what they are forks of: it reads a line of JSON for each.
"""

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

PR_SET_PDEATHSIG: Final = 1
"""prctl(2)."""
POSSIBLE: Final = sys.platform == "linux"
"""Whether there are the calls of the kernel that this needs."""


class ForkedProcess:
    """What of `subprocess.Popen` the tests use. Thread-safe."""

    def __init__(self, forker: "Forker", args: Sequence[str], pid: int) -> None:
        """Use `Forker.start`."""
        self.args = list(args)
        self.pid = pid
        self.returncode: int | None = None
        self._forker = forker
        self._descriptor = os.pidfd_open(pid)
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, at most `timeout` seconds."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM, if it runs."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL, if it runs."""
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            ended = select.poll()
            ended.register(self._descriptor, select.POLLIN)
            if not ended.poll(None if timeout is None else timeout * 1000):
                return None
        with self._lock:
            if self.returncode is None:
                self.returncode = self._forker.ask({"wait": self.pid})
                os.close(self._descriptor)
            return self.returncode


Process: TypeAlias = ForkedProcess | subprocess.Popen[bytes]


class Forker:
    """Starts processes. They end with it, and it with this process. Thread-safe."""

    def __init__(self, *modules: str) -> None:
        """Args: `modules` are imported once."""
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Compiled once, not at each of a thousand starts.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(
        self, args: Sequence[str], *, log: Path, environment: Mapping[str, str]
    ) -> ForkedProcess:
        """Run a command line: of `crossdock`, or of this Python and a script."""
        request = {
            "args": list(args),
            "log": str(log),
            "environment": dict(environment),
            "directory": str(Path.cwd()),
        }
        return ForkedProcess(self, args, self.ask(request))

    def ask(self, request: Mapping[str, object]) -> int:
        """Return the number that answers a request."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the forker has ended"
        return int(answer)

    def close(self) -> None:
        """End it, and all that it started. Idempotent."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


FORKERS: Final[list[Forker]] = []
"""Of this process. Those who count its children leave them out, and take in theirs."""


@functools.cache
def forker(*modules: str) -> Forker:
    """Return what starts processes that have imported these modules."""
    started = Forker(*modules)
    atexit.register(started.close)
    FORKERS.append(started)
    return started


def start(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    modules: Sequence[str] = (),
) -> Process:
    """Start a process.

    Args:
        command: its line: of `crossdock`, or of this Python and a script.
        log: what it prints is appended there.
        environment: more variables than this process has.
        modules: what it imports anyway, with the command line; without, it is no fork.
    """
    environment = {**os.environ, **(environment or {})}
    if modules and POSSIBLE:
        found = forker("crossdock.cli", *modules)
        return found.start(command, log=log, environment=environment)
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )


def _serve() -> dict[str, Any] | None:
    """Answer requests to their end; return what a fork has to do."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            parent = os.getpid()
            answer = os.fork()
            if not answer:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:  # it went before that held
                    os.kill(os.getpid(), signal.SIGKILL)
                return request
        print(answer, flush=True)
    return None


def _become(request: Mapping[str, Any]) -> None:
    """Be a process of its own from now on."""
    os.setsid()
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)
    sys.argv = request["args"]


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    task = _serve()
    if task is not None:
        _become(task)
        if sys.argv[0] == sys.executable:
            del sys.argv[0]
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            from crossdock.cli import main

            main()
