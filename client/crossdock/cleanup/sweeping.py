"""A sweep: all of a cluster in its store, judged thing by thing, and orphans deleted.

What comes of each thing `lifecycle.sweep` decides. Listings are streamed: memory holds a page, the
intents of one shuffle, unfinished uploads up to a bound, and a line for each job that is told of.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from heapq import merge
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import Final, NamedTuple

from crossdock.cancel import Cancel
from crossdock.cleanup.clearing import Deletes, hidden_uploads, is_intent
from crossdock.lifecycle.sweep import LiveJobs, Verdict, age_seconds, judge_key, spent_intents
from crossdock.lifecycle.timing import Timing
from crossdock.store.api import Store, UnfinishedUpload
from crossdock.store.layout import place_of

MOST_UPLOADS: Final = 50_000
"""Unfinished uploads that one pass looks at, of each bucket; a later pass sees the others."""
MOST_INTENTS: Final = 10_000
"""Intents of one shuffle that one pass deletes; a later pass deletes the others."""
MOST_JOBS: Final = 1_000
"""Jobs that are told of one by one."""

_SHUFFLE_PARTS: Final = 5
"""Of a key: all keys of one shuffle have these in common (store/layout.py)."""
_TOLD: Final = (Verdict.ORPHAN, Verdict.UNKNOWN)


@dataclass(slots=True)
class Tally:
    """How much there is of something."""

    objects: int = 0
    uploads: int = 0
    nbytes: int = 0
    """Of the objects."""

    def add(self, *, is_upload: bool, nbytes: int) -> None:
        """Count one thing."""
        self.objects += not is_upload
        self.uploads += is_upload
        self.nbytes += nbytes

    def plus(self, other: "Tally") -> "Tally":
        """Return both together."""
        return Tally(
            self.objects + other.objects, self.uploads + other.uploads, self.nbytes + other.nbytes
        )

    @property
    def things(self) -> int:
        """Objects and uploads."""
        return self.objects + self.uploads


@dataclass(slots=True)
class JobFound:
    """What a job has in the store that is an orphan, or of which it is not known."""

    job: str
    verdict: Verdict
    tally: Tally = field(default_factory=Tally)
    oldest_seconds: float = 0.0
    """By the store's clock."""


