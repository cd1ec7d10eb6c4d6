"""Rows as tables on a terminal, and as JSON."""

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from crossdock.stages.display import size
from crossdock_operator.kubectl.fill import WorkerFill
from crossdock_operator.kubectl.rows import ClusterRow, JobRow, StageRow, age
from crossdock_operator.plan.advice import Finding

_FILE_COLUMNS: Final = 200
"""Room for tables where the output is no terminal: nothing of them is cut off."""
_COLOURS: Final = {
    "Ready": "green",
    "Running": "green",
    "Succeeded": "green",
    "Degraded": "red",
    "Failed": "red",
    "Pending": "yellow",
    "Waiting": "yellow",
    "Progressing": "yellow",
    "Deleting": "yellow",
}


def console() -> Console:
    """Return where tables go."""
    out = Console(soft_wrap=True, highlight=False)
    if not out.is_terminal:
        out.width = _FILE_COLUMNS
    return out


def print_json(**lists: Iterable[ClusterRow | JobRow | Finding | WorkerFill]) -> None:
    """Print one JSON object of lists; docs/kubectl.md says what their fields mean."""
    found = {name: [asdict(each) for each in rows] for name, rows in lists.items()}
    typer.echo(json.dumps(found))


def clusters(rows: Sequence[ClusterRow], now: dt.datetime) -> Table:
    """Return a table with a line for each cluster."""
    table = _table("namespace", "cluster", "phase", "workers", right=("fill", "on disks",
                   "in store", "orphans", "audited"))  # fmt: skip
    for row in rows:
        orphans = f"{row.orphans} of {size(row.orphan_bytes)}" if row.orphans else "0"
        table.add_row(
            row.namespace,
            row.name,
            _phase(row.phase),
            row.workers,
            "-" if row.fill is None else f"{row.fill:.0%}",
            size(row.worker_bytes) if row.audited else "-",
            size(row.store_bytes) if row.audited else "-",
            Text(orphans if row.audited else "-", style="red" if row.orphans else ""),
            age(row.audited, now),
        )
    return table


def jobs(rows: Sequence[JobRow], now: dt.datetime) -> Table:
    """Return a table with a line for each job, and what its stages do."""
    table = _table("namespace", "job", "cluster", "phase", "progress", "stages",
                   right=("on disks", "in store", "requests", "age"))  # fmt: skip
    for row in rows:
        table.add_row(
            row.namespace,
            row.name,
            row.cluster,
            _phase(row.phase),
            row.progress or "-",
            ", ".join(map(_stage, row.stages)) or "-",
            size(row.worker_bytes),
            size(row.store_bytes),
            str(row.store_requests),
            age(row.created, now),
        )
    return table


def workers(rows: Sequence[WorkerFill]) -> Table:
    """Return a table with a line for each worker, by tier."""
    table = _table("namespace", "cluster", "worker", "state",
                   right=("in flight", "disk", "store"))  # fmt: skip
    for row in rows:
        known = row.disk_used is not None
        table.add_row(
            row.namespace,
            row.cluster,
            row.url,
            _phase(row.state),
            size(row.inflight_bytes or 0) if known else "-",
            f"{row.disk_used:.0%}" if row.disk_used is not None else "-",
            "yes" if row.store else "no",
        )
    return table


def tell(findings: Iterable[Finding], out: Console) -> None:
    """Print what is wrong, and what to do about it."""
    for each in findings:
        head = f"{each.kind} {each.namespace}/{each.name}: {each.condition}: {each.reason}"
        message = f": {each.message}" if each.message else ""
        out.print(Text(head, style="yellow").append(message, style="default"))
        if each.remedy:
            out.print(Text(f"  → {each.remedy}", style="dim"))


def _table(*left: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _stage(row: StageRow) -> str:
    if row.phase == "Done":
        return f"{row.name} done"
    more = f" ({row.attempts} tries)" if row.attempts > row.tasks else ""
    return f"{row.name} {row.done}/{row.tasks or '?'}{more}"


def _phase(word: str) -> Text:
    return Text(word, style=_COLOURS.get(word, ""))
