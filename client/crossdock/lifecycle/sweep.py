"""What in a store and on workers' disks is an orphan: something whose job is gone.

Whoever sweeps asks for live jobs first and lists afterwards, so a job that begins in between has
only things that are younger than the list. Each thing is judged by itself. What may go goes by its
key, never by a prefix, and its job is fenced at every worker first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from crossdock.lifecycle.timing import Timing
from crossdock.store.layout import place_of


class Verdict(StrEnum):
    """What a thing is. Only an orphan may be deleted."""

    FOREIGN = "foreign"
    """Another cluster's, or not of Crossdock at all."""
    LIVE = "live"
    UNKNOWN = "unknown"
    """Ours, but it is not known which jobs live, whether this one does, or how old it is."""
    YOUNG = "young"
    """Its job is not known to live, but may only just have begun."""
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class LiveJobs:
    """All jobs of a cluster that live, and those that somebody is deleting right now."""

    uids: frozenset[str]
    age_seconds: float
    """How long before the listing this was true; the whole age of a cache."""
    unsure: frozenset[str] = frozenset()
    """Those of which nobody who was asked can tell: their records do not read, so that it is not
    known whose silence would end them."""


@dataclass(frozen=True, slots=True)
class Known:
    """What one worker says of the jobs on its disk."""

    live: frozenset[str]
    """Uids of those that are not fenced."""
    uptime_seconds: float


def live_jobs(
    answers: Iterable[Known | None], *, longest_seconds: float, age_seconds: float
) -> LiveJobs | None:
    """Return which jobs live, as workers know it; None if that cannot be said.

    A worker that did not answer may be the only one that knows a job. So may one that has only
    just begun: its disk may be new, and a job's owner has to speak to it only once in a while.

    Args:
        answers: of all workers that are not declared gone; None for no answer.
        longest_seconds: no job has a longer lease and grace than this together.
        age_seconds: since the first was asked.
    """
    known = list(answers)
    if not known or any(a is None or a.uptime_seconds < longest_seconds for a in known):
        return None
    return LiveJobs(frozenset().union(*(a.live for a in known if a)), age_seconds)


def age_seconds(since: datetime | None, store_now: datetime) -> float | None:
    """Return how old a thing in a store is; None if the store does not tell.

    Both times are the store's: `store_now` is the Date of its answer to the first page of the
    listing, or the time that it gives to an object that was written just before. No other clock is
    asked.
    """
    return None if since is None else (store_now - since).total_seconds()


def judge(
    job: str,
    age: float | None,
    *,
    live: LiveJobs | None,
    grace_seconds: float,
    timing: Timing,
) -> Verdict:
    """Judge what is this cluster's: a thing in the store, or a job on a worker's disk.

    Args:
        job: whose it is.
        age: in seconds; of a job on a disk, since it came there or the worker started.
        live: which jobs live; None if that is not known, and then nothing is an orphan.
        grace_seconds: what is younger is never touched.
        timing: how far clocks may differ.
    """
    if live is None or age is None:
        return Verdict.UNKNOWN
    if job in live.uids:
        return Verdict.LIVE
    if job in live.unsure:
        return Verdict.UNKNOWN
    least = max(grace_seconds, timing.outlast(live.age_seconds))
    return Verdict.ORPHAN if age >= timing.outlast(least) else Verdict.YOUNG


def judge_key(
    key: str,
    age: float | None,
    *,
    cluster: str,
    live: LiveJobs | None,
    grace_seconds: float,
    timing: Timing,
) -> Verdict:
    """Judge an object or an upload by its key; see `judge`."""
    place = place_of(key)
    if place is None or place.cluster != cluster:
        return Verdict.FOREIGN
    return judge(place.job, age, live=live, grace_seconds=grace_seconds, timing=timing)


def spent_intents(intents: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return which intents may go: those of runs of which nothing else was found.

    An intent is older than what it tells of. So when it is an orphan an upload of its run may
    still be too young, and where uploads cannot be listed by prefix nobody would find it again.

    Args:
        intents: keys of intents that are orphans.
        others: keys of all other objects, and of all uploads, orphans or not.
    """
    by_run: dict[str, list[str]] = {}
    for key in intents:
        place = place_of(key)
        if place is not None:
            by_run.setdefault(place.run, []).append(key)
    for key in others:
        place = place_of(key)
        if place is not None:
            by_run.pop(place.run, None)
    return [key for keys in by_run.values() for key in keys]
