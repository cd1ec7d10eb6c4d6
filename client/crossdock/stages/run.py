"""One run, from the job file to nothing: sets up, runs, reports, clears away."""

import os
import secrets
import shutil
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import crossdock
from crossdock.cluster import Cluster
from crossdock.errors import Closed, ConfigError, CrossdockError
from crossdock.job import Job
from crossdock.jobfile.advice import warnings
from crossdock.jobfile.load import load, loads
from crossdock.jobfile.model import ShuffleJob
from crossdock.stages.actions import Actions, find_inputs
from crossdock.stages.display import Display
from crossdock.stages.events import TaskId
from crossdock.stages.interrupts import Interrupts
from crossdock.stages.leaving import DeadRuns, clear_store
from crossdock.stages.local import LocalLauncher, LocalWorker
from crossdock.stages.outputs import local_path, missing_parents
from crossdock.stages.places import LocalPlace, output_of
from crossdock.stages.processes import ProcessBackend, Processes
from crossdock.stages.progress import JobProgress
from crossdock.stages.rundir import RunDirectory, RunRecord, dead_runs
from crossdock.stages.runner import StageRunner
from crossdock.store.opening import open_store
from crossdock.store.settings import store_options

_LOG_LINES: Final = 20
"""Of the task for which the job fails."""
_NOTE_LINES: Final = 3
"""Of a try that is followed by another."""
_BACKLOG: Final = 1024
_JOB_FILE: Final = "job.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a job is run here."""

    data_root: Path | None = None
    directory: Path | None = None
    resume: Path | None = None
    slots: int = 0
    overwrite: bool = False
    keep_logs: Path | None = None
    store: str = ""
    store_options: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    store_settle_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended."""

    progress: JobProgress
    failure: str | None
    interrupted: bool
    task: TaskId | None
    log_tail: tuple[str, ...]
    outputs: tuple[Path, ...]

    def to_json(self) -> dict[str, object]:
        """Return the result for machines."""
        return {
            "succeeded": self.failure is None,
            "failure": self.failure,
            "task": None if self.task is None else asdict(self.task),
            "log": list(self.log_tail),
            "outputs": [str(p) for p in self.outputs],
            "seconds": round(self.progress.seconds, 3),
            "stages": [asdict(s) for s in self.progress.stages],
        }


@dataclass(frozen=True, slots=True)
class _Surroundings:
    options: RunOptions
    display: Display
    interrupts: Interrupts


def run_job(job_file: Path | None, options: RunOptions, display: Display) -> RunResult:
    """Run a job file, or go on with a run; leave nothing but the result.

    Raises:
        ConfigError: the job file, an option or an input is wrong; nothing ran, and a run that was
            to go on is as it was.
    """
    with Interrupts() as interrupts:
        surroundings = _Surroundings(options, display, interrupts)
        if options.resume is None:
            return _fresh(job_file, surroundings)
        if job_file is not None:
            raise ConfigError("--resume goes on with the job file of that run: name no other")
        if options.store:
            raise ConfigError("--resume goes on with the store of that run: name no other")
        return _resume(options.resume.resolve(), surroundings)


def _fresh(job_file: Path | None, surroundings: _Surroundings) -> RunResult:
    display = surroundings.display
    runs, problems = dead_runs()
    for problem in problems:
        display.note(problem)
    dead = DeadRuns(runs, display.note)
    try:
        return _run_file(job_file, surroundings)
    finally:
        dead.finish(wait=surroundings.interrupts.name is None)


def _run_file(job_file: Path | None, surroundings: _Surroundings) -> RunResult:
    options, display = surroundings.options, surroundings.display
    if job_file is None:
        raise ConfigError("no job file was named", hint="crossdock run JOB.yaml")
    job = load(job_file)
    directory = None if options.directory is None else options.directory.resolve()
    run = RunDirectory.fresh(directory, clear=clear_store)
    try:
        record = _new_record(job, job_file.resolve(), options, made=run.made)
        run.write_record(record)
        (run.path / _JOB_FILE).write_bytes(job_file.read_bytes())
        for line in warnings(job):
            display.note(line)
        return _run_or_stop(job, run, record, surroundings)
    finally:
        _clear_store(run, display)
        run.remove()


def _resume(path: Path, surroundings: _Surroundings) -> RunResult:
    run = RunDirectory.existing(path)
    record = replace(run.record(), epoch=run.record().epoch + 1)
    text = (run.path / _JOB_FILE).read_text()
    job = loads(text, source=record.source)
    run.write_record(record)
    result = _run_or_stop(job, run, record, surroundings)
    _clear_store(run, surroundings.display)
    run.remove()
    return result


def _clear_store(run: RunDirectory, display: Display) -> None:
    """Delete what a run's worker has put into its store; it has ended."""
    record = run.known_record()
    if record is None:  # nothing ran
        return
    try:
        clear_store(run.path, record)
    except CrossdockError as error:
        display.note(str(error))


