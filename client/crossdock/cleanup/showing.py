"""What an audit has found, for people and for machines."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.table import Table

from crossdock.cleanup.audit import Audit
from crossdock.cleanup.sweeping import Sweep, Tally
from crossdock.lifecycle.sweep import Verdict

_FILE_COLUMNS: Final = 200
"""Room for tables where the output is no terminal: nothing of them is cut off."""


def as_object(found: Audit, requests: int) -> dict[str, object]:
    """Return an audit as a JSON object; docs/operations.md says what its fields mean."""
    return {
        "cluster": found.cluster,
        "stores": found.stores,
        "orphans": found.has_orphans,
        "unsure": found.is_unsure,
        "found": _verdicts(found.found),
        "left": _verdicts(found.left),
        "jobs": [
            {
                "job": job.job,
                "verdict": job.verdict.value,
                **asdict(job.tally),
                "oldest_seconds": round(job.oldest_seconds, 3),
            }
            for job in found.left.jobs
        ],
        "more_jobs": found.left.more_jobs,
        "deleted": asdict(found.deleted),
        "disks": [
            {**asdict(each), "verdict": verdict.value, "deleted": each in found.cleared}
            for each, verdict in found.disks
        ],
        "silent": found.silent,
        "versions": [
            {"store": url, **(asdict(old) if old else {"count": None, "more": True})}
            for url, old in found.versions.items()
        ],
        "requests": requests,
        "seconds": round(found.seconds, 3),
    }


def _verdicts(found: Sweep) -> dict[str, object]:
    return {verdict.value: asdict(found.of(verdict)) for verdict in Verdict}


def show(found: Audit, requests: int) -> None:
    """Print an audit."""
    out = Console(soft_wrap=True)
    if not out.is_terminal:
        out.width = _FILE_COLUMNS
    for table in _tables(found):
        out.print(table)
    for line in _lines(found, requests):
        out.print(line, highlight=False, markup=False)


def _tables(found: Audit) -> Iterator[Table]:
    if found.left.jobs:
        table = Table("job", "verdict", "objects", "uploads", "bytes", "oldest, s")
        for job in found.left.jobs:
            tally = job.tally
            counts = (tally.objects, tally.uploads, tally.nbytes, round(job.oldest_seconds))
            table.add_row(job.job, job.verdict.value, *map(str, counts))
        yield table
    disks = [(d, v) for d, v in found.disks if v in {Verdict.ORPHAN, Verdict.UNKNOWN}]
    if disks:
        table = Table("worker", "job", "verdict", "bytes")
        for each, verdict in disks:
            said = "deleted" if each in found.cleared else verdict.value
            if each.damaged:
                said = f"{said}, damaged"
            table.add_row(each.worker, each.job, said, str(each.nbytes))
        yield table


def _lines(found: Audit, requests: int) -> Iterator[str]:
    if found.left.more_jobs:
        yield f"and {found.left.more_jobs} jobs more"
    for verdict in Verdict:
        tally = found.left.of(verdict)
        if tally.things:
            yield f"{verdict.value}: {_amount(tally)}"
    if found.deleted.things:
        yield f"deleted: {_amount(found.deleted)}"
    if found.silent:
        yield f"these workers do not answer: {', '.join(found.silent)}"
    yield from _versions(found)
    state = "clean"
    if found.has_orphans:
        state = "orphans exist"
    elif found.is_unsure:
        state = "not known"
    where = ", ".join(found.stores)
    yield (
        f"{where}, cluster {found.cluster}: {state} ({requests} requests, {found.seconds:.1f} s)"
    )


def _versions(found: Audit) -> Iterator[str]:
    remedy = "`crossdock store lifecycle --apply` has the bucket delete them"
    for url, old in found.versions.items():
        if old is None:
            yield f"{url}: these credentials do not say what it keeps of deleted objects"
        elif old.count or old.more:
            least = "at least " if old.more else ""
            yield (
                f"{url} keeps versions: {least}{old.count} that are not current, and marks of"
                f" deleted objects; {remedy}"
            )


def _amount(tally: Tally) -> str:
    return f"{tally.objects} objects of {tally.nbytes} bytes, {tally.uploads} uploads"
