"""A run's own worker, and how its tasks are started beside it."""

import os
import secrets
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crossdock.jobfile.model import FilesOutput, Stage
from crossdock.options import ENV_STORE, ENV_STORE_OPTIONS
from crossdock.stagefile import ENV_ATTEMPT, ENV_INDEX, ENV_JOB_INDEX, ENV_STAGE_FILE
from crossdock.stages.backend import TaskProcess
from crossdock.stages.events import TaskId
from crossdock.stages.processes import Processes, tail
from crossdock.stages.rundir import RunDirectory, RunRecord, worker_data
from crossdock.wire import tokens

_PYTHONS: Final = {"python", "python3"}
_TOKEN_SECONDS: Final = 30 * 86_400.0
_QUICK_SECONDS: Final = 5.0
_QUICK_DEATHS: Final = 5


class LocalWorker:
    """A shuffle worker with a key of its own. It is started again when it dies."""

    def __init__(
        self,
        run: RunDirectory,
        processes: Processes,
        listener: socket.socket,
        *,
        record: RunRecord,
    ) -> None:
        """Args: `listener` is its socket, which `processes` holds too."""
        host, port = listener.getsockname()
        self.url = f"http://{host}:{port}"
        self._socket = listener
        self.token_file = run.path / "token"
        self._run = run
        self._processes = processes
        self._record = record
        self._on_broken: Callable[[str], None] = lambda _why: None
        self._key = run.path / "key"
        self._log = run.logs / "worker.log"
        self._lock = threading.Lock()
        self._starts = 0
        self._started = 0.0
        self._quick_deaths = 0
        self._stopping = False

    def start(self) -> None:
        """Start it. Calls wait in the socket's queue until it answers, now and after a death."""
        if not self._key.exists():
            _write_private(self._key, secrets.token_hex(32))
        signing = tokens.parse_keys(self._key.read_text())[0]
        _write_private(
            self.token_file, tokens.mint(signing, job=self._record.job, ttl_seconds=_TOKEN_SECONDS)
        )
        self._launch()

    def log_tail(self, lines: int) -> list[str]:
        """Return the last lines that it wrote."""
        return tail(self._log, lines)

    def watch(self, on_broken: Callable[[str], None]) -> None:
        """Call `on_broken` with the reason, should the worker not stay up."""
        self._on_broken = on_broken

    def stop(self) -> None:
        """Do not start it again; whoever closes the processes ends it."""
        with self._lock:
            self._stopping = True

    def _launch(self) -> None:
        with self._lock:
            if self._stopping:
                return
            self._starts += 1
            self._started = time.monotonic()
            name = f"worker/{self._starts}"
        fd = self._socket.fileno()
        self._processes.start(
            name,
            [
                *(sys.executable, "-m", "crossdock", "worker", "--listen", f"fd://{fd}"),
                *("--data-dir", str(worker_data(self._run.path)), "--key-file", str(self._key)),
                *self._store_arguments(),
            ],
            env=dict(os.environ),
            cwd=self._run.path,
            log=self._log,
            on_end=self._ended,
            fds=[fd],
        )

    def _store_arguments(self) -> list[str]:
        record = self._record
        if not record.store:
            return []
        options = [part for text in record.store_options for part in ("--store-option", text)]
        # Nobody needs at its end what is here: it has nothing to hand over.
        settle = ["--store-settle-seconds", str(record.store_settle_seconds)]
        return ["--store", record.store, *options, *settle, "--drain-grace-seconds", "0"]

    @property
    def store_environment(self) -> dict[str, str]:
        """How tasks find the store, if there is one."""
        record = self._record
        if not record.store:
            return {}
        return {ENV_STORE: record.store, ENV_STORE_OPTIONS: shlex.join(record.store_options)}

    def _ended(self, how: str) -> None:
        with self._lock:
            if self._stopping or not self._processes.alive:
                return
            quick = time.monotonic() - self._started < _QUICK_SECONDS
            self._quick_deaths = self._quick_deaths + 1 if quick else 0
            hopeless = self._quick_deaths > _QUICK_DEATHS
        if hopeless:
            self._on_broken(f"the shuffle worker does not stay up: {how or 'it ended'}")
        else:
            self._launch()


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLauncher:
    """Makes a process of a task."""

    worker: LocalWorker
    run: RunDirectory
    directory: Path
    """Of the job file: what commands and working directories are relative to."""

    def __call__(self, stage: Stage, task: TaskId) -> TaskProcess:
        """Return how a task is run: its container's command, here."""
        container = stage.container
        in_pods = {ENV_JOB_INDEX: str(task.index)}
        argv, own = container.expanded(in_pods)
        if argv[0] in _PYTHONS:
            argv[0] = sys.executable
        beside = str(Path(sys.executable).parent)
        env = {
            **os.environ,
            "PATH": os.pathsep.join((beside, os.environ.get("PATH", os.defpath))),
            "PYTHONUNBUFFERED": "1",  # what a task said last must be in its log
            **in_pods,
            **own,
            "CROSSDOCK_ENDPOINTS": self.worker.url,
            "CROSSDOCK_TOKEN_FILE": str(self.worker.token_file),
            **self.worker.store_environment,
            ENV_STAGE_FILE: str(self.run.path / "stages" / f"{stage.name}.json"),
            ENV_INDEX: str(task.index),
            ENV_ATTEMPT: str(task.attempt),
        }
        final = isinstance(stage.output, FilesOutput)
        return TaskProcess(
            task=task,
            argv=argv,
            env=env,
            cwd=self.directory / (container.working_dir or ""),
            done=self.run.done_file(stage.name, task.index, task.attempt) if final else None,
        )


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
