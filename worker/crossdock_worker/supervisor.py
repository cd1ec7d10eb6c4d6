"""`--processes N`: one worker process per core, each on a port and a directory of its own.

A process that dies is started again, after a pause that grows while it keeps dying. SIGTERM goes
on to all of them. When the supervisor itself is killed its workers end: the kernel tells them.
"""

import ctypes
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from types import FrameType

import structlog

from crossdock.errors import ConfigError
from crossdock_worker.settings import Settings

log = structlog.get_logger()

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0
_HEALTHY_SECONDS = 10.0
_EXIT_SECONDS = 5.0
"""How long a process may take that has ended its requests."""
_PR_SET_PDEATHSIG = 1
_LAST_PORT = 65535


def split(settings: Settings, processes: int) -> list[Settings]:
    """Return the settings of each process: consecutive ports, own directories, all peers."""
    if settings.port == 0:
        raise ConfigError("--processes needs a port: workers take consecutive ones from it")
    if settings.port + processes - 1 > _LAST_PORT:
        raise ConfigError(
            f"--processes {processes} needs the ports {settings.port} to "
            f"{settings.port + processes - 1}, and the last one is {_LAST_PORT}",
            hint="give a lower port with --listen, or fewer --processes",
        )
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host
    urls = [f"{settings.scheme}://{host}:{settings.port + i}" for i in range(processes)]
    return [
        replace(
            settings,
            data_dir=settings.data_dir / f"worker-{i}",
            port=settings.port + i,
            advertise=_advertise(settings.advertise, i),
            peers=settings.peers + tuple(u for u in urls if u != urls[i]),
        )
        for i in range(processes)
    ]


def _advertise(url: str, index: int) -> str:
    if not url:
        return ""
    base, colon, port = url.rpartition(":")
    if not colon or not port.isdigit():
        raise ConfigError(f"--advertise {url} has no port: with --processes it needs the first one")
    if int(port) + index > _LAST_PORT:
        raise ConfigError(f"--advertise {url}: a process would have port {int(port) + index}")
    return f"{base}:{int(port) + index}"


def _child(settings: Settings, parent: int, level: str) -> None:
    from crossdock_worker import server  # noqa: PLC0415 -- only the children need it

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return
    server.configure_logging(level=level)
    server.run(settings)


class _Slot:
    """One worker process, started again and again."""

    def __init__(self, settings: Settings, level: str) -> None:
        self._settings = settings
        self._level = level
        self._pause = _FIRST_PAUSE_SECONDS
        self._started = 0.0
        self._next_start = 0.0
        self.process: SpawnProcess | None = None

    def tend(self) -> None:
        """Start the process if it is due; note its death."""
        now = time.monotonic()
        if self.process is not None and self.process.exitcode is not None:
            log.error("worker process died", port=self._settings.port,
                      exit_code=self.process.exitcode, again_in_seconds=self._pause)  # fmt: skip
            lived = now - self._started
            self._pause = _FIRST_PAUSE_SECONDS if lived > _HEALTHY_SECONDS else self._pause
            self._next_start = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            self.process.close()
            self.process = None
        if self.process is None and now >= self._next_start:
            self.process = multiprocessing.get_context("spawn").Process(
                target=_child, args=(self._settings, os.getpid(), self._level)
            )
            self.process.start()
            self._started = now


def run(settings: Settings, processes: int, *, level: str = "info") -> None:
    """Run N workers until SIGTERM or SIGINT."""
    slots = [_Slot(s, level) for s in split(settings, processes)]
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    # Blocked but for sigtimedwait, which is thus the only place where signals arrive.
    awaited = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not stopping:
        for slot in slots:
            slot.tend()
        signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
        try:
            came = signal.sigtimedwait(awaited, _FIRST_PAUSE_SECONDS)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, awaited)
        if came is not None and came.si_signo != signal.SIGCHLD:
            stopping = True
    for slot in slots:
        if slot.process is not None:
            slot.process.terminate()
    for slot in slots:
        if slot.process is not None:
            slot.process.join(settings.ending_seconds + _EXIT_SECONDS)
            slot.process.kill()
            slot.process.join()