def _new_record(
    job: ShuffleJob, source: Path, options: RunOptions, *, made: Sequence[Path]
) -> RunRecord:
    root = source.parent
    if options.data_root is not None:
        root = options.data_root.resolve()
    elif job.data_root is not None:
        root = local_path(root, job.data_root, what="dataRoot")
    if not root.is_dir():
        raise ConfigError(f"data root {root} is no directory", hint="--data-root names another")
    if options.store:
        open_store(options.store, store_options(options.store_options)).close()
    uid = f"{job.name}-{secrets.token_hex(8)}"
    outputs = [o for s in job.stages if (o := output_of(s, job=uid, data_root=root)) is not None]
    for output in outputs:
        output.check(overwrite=options.overwrite)
    return RunRecord(
        job=uid,
        source=str(source),
        data_root=str(root),
        outputs=tuple(str(o.path) for o in outputs),
        made=tuple(map(str, [*made, *missing_parents(o.path for o in outputs)])),
        overwrite=options.overwrite,
        store=options.store,
        store_options=options.store_options,
        store_settle_seconds=options.store_settle_seconds,
    )


def _run_or_stop(
    job: ShuffleJob, run: RunDirectory, record: RunRecord, surroundings: _Surroundings
) -> RunResult:
    """Run the job; a signal before it has begun is a failure like one after."""
    try:
        return _run(job, run, record, surroundings)
    except Closed:
        name = surroundings.interrupts.name
        if name is None:
            raise
        return RunResult(
            progress=JobProgress(name=job.name, stages=(), seconds=0.0),
            failure=f"stopped by {name}",
            interrupted=True,
            task=None,
            log_tail=(),
            outputs=(),
        )


def _run(
    job: ShuffleJob, run: RunDirectory, record: RunRecord, surroundings: _Surroundings
) -> RunResult:
    options, interrupts = surroundings.options, surroundings.interrupts
    files = find_inputs(job, Path(record.data_root))
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG))
        processes = Processes(hold=[run.lock, listener.fileno()], preload=options.preload)
        stack.callback(processes.close)
        worker = LocalWorker(run, processes, listener, record=record)
        worker.start()
        stack.callback(worker.stop)
        cluster = stack.enter_context(
            crossdock.connect(
                [worker.url],
                token_file=str(worker.token_file),
                options=crossdock.Options(store=record.store),
                store_options=store_options(record.store_options) if record.store else None,
            )
        )
        register = partial(
            cluster.job, record.job, owner="runner", epoch=record.epoch,
            persistence=job.persistence,
        )  # fmt: skip
        handle = stack.enter_context(_registered(cluster, register, worker, interrupts))
        place = LocalPlace(
            run,
            job=record.job,
            data_root=Path(record.data_root),
            files=files,
            overwrite=record.overwrite,
        )
        actions = Actions(job, handle=handle, place=place)
        runner = StageRunner(
            job,
            actions=actions,
            run=run,
            epoch=record.epoch,
            launch=LocalLauncher(worker=worker, run=run, directory=Path(record.source).parent),
            on_progress=surroundings.display.show,
            on_failure=lambda task, why: _tell_failure(
                surroundings.display, task, why, backend.log_tail(task, _NOTE_LINES)
            ),
            cancel=cluster.close,
        )
        interrupts.on(lambda name: runner.stop(f"stopped by {name}"))
        processes.watch(runner.stop)
        worker.watch(runner.stop)
        backend = ProcessBackend(
            processes, slots=options.slots or _processors(), logs=run.logs, on_end=runner.post
        )
        outcome = runner.run(backend)
        worker.stop()
        if options.keep_logs is not None:
            shutil.copytree(run.logs, options.keep_logs, dirs_exist_ok=True)
        task = outcome.task
        return RunResult(
            progress=outcome.progress,
            failure=outcome.failure,
            interrupted=interrupts.name is not None and outcome.failure is not None,
            task=task,
            log_tail=tuple(backend.log_tail(task, _LOG_LINES)) if task is not None else (),
            outputs=tuple(map(Path, record.outputs)) if outcome.failure is None else (),
        )


def _tell_failure(display: Display, task: TaskId, why: str, log: Sequence[str]) -> None:
    """Say that a try failed: the next may succeed, and nobody would know why it was needed."""
    said = f"task {task.index} of stage {task.stage}: attempt {task.attempt} failed: {why}"
    display.note("\n".join([said, *(f"  | {line}" for line in log)]))


def _registered(
    cluster: Cluster, register: Callable[[], Job], worker: LocalWorker, interrupts: Interrupts
) -> Job:
    """Register the job with the worker that is starting.

    Raises:
        ConfigError: the worker does not start.
        Closed: a signal came first.
    """
    problems: list[str] = []
    registering = True

    def give_up(why: str) -> None:
        if registering:
            problems.append(why)
            # A signal's handler may have come upon this thread with the cluster's lock in hand.
            threading.Thread(target=cluster.close, name="crossdock-give-up").start()

    worker.watch(give_up)
    interrupts.on(give_up)
    try:
        return register()
    except Closed as error:
        if interrupts.name is not None:
            raise
        raise ConfigError("\n".join([*problems, *worker.log_tail(_LOG_LINES)])) from error
    finally:
        registering = False


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
