"""Starts the processes of a run, and ends them all when the runner is gone, however it went.

Run as a script: it must start quickly, so it imports the standard library only. Commands come as
lines of JSON on standard input, and answers go to standard output:

    {"do": "start", "id": …, "argv": […], "env": {…}, "cwd": …, "log": path, "done": path or null,
     "fds": [descriptors that it inherits]}
    {"do": "start", …, "warm": true}               as a fork of the warm process, if there is one
    {"do": "warm", "argv": […], "env": {…}}        starts that: warm.py
    {"do": "kill", "id": …}
    → {"id": …, "is": "started", "pid": …}
    → {"id": …, "is": "failed", "why": …}          it could not be started
    → {"id": …, "is": "ended", "code": …}          negative: the signal that ended it

Every process leads a session of its own. When it ends, what is left of its process group is killed.
`done` is a file that is made, before the answer, when a process ends with 0. At the end of standard
input everything is ended, politely first. On Linux processes that left their group are found too,
as this process adopts them.
"""

import ctypes
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

GRACE_SECONDS: Final = 5.0
"""Between SIGTERM and SIGKILL."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_TICK_SECONDS: Final = 0.1
_WARM_SECONDS: Final = 20.0
"""How long the warm process may take to fork; at first it has to import."""
_NOT_FOR_US: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A terminal's Ctrl-C is the runner's to handle. It tells what is to be done."""


def _prctl() -> Callable[..., int] | None:
    """Return Linux's prctl; None elsewhere."""
    if sys.platform != "linux":
        return None
    function: Callable[..., int] = ctypes.CDLL(None).prctl
    return function


class Adopted:
    """A fork of the warm process, as if it were a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended; None as long as it has not."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # not ours yet: who forked it is about to end
                return None
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Warm:
    """The process that tasks are forked from."""

    def __init__(self, argv: list[str], env: dict[str, str], in_child: Callable[[], None]) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                [*argv, str(theirs.fileno())],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
                preexec_fn=in_child,  # noqa: PLW1509 -- there are no threads here
            )
        self.pid = self._process.pid

    def fork(self, **task: object) -> Adopted | None:
        """Return a process that begins as this one; None if it does not answer."""
        with suppress(OSError, ValueError):
            self._channel.sendall(json.dumps({**task, "parent": os.getpid()}).encode() + b"\n")
            if select.select([self._channel], [], [], _WARM_SECONDS)[0]:
                return Adopted(json.loads(self._channel.recv(4096))["pid"])
        return None

    def end(self) -> None:
        """End it; its forks go on."""
        self._channel.close()
        self._process.kill()
        self._process.wait()


class Nanny:
    """The processes of one run."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes] | Adopted] = {}
        self._warm: Warm | None = None
        self._done: dict[str, str] = {}
        self._kill_at: dict[str, float] = {}
        self._prctl = _prctl()
        if self._prctl is not None:
            self._prctl(_PR_SET_CHILD_SUBREAPER, 1)

    # -- commands --------------------------------------------------------------------------

    def obey(self, line: bytes) -> None:
        """Do what one line says."""
        command = json.loads(line)
        if command["do"] == "start":
            self._start(command)
        elif command["do"] == "warm":
            with suppress(OSError):  # tasks start without it too
                self._warm = Warm(command["argv"], command["env"], self._in_child)
        else:
            self._ask_to_end(command["id"])

    def _start(self, command: dict[str, Any]) -> None:
        name = command["id"]
        try:
            self._processes[name] = self._forked(command) or self._spawned(command)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in an argument
            say(id=name, **{"is": "failed", "why": str(error)})
            return
        if command["done"]:
            self._done[name] = command["done"]
        say(id=name, **{"is": "started", "pid": self._processes[name].pid})

    def _spawned(self, command: dict[str, Any]) -> subprocess.Popen[bytes]:
        with Path(command["log"]).open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                command["argv"],
                env=command["env"],
                cwd=command["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=command["fds"],
                preexec_fn=self._in_child,  # noqa: PLW1509 -- there are no threads here
            )

    def _forked(self, command: dict[str, Any]) -> Adopted | None:
        if self._warm is None or not command["warm"] or not Path(command["cwd"]).is_dir():
            return None
        made = self._warm.fork(**{k: command[k] for k in ("argv", "env", "cwd", "log")})
        if made is None:  # it has died, or hangs: from now on they start by themselves
            self._warm.end()
            self._warm = None
        return made

    def _in_child(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in _NOT_FOR_US:  # what is ignored here would be ignored there
            signal.signal(number, signal.SIG_DFL)
        if self._prctl is not None:  # should this process be killed too
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def _ask_to_end(self, name: str) -> None:
        process = self._processes.get(name)
        if process is not None and name not in self._kill_at:
            self._kill_at[name] = time.monotonic() + GRACE_SECONDS
            _signal(process.pid, signal.SIGTERM)

    @property
    def impatient(self) -> bool:
        """Whether some process has been asked to end and may have to be killed."""
        return bool(self._kill_at)

    # -- what happens by itself ------------------------------------------------------------

    def tend(self) -> None:
        """Report processes that ended; kill those that were asked to and did not."""
        for name, process in list(self._processes.items()):
            if process.poll() is None:
                continue
            _signal(process.pid, signal.SIGKILL)  # what it left behind in its group
            del self._processes[name]
            self._kill_at.pop(name, None)
            done = self._done.pop(name, None)
            try:
                if done is not None and process.returncode == 0:
                    Path(done).touch()
            except OSError as error:
                say(id=name, **{"is": "failed", "why": f"cannot note that it succeeded: {error}"})
            else:
                say(id=name, **{"is": "ended", "code": process.returncode})
        now = time.monotonic()
        for name, at in self._kill_at.items():
            if now > at:
                _signal(self._processes[name].pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        """Collect adopted processes that ended; never one of ours, whose code would be lost."""
        own = {p.pid for p in self._processes.values()}
        own |= {self._warm.pid} if self._warm is not None else set()
        for pid in _children():
            if pid not in own:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def end(self, wait: Callable[[], object]) -> None:
        """End everything, and return when nothing is left.

        Args:
            wait: returns when a process has ended, or soon.
        """
        for name in list(self._processes):
            self._ask_to_end(name)
        while self._processes:
            wait()
            self.tend()
        if self._warm is not None:
            self._warm.end()
            self._warm = None
        while strays := _children():
            for pid in strays:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def say(**fields: Any) -> None:
    """Write one answer; nobody may be listening any more."""
    line = json.dumps(fields).encode() + b"\n"
    with suppress(BrokenPipeError):
        while line:
            line = line[os.write(1, line) :]


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _children() -> list[int]:
    """Return this process's children; on Linux only."""
    try:
        text = Path("/proc/self/task", str(os.getpid()), "children").read_text()
    except OSError:
        return []
    return [int(pid) for pid in text.split()]


def main() -> None:
    """Obey until standard input ends."""
    for number in _NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    nanny = Nanny()
    waiting = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(_TICK_SECONDS if nanny.impatient else None):
                data = os.read(key.fd, 1 << 16)
                if key.fd == 0:
                    if not data:
                        selector.unregister(0)
                        nanny.end(lambda: _drain(selector))
                        return
                    waiting += data
            *lines, rest = bytes(waiting).split(b"\n")
            waiting = bytearray(rest)
            for line in lines:
                nanny.obey(line)
            nanny.tend()


def _drain(selector: selectors.BaseSelector) -> None:
    for key, _ in selector.select(_TICK_SECONDS):
        os.read(key.fd, 1 << 16)


if __name__ == "__main__":
    main()
