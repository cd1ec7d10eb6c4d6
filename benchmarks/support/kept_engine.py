"""An engine that keeps its executors for all of a job: stages as in `crossdock run`, tasks in pods.

    python kept_engine.py driver JOB.json DIRECTORY
    python kept_engine.py executor http://driver:8000

Executors take tasks from the driver one after the other; both see DIRECTORY. The driver prints last
how many seconds went by from the first task's start to the job's end.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import crossdock
from crossdock.jobfile.build import build
from crossdock.jobfile.model import FilesOutput, Stage
from crossdock.stagefile import ENV_ATTEMPT, ENV_INDEX, ENV_STAGE_FILE
from crossdock.stages.actions import Actions, find_inputs
from crossdock.stages.backend import OnEnd, TaskProcess
from crossdock.stages.events import TaskEnded, TaskId
from crossdock.stages.places import LocalPlace
from crossdock.stages.rundir import RunDirectory
from crossdock.stages.runner import StageRunner

PROGRAMS = Path("/opt/examples")
PORT = 8000
TAKE_SECONDS = 5.0
"""For so long an executor that asks for a task waits for one."""
ASK_SECONDS = 30.0
AGAIN_SECONDS = 0.2


class Executors:
    """The queue from which executors take tasks: a `crossdock.stages.backend.Backend`."""

    def __init__(self, on_end: OnEnd) -> None:
        """Args: `on_end` is told how each task ended."""
        self._on_end = on_end
        self._waiting: queue.SimpleQueue[TaskProcess] = queue.SimpleQueue()
        self._running: set[TaskId] = set()
        self.began: float | None = None
        """When the first task was taken."""

    def start(self, process: TaskProcess) -> None:
        self._waiting.put(process)

    def kill(self, task: TaskId) -> None:
        """Not this one: an executor ends what it has begun."""

    def running(self, stage: str) -> int:
        return sum(task.stage == stage for task in list(self._running))

    def log_tail(self, task: TaskId, lines: int) -> list[str]:  # noqa: ARG002
        return [f"the log of {task} is that of its executor's pod"]

    def close(self) -> None:
        """Nothing is left to end."""

    def take(self) -> dict[str, object] | None:
        """Return the next task, or None if there is none for a while."""
        try:
            process = self._waiting.get(timeout=TAKE_SECONDS)
        except queue.Empty:
            return None
        self.began = self.began or time.monotonic()
        self._running.add(process.task)
        task = process.task
        return {
            "task": [task.stage, task.index, task.attempt],
            "argv": list(process.argv),
            "env": dict(process.env),
            "cwd": str(process.cwd),
            "done": None if process.done is None else str(process.done),
        }

    def done(self, task: TaskId, failure: str | None) -> None:
        """Take how a task ended."""
        self._running.discard(task)
        self._on_end(TaskEnded(task, failure))


class Handler(BaseHTTPRequestHandler):
    """POST /take and /done, both with JSON."""

    executors: Executors

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = None
        if self.path == "/take":
            answer = self.executors.take()
        else:
            self.executors.done(TaskId(*said["task"]), said["failure"])
        self.send_response(HTTPStatus.OK)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def drive(job_file: Path, directory: Path) -> None:
    """Run a job file's stages on the executors that ask for tasks."""
    job, uid = build(json.loads(job_file.read_text()), for_clusters=()), os.environ["CROSSDOCK_JOB"]
    run = RunDirectory.fresh(directory / "run", clear=lambda *_: None)
    with crossdock.connect() as cluster:
        place = LocalPlace(
            run, job=uid, data_root=directory, files=find_inputs(job, directory), overwrite=False
        )
        runner = StageRunner(
            job,
            actions=Actions(job, handle=cluster.job(uid), place=place),
            run=run,
            epoch=0,
            launch=partial(_process, run),
            on_progress=lambda _: None,
            on_failure=lambda task, why: print(task, why, flush=True),
            cancel=cluster.close,
        )
        executors = Handler.executors = Executors(runner.post)
        server = ThreadingHTTPServer(("", PORT), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        outcome = runner.run(executors)
    if outcome.failure or executors.began is None:
        sys.exit(outcome.failure or "no executor took a task")
    print(f"seconds {time.monotonic() - executors.began:.3f}", flush=True)
    run.remove()


def _process(run: RunDirectory, stage: Stage, task: TaskId) -> TaskProcess:
    final = isinstance(stage.output, FilesOutput)
    argv, env = stage.container.expanded({})
    own = {
        ENV_STAGE_FILE: str(run.path / "stages" / f"{stage.name}.json"),
        ENV_INDEX: str(task.index),
        ENV_ATTEMPT: str(task.attempt),
    }
    done = run.done_file(stage.name, task.index, task.attempt) if final else None
    return TaskProcess(task=task, argv=argv, env={**env, **own}, cwd=PROGRAMS, done=done)


def execute(driver: str) -> None:
    """Take tasks and run them, until the pod is ended."""
    while True:
        try:
            task = _ask(f"{driver}/take", {})
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(AGAIN_SECONDS)  # the driver is not there yet, or not any more
            continue
        if task is not None:
            env = {**os.environ, **task["env"]}
            code = subprocess.run(task["argv"], env=env, cwd=task["cwd"], check=False).returncode
            if code == 0 and task["done"] is not None:
                Path(task["done"]).touch()
            failure = f"exit code {code}" if code else None
            _ask(f"{driver}/done", {"task": task["task"], "failure": failure})


def _ask(url: str, said: dict[str, object]) -> Any:
    request = urllib.request.Request(url, json.dumps(said).encode(), method="POST")  # noqa: S310
    with urllib.request.urlopen(request, timeout=ASK_SECONDS) as response:  # noqa: S310
        return json.load(response)


if __name__ == "__main__":
    if sys.argv[1] == "driver":
        drive(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        execute(sys.argv[2])