@dataclass(slots=True)
class Sweep:
    """What one pass over all buckets has found, and deleted."""

    found: dict[Verdict, Tally] = field(default_factory=dict)
    jobs: list[JobFound] = field(default_factory=list)
    more_jobs: int = 0
    """Beyond those in `jobs`."""
    deleted: Tally = field(default_factory=Tally)
    cut_short: bool = False
    """There are more uploads or intents than one pass looks at."""

    def of(self, verdict: Verdict) -> Tally:
        """Return what was found of one kind."""
        return self.found.get(verdict, Tally())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is judged by."""

    cluster: str
    grace_seconds: float
    """What is younger is never touched."""
    timing: Timing
    live: frozenset[str] | None
    """Uids of all jobs that live, and of those that somebody is deleting; None: not known."""
    asked: float
    """When the first who knows was asked for that, monotonic."""
    unsure: frozenset[str] = frozenset()
    """Uids of those of which only damaged files are known."""

    def live_now(self) -> LiveJobs | None:
        """Return the live jobs with the age of that list at this moment."""
        if self.live is None:
            return None
        return LiveJobs(self.live, time.monotonic() - self.asked, self.unsure)


class _Thing(NamedTuple):
    """An object or an upload."""

    key: str
    since: datetime | None
    nbytes: int
    upload: UnfinishedUpload | None


def sweep(
    stores: Iterable[Store],
    rules: Rules,
    *,
    delete: bool,
    fence: Callable[[str], None] | None,
    cancel: Cancel,
) -> Sweep:
    """Judge all that a cluster has in its buckets, once; delete the orphans if asked to.

    Intents of runs of which something else was found stay for the next pass.

    Args:
        stores: a bucket or directory each.
        rules: what is judged by.
        delete: whether orphans go.
        fence: has every worker refuse a job, before anything of it is deleted; None: there are no
            workers to tell. What it raises ends the sweep.
        cancel: ends it between two things, with `Closed`.

    Raises:
        StoreUnavailable: a bucket does not answer until its deadline.
        StoreDenied: the credentials do not list or delete.
    """
    result = Sweep()
    fenced = ""

    def fence_once(job: str) -> None:  # of one job all things come one after the other
        nonlocal fenced
        if fence is not None and job != fenced:
            fence(job)
        fenced = job

    for store in stores:
        one = _Bucket(store, rules, result, fence_once if delete else None, cancel)
        one.sweep()
    return result


class _Bucket:
    """One bucket in one pass."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        result: Sweep,
        fence: Callable[[str], None] | None,
        cancel: Cancel,
    ) -> None:
        """Args: `fence` None means that nothing is deleted."""
        self._store = store
        self._rules = rules
        self._result = result
        self._fence = fence
        self._cancel = cancel
        self._job: JobFound | None = None
        """The last that is told of; all that it has comes one after the other."""

    def sweep(self) -> None:
        """List and judge everything, in the order of keys."""
        self._now = self._store.now()
        self._live = self._rules.live_now()
        prefix = f"{self._rules.cluster}/"
        uploads = [
            _Thing(u.key, u.initiated, 0, u)
            for u in islice(self._store.uploads(prefix), MOST_UPLOADS + 1)
        ]
        if len(uploads) > MOST_UPLOADS:
            self._result.cut_short = True
            uploads.pop()
        uploads.sort(key=attrgetter("key"))
        objects = (_Thing(i.key, i.modified, i.size, None) for i in self._store.list(prefix))
        with Deletes(self._store, self._cancel) as deletes:
            self._deletes = deletes
            things = merge(objects, uploads, key=attrgetter("key"))
            for _, group in groupby(things, key=lambda thing: _shuffle(thing.key)):
                self._sweep_shuffle(group)

    def _sweep_shuffle(self, group: Iterator[_Thing]) -> None:
        """Judge what one shuffle has. Its intents come first, as their keys do."""
        intents: list[_Thing] = []
        rest: Iterator[_Thing] = iter(())
        for thing in group:
            if thing.upload is not None or not is_intent(thing.key):
                rest = chain([thing], group)
                break
            if self._judge(thing) is Verdict.ORPHAN:
                if len(intents) < MOST_INTENTS:
                    intents.append(thing)
                else:
                    self._result.cut_short = True
        keys = [thing.key for thing in intents]
        # To find out whether the store hides uploads it is written to: not by who only looks, and
        # who learns of the intents.
        asked = keys if self._fence is not None else []
        hidden = (
            _Thing(u.key, u.initiated, 0, u)
            for u in hidden_uploads(self._store, asked, self._cancel)
        )
        spent = set(spent_intents(keys, self._others(chain(rest, hidden))))
        for thing in intents:
            if thing.key in spent:
                self._delete(thing)

    def _others(self, things: Iterable[_Thing]) -> Iterator[str]:
        """Judge things, delete what may go, and yield the keys of all."""
        for thing in things:
            if self._judge(thing) is Verdict.ORPHAN:
                self._delete(thing)
            yield thing.key

    def _judge(self, thing: _Thing) -> Verdict:
        self._cancel.check()
        rules = self._rules
        age = None if self._now is None else age_seconds(thing.since, self._now)
        verdict = judge_key(
            thing.key,
            age,
            cluster=rules.cluster,
            live=self._live,
            grace_seconds=rules.grace_seconds,
            timing=rules.timing,
        )
        is_upload = thing.upload is not None
        self._result.found.setdefault(verdict, Tally()).add(
            is_upload=is_upload, nbytes=thing.nbytes
        )
        if verdict in _TOLD:
            self._tell(thing, verdict, age or 0.0)
        return verdict

    def _tell(self, thing: _Thing, verdict: Verdict, age: float) -> None:
        """Count a thing for its job."""
        place = place_of(thing.key)
        assert place is not None  # or it were foreign
        job = self._job
        if job is None or job.job != place.job:
            job = self._job = JobFound(place.job, verdict)
            if len(self._result.jobs) < MOST_JOBS:
                self._result.jobs.append(job)
            else:
                self._result.more_jobs += 1
        if verdict is Verdict.ORPHAN:
            job.verdict = verdict
        job.tally.add(is_upload=thing.upload is not None, nbytes=thing.nbytes)
        job.oldest_seconds = max(job.oldest_seconds, age)

    def _delete(self, thing: _Thing) -> None:
        place = place_of(thing.key)
        if self._fence is None or place is None:
            return
        self._fence(place.job)
        if thing.upload is None:
            self._deletes.delete(thing.key)
        else:
            self._deletes.abort(thing.upload)
        self._result.deleted.add(is_upload=thing.upload is not None, nbytes=thing.nbytes)


def _shuffle(key: str) -> str:
    """Return the beginning of a key that all keys of its shuffle share."""
    return "/".join(key.split("/", _SHUFFLE_PARTS)[:_SHUFFLE_PARTS])
