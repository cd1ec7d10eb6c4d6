"""What the commands that only look find out."""

import datetime as dt
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

import typer
from rich.live import Live

from crossdock_operator.kinds import SHUFFLE_CLUSTER, SHUFFLE_JOB, Kind, Object
from crossdock_operator.kubectl import tables
from crossdock_operator.kubectl.access import Target, explained, opened
from crossdock_operator.kubectl.logs import Follower, Wanted, show
from crossdock_operator.kubectl.rows import ClusterRow, JobRow, cluster_row, job_row
from crossdock_operator.plan.advice import Finding, wrong

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Clusters, and what is wrong with them and with jobs."""

    namespace: str
    clusters: Sequence[ClusterRow]
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Jobs, by namespace and name."""

    namespace: str
    jobs: Sequence[JobRow]


async def status(target: Target) -> Status:
    """Look at clusters and jobs."""
    async with opened(target) as person:
        clusters = await person.listed(SHUFFLE_CLUSTER)
        jobs = await person.listed(SHUFFLE_JOB)
    findings = [f for body in clusters for f in wrong_with(SHUFFLE_CLUSTER, body)]
    findings += [f for body in jobs for f in wrong_with(SHUFFLE_JOB, body)]
    rows = sorted(map(cluster_row, clusters), key=lambda row: (row.namespace, row.name))
    return Status(namespace=person.namespace, clusters=rows, findings=findings)


def wrong_with(kind: Kind, body: Object) -> list[Finding]:
    """Return what an object's conditions say is wrong."""
    metadata = body["metadata"]
    return wrong(kind.name, metadata["namespace"], metadata["name"], body.get("status") or {})


async def jobs(target: Target) -> Jobs:
    """Look at jobs."""
    async with opened(target) as person:
        rows = [job_row(body) for body in await person.listed(SHUFFLE_JOB)]
    return Jobs(namespace=person.namespace, jobs=in_order(rows))


def in_order(rows: Sequence[JobRow]) -> list[JobRow]:
    """Return jobs by namespace and name."""
    return sorted(rows, key=lambda row: (row.namespace, row.name))


class JobsShown(Protocol):
    """Shows jobs again and again."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None: ...
    def show(self, rows: Sequence[JobRow]) -> None:
        """Show all that there are."""


class LiveJobs(AbstractContextManager["LiveJobs"]):
    """A table, drawn anew in place; where the output is no terminal, a line for each change."""

    def __init__(self) -> None:
        self._out = tables.console()
        self._live = Live(console=self._out, auto_refresh=False)
        self._last: dict[tuple[str, str], JobRow] = {}

    def __enter__(self) -> Self:
        if self._out.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._out.is_terminal:
            self._live.stop()

    def show(self, rows: Sequence[JobRow]) -> None:
        """Draw."""
        if self._out.is_terminal:
            self._live.update(tables.jobs(rows, dt.datetime.now(dt.UTC)), refresh=True)
            return
        known = {(row.namespace, row.name): row for row in rows}
        changed = [row for key, row in known.items() if self._last.get(key) != row]
        if changed:
            self._out.print(tables.jobs(changed, dt.datetime.now(dt.UTC)))
        for namespace, name in self._last.keys() - known.keys():
            self._out.print(f"{namespace}/{name} is gone")
        self._last = known


class JsonJobs(AbstractContextManager["JsonJobs"]):
    """A JSON object a line, with all jobs, after each change."""

    def __exit__(self, *_: object) -> None:
        return

    def show(self, rows: Sequence[JobRow]) -> None:
        """Print."""
        typer.echo(json.dumps({"jobs": [asdict(row) for row in rows]}))


async def watch_jobs(target: Target, shown: JobsShown) -> None:
    """Show jobs after each change, until the command is interrupted."""
    async with opened(target) as person:
        with explained("list and watch", SHUFFLE_JOB, person.namespace):
            async with aclosing(person.streams.watch(SHUFFLE_JOB, person.namespace)) as states:
                async for bodies in states:
                    shown.show(in_order([job_row(body) for body in bodies]))


async def logs(target: Target, wanted: Wanted, *, follow: bool) -> None:
    """Print logs."""
    async with opened(target) as person:
        if follow:
            await Follower(person, wanted, typer.echo).run()
        else:
            await show(person, wanted, typer.echo)
