"""`crossdock run`: a staged job on this machine."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from crossdock.stages.display import (
    Display,
    JsonDisplay,
    LineDisplay,
    TerminalDisplay,
    final_table,
)
from crossdock.stages.run import RunOptions, RunResult, run_job
from crossdock.stages.warm import DEFAULT_MODULES

_INTERRUPTED: Final = 130
"""What shells say of a command that Ctrl-C ended."""
_FILE_COLUMNS: Final = 200
"""Room for the table where the output is no terminal: nothing of it is cut off."""


def run(  # noqa: PLR0917 -- typer calls it
    job_file: Annotated[
        Path | None, typer.Argument(metavar="JOB.yaml", help="A ShuffleJob: docs/job-file.md")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="What names of files are relative to; default: dataRoot.")
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Where the run keeps its data; default: a temporary one."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with a run whose runner was killed.")
    ] = None,
    slots: Annotated[
        int, typer.Option(min=0, help="Tasks at once; 0: one for each processor.")
    ] = 0,
    overwrite: Annotated[  # noqa: FBT002
        bool, typer.Option("--overwrite", help="Let the result replace what is there.")
    ] = False,
    as_json: Annotated[  # noqa: FBT002
        bool, typer.Option("--json", help="Print progress and the result as lines of JSON.")
    ] = False,
    store: Annotated[
        str,
        typer.Option(help="URL of an object store, for what does not fit on this disk: s3://…."),
    ] = "",
    store_option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the store; docs/stores.md. Repeatable.")
    ] = None,
    preload: Annotated[
        str,
        typer.Option(
            metavar="MODULES",
            help="Imported once, for all tasks that are `python script.py`; '' for none. Linux.",
        ),
    ] = DEFAULT_MODULES,
    store_settle_seconds: Annotated[
        float, typer.Option(min=0, help="A request to the store takes effect within it, or never.")
    ] = 30.0,
    keep_logs: Annotated[
        Path | None, typer.Option(help="Copy the logs of tasks and worker here.")
    ] = None,
) -> None:
    """Run a staged job here: processes instead of pods, with a worker of its own."""
    display: Display
    if as_json:
        display = JsonDisplay(sys.stdout)
    elif sys.stderr.isatty():
        display = TerminalDisplay(Console(stderr=True))
    else:
        display = LineDisplay(sys.stderr)
    options = RunOptions(
        data_root=data_root,
        directory=directory,
        resume=resume,
        slots=slots,
        overwrite=overwrite,
        keep_logs=keep_logs,
        store=store,
        store_options=tuple(store_option or ()),
        preload=tuple(name for name in preload.split(",") if name),
        store_settle_seconds=store_settle_seconds,
    )
    try:
        result = run_job(job_file, options, display)
    finally:
        display.close()
    if isinstance(display, JsonDisplay):
        display.result(result.to_json())
    else:
        _print(result)
    if result.interrupted:
        raise typer.Exit(_INTERRUPTED)
    if result.failure is not None:
        raise typer.Exit(1)


def _print(result: RunResult) -> None:
    out = Console(soft_wrap=True)
    if not out.is_terminal:
        out.width = _FILE_COLUMNS
    out.print(final_table(result.progress))
    if result.failure is not None:
        err = Console(stderr=True, soft_wrap=True)
        for line in result.log_tail:
            err.print(f"  | {line}", markup=False, highlight=False)
        err.print(f"failed: {result.failure}", style="red", markup=False, highlight=False)
        return
    for path in result.outputs:
        out.print(f"result in {path}", markup=False, highlight=False)
