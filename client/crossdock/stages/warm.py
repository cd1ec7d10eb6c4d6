"""Forks tasks from a process that has imported already what they will import. Linux only.

Half a second of a task that runs `python script.py` goes into importing pyarrow, numpy and
crossdock, again for each. So one process per run imports them, and every such task is a fork of
it that goes on as the interpreter would: arguments, environment, working directory, `__main__`.

Run as a script, `warm.py MODULE… FD`, by the nanny (nanny.py), which tells it what to start on that
descriptor, a line of JSON each:

    {"argv": [python, script, …], "env": {…}, "cwd": …, "log": path, "parent": the nanny's pid}
    → {"pid": …}

Each fork is orphaned at once, so that the nanny adopts it and hears how it ends. Nothing but the
standard library is imported before that, and no module that was asked for has to be there.
"""

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

DEFAULT_MODULES: Final = "crossdock.arrow"

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_READ_AT_START: Final = (
    *("PYTHON", "LD_", "MALLOC_", "GLIBC_", "LC_", "LANG", "TZ"),
    *("ARROW_", "OMP_", "OPENBLAS_", "MKL_", "NPY_", "NUMPY_", "OPENSSL_"),
)
"""How variables begin that the interpreter, or a library, reads only when it is loaded."""


def can_fork(argv: Sequence[str], env: Mapping[str, str], base: Mapping[str, str]) -> bool:
    """Whether a fork of a process with the environment `base` is the same as a process of its own.

    It is for `python script.py …` without options of the interpreter, unless the environments
    differ in what is read only once.
    """
    if sys.platform != "linux" or len(argv) < 2:
        return False
    if argv[0] != sys.executable or not argv[1].endswith(".py"):
        return False
    if "\0" in "".join((*argv, *env, *env.values())):  # no process can be given these
        return False
    names = {n for n in env.keys() | base.keys() if n.startswith(_READ_AT_START)}
    return all(env.get(n) == base.get(n) for n in names)


def preload(modules: Sequence[str]) -> None:
    """Import what is there of these; a task says what it misses."""
    for name in modules:
        with suppress(Exception):  # whatever it is: tasks that import it meet it again, and say so
            importlib.import_module(name)


def serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return it in the fork, and None here when nobody asks any more."""
    with channel.makefile("rb") as requests:
        for line in requests:
            child = os.fork()
            if child == 0:
                if os.fork():
                    os._exit(0)
                return dict(json.loads(line))
            os.waitpid(child, 0)
    return None


def become(task: dict[str, Any], channel: socket.socket) -> None:
    """Make this fork the process that was asked for, up to its script."""
    os.setsid()
    channel.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    channel.close()
    _wait_for_parent(task["parent"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(task["cwd"])
    os.environ.clear()
    os.environ.update(task["env"])
    sys.argv = task["argv"][1:]
    sys.orig_argv = list(task["argv"])
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    _prctl(_PR_SET_NAME, Path(sys.argv[0]).name.encode())  # what `top` shows, cut to 15 bytes
    random = sys.modules.get("numpy.random")
    if random is not None:  # the standard library's own is seeded again after a fork
        random.seed()


def _wait_for_parent(parent: int) -> None:
    """Return when the nanny has adopted this process; and end when the nanny ends."""
    between = os.getppid()
    if between != parent:
        with suppress(ProcessLookupError):  # it has just gone, so the nanny is our parent
            watched = os.pidfd_open(between)
            select.select([watched], [], [])
            os.close(watched)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int | bytes) -> None:
    ctypes.CDLL(None).prctl(option, value)


def run_script(path: str) -> None:
    """Run a script as the interpreter would, and say of an error what it would say."""
    import runpy  # noqa: PLC0415 -- only here, so that its name is in no task's way

    try:
        runpy.run_path(path, run_name="__main__")
    except Exception as error:  # noqa: BLE001 -- all that a script may raise
        found = error.__traceback__
        while found is not None and found.tb_frame.f_code.co_filename != path:
            found = found.tb_next
        traceback.print_exception(error.with_traceback(found or error.__traceback__))
        sys.exit(1)


def main() -> None:
    """Import, then fork until the nanny is gone."""
    sys.path.pop(0)  # the directory of this file: its neighbours are no modules for tasks
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # numpy has idle threads by now, and knows what to do with them when it is forked.
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    *modules, descriptor = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as channel:
        preload(modules)
        gc.freeze()  # a collection in a fork would touch, and so copy, all of it
        task = serve(channel)
        if task is None:
            return
        become(task, channel)
    run_script(sys.argv[0])


if __name__ == "__main__":
    main()
