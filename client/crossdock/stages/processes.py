"""Tasks, and what they need, as processes of this machine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from crossdock.errors import CrossdockError
from crossdock.stages import nanny, warm
from crossdock.stages.backend import OnEnd, TaskProcess
from crossdock.stages.events import TaskEnded, TaskId

_TAIL_BYTES: Final = 64 * 1024
_GONE: Final = "the process that keeps this run's processes was killed"
_REAPED_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.01

Ended = Callable[[str], None]
"""Called with one line that says how a process ended; an empty one when it ended with 0."""


class Processes:
    """All processes of a run, kept by a nanny that outlives the runner by a moment. Thread-safe."""

    def __init__(self, *, hold: Sequence[int] = (), preload: Sequence[str] = ()) -> None:
        """Start the nanny.

        Args:
            hold: descriptors kept open until the last process has ended.
            preload: modules that tasks in Python find imported; none: each starts by itself.
        """
        # Isolated and without `site`: nothing but the standard library is needed, and it is quick.
        self._nanny = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", nanny.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            pass_fds=hold,
        )
        self._lock = threading.Lock()
        # Apart from the other: who writes may have to wait until answers are read.
        self._writing = threading.Lock()
        self._ended: dict[str, Ended] = {}
        self._groups: dict[str, int] = {}
        self._alive = True
        self._closing = False
        self._on_gone: Callable[[str], object] = lambda _why: None
        self._listener = threading.Thread(target=self._listen, name="crossdock-nanny")
        self._listener.start()
        # What every task is given: see `LocalLauncher`.
        self._base = {**os.environ, "PYTHONUNBUFFERED": "1"} if preload else {}
        if preload:
            argv = [sys.executable, warm.__file__, *preload]
            self._tell(do="warm", argv=argv, env=self._base)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        on_end: Ended,
        done: Path | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        """Start a process; `on_end` is called from another thread when it has ended.

        Args:
            name: no other process of the run has it.
            argv: what to run.
            env: all of its environment.
            cwd: its working directory.
            log: a file for what it writes.
            on_end: told how it ended.
            done: a file that is made when it ends with 0.
            fds: descriptors that it inherits; this object must have been made to hold them.
        """
        with self._lock:
            alive = self._alive
            if alive:
                self._ended[name] = on_end
        if not alive:
            on_end(_GONE)
            return
        self._tell(
            do="start",
            id=name,
            argv=list(argv),
            env=dict(env),
            cwd=str(cwd),
            log=str(log),
            done=None if done is None else str(done),
            fds=list(fds),
            warm=bool(self._base) and not fds and warm.can_fork(argv, env, self._base),
        )

    def kill(self, name: str) -> None:
        """End a process: SIGTERM, and SIGKILL if that is not enough."""
        self._tell(do="kill", id=name)

    def watch(self, on_gone: Callable[[str], object]) -> None:
        """Call `on_gone`, from another thread, should the nanny die: nothing runs any more."""
        self._on_gone = on_gone
        if not self.alive:
            on_gone(_GONE)

    @property
    def alive(self) -> bool:
        """Whether processes can be started."""
        with self._lock:
            return self._alive

    def close(self) -> None:
        """End all processes; return when none is left. Idempotent."""
        self._closing = True
        with self._writing, suppress(OSError):
            if self._nanny.stdin is not None:
                self._nanny.stdin.close()
        self._listener.join()
        self._nanny.wait()

    def _tell(self, **command: object) -> None:
        assert self._nanny.stdin is not None
        with (
            self._writing,
            suppress(BrokenPipeError, ValueError),
        ):  # gone: `_listen` tells everybody
            self._nanny.stdin.write(json.dumps(command).encode() + b"\n")
            self._nanny.stdin.flush()

    def _listen(self) -> None:
        assert self._nanny.stdout is not None
        with self._nanny.stdout as answers:
            for line in answers:
                with suppress(ValueError):  # a torn last line
                    self._hear(json.loads(line))
        with self._lock:
            self._alive = False
            left, self._ended = self._ended, {}
            groups, self._groups = self._groups, {}
        if not self._closing:
            self._on_gone(_GONE)
        # The nanny ends what it keeps before it goes. If it was killed, this does.
        _kill_groups(list(groups.values()))
        for on_end in left.values():
            on_end(_GONE)

    def _hear(self, answer: dict[str, Any]) -> None:
        name = answer["id"]
        with self._lock:
            if answer["is"] == "started":
                self._groups[name] = answer["pid"]
                return
            self._groups.pop(name, None)
            on_end = self._ended.pop(name, None)
        if on_end is not None:
            on_end(answer["why"] if answer["is"] == "failed" else describe_exit(answer["code"]))


def tail(log: Path, lines: int) -> list[str]:
    """Return the last lines of a file; none if it is not there."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []


def _kill_groups(groups: Sequence[int]) -> None:
    """Kill process groups; return when they are gone, or soon: nobody may be there to reap them."""
    until = time.monotonic() + _REAPED_SECONDS
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
            while time.monotonic() < until:
                os.killpg(group, 0)
                time.sleep(_POLL_SECONDS)


def describe_exit(code: int) -> str:
    """Return how a process ended, in words; nothing when it ended with 0."""
    if code >= 0:
        return f"exit code {code}" if code else ""
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class ProcessBackend:
    """Runs at most `slots` tasks at once, in the order in which they were started."""

    def __init__(self, processes: Processes, *, slots: int, logs: Path, on_end: OnEnd) -> None:
        """Args: `logs` is the directory for what the tasks write."""
        if slots < 1:
            raise CrossdockError(f"{slots} slots run no task")
        self._processes = processes
        self._slots = slots
        self._logs = logs
        self._on_end = on_end
        self._lock = threading.Lock()
        self._waiting: deque[TaskProcess] = deque()
        self._running: set[TaskId] = set()

    def start(self, process: TaskProcess) -> None:
        """Run a task when there is room."""
        with self._lock:
            self._waiting.append(process)
        self._fill()

    def kill(self, task: TaskId) -> None:
        """End a task, running or waiting for room."""
        with self._lock:
            waiting = [p for p in self._waiting if p.task == task]
            for process in waiting:
                self._waiting.remove(process)
        if waiting:
            self._on_end(TaskEnded(task, "ended before it ran"))
        else:
            self._processes.kill(_name(task))

    def running(self, stage: str) -> int:
        """Return how many tasks of a stage run now."""
        with self._lock:
            return sum(task.stage == stage for task in self._running)

    def log_tail(self, task: TaskId, lines: int) -> list[str]:
        """Return the last lines that a task wrote."""
        return tail(self.log_file(task), lines)

    def log_file(self, task: TaskId) -> Path:
        """Return where a task's output goes."""
        return self._logs / f"{task.stage}-{task.index}-{task.attempt}.log"

    def close(self) -> None:
        """Start no further task, and end those that run."""
        with self._lock:
            self._waiting.clear()
            running = list(self._running)
        for task in running:
            self._processes.kill(_name(task))

    def _fill(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or len(self._running) >= self._slots:
                    return
                process = self._waiting.popleft()
                self._running.add(process.task)
            self._processes.start(
                _name(process.task),
                process.argv,
                env=process.env,
                cwd=process.cwd,
                log=self.log_file(process.task),
                done=process.done,
                on_end=partial(self._ended, process.task),
            )

    def _ended(self, task: TaskId, how: str) -> None:
        with self._lock:
            self._running.discard(task)
        self._fill()
        self._on_end(TaskEnded(task, how or None))


def _name(task: TaskId) -> str:
    return f"{task.stage}/{task.index}/{task.attempt}"
