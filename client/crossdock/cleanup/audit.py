"""An audit: store and workers compared with the jobs that live. Also for periodic tasks."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from crossdock.cancel import Cancel
from crossdock.cleanup.fleet import Asked, Fleet, OnDisk
from crossdock.cleanup.living import LiveJobs
from crossdock.cleanup.sweeping import Rules, Sweep, Tally, sweep
from crossdock.errors import CleanupUnfinished, ConfigError, CrossdockError
from crossdock.lifecycle.sweep import Verdict, judge
from crossdock.lifecycle.timing import Timing
from crossdock.store.api import Store
from crossdock.store.probes import clear_old_probes
from crossdock.store.versions import HasVersions, OldVersions
from crossdock.wire.names import check_name

_PASSES = 4
"""The second deletes intents that the first has left, the next sees that nothing is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What is audited, and whether orphans go."""

    cluster: str
    """Its uid."""
    grace_seconds: float = 3600.0
    """What is younger is never touched."""
    least_uptime_seconds: float = 3600.0
    """What workers say of live jobs counts once they have been up for so long, and for the grace:
    no job has a longer lease and grace together."""
    live: frozenset[str] | None = None
    """Uids of all jobs that live; None: as `ask_live` and the workers say."""
    live_as_of: float | None = None
    """When `live` was asked for, monotonic; None: when the audit begins."""
    ask_live: LiveJobs | None = None
    """Who knows the jobs whose owner is the operator. Jobs of processes are asked for at the
    workers, if there are any."""
    has_processes: bool = True
    """Whether jobs of processes may live. False: who `ask_live` names are all, workers or not."""
    delete: bool = False
    timing: Timing = field(default_factory=Timing)


@dataclass(slots=True)
class Audit:
    """What an audit has found."""

    cluster: str
    stores: list[str]
    """URLs."""
    found: Sweep
    """Before anything was deleted."""
    left: Sweep
    """After that; the same where nothing was to be."""
    disks: list[tuple[OnDisk, Verdict]]
    deleted: Tally
    """In the store."""
    cleared: list[OnDisk]
    """What was an orphan at workers, and was deleted."""
    silent: list[str]
    """Workers that did not answer."""
    seconds: float
    versions: Mapping[str, OldVersions | None] = field(default_factory=dict)
    """By URL, of buckets that keep versions: what of the cluster is not current there, orphans
    that were deleted among them. It is no orphan: only the bucket's own rules delete it. None: the
    credentials do not tell."""

    @property
    def has_orphans(self) -> bool:
        """Whether there are any, now."""
        on_disk = any(v is Verdict.ORPHAN and d not in self.cleared for d, v in self.disks)
        return bool(self.left.of(Verdict.ORPHAN).things) or on_disk

    @property
    def is_unsure(self) -> bool:
        """Whether there may be some that nobody can tell.

        A worker is silent, jobs are unknown, or there was more than is looked at.
        """
        return bool(
            self.silent
            or self.left.cut_short
            or self.left.of(Verdict.UNKNOWN).things
            or any(v is Verdict.UNKNOWN for _, v in self.disks)
        )


def audit(
    stores: Sequence[Store],
    fleet: Fleet | None,
    options: AuditOptions,
    *,
    cancel: Cancel | None = None,
) -> Audit:
    """Compare what is there with the jobs that live, and delete the orphans if asked to.

    Live jobs are asked for before anything is listed. Before something of a job is deleted, all
    workers that were named refuse it.

    Args:
        stores: each bucket, or the directory.
        fleet: the workers; None: only the store is looked at.
        options: what is compared.
        cancel: ends it, with `Closed`.

    Raises:
        ConfigError: it is to delete, and which jobs live is not known, or nobody was named who
            knows those of processes.
        CleanupUnfinished: it is to delete, and a worker does not answer.
        Unavailable: no worker, or a store, does not answer.
        CrossdockError: `options.ask_live` does not know.
        AccessError: a token or credentials do not open them.
    """
    began = time.monotonic()
    check_name("cluster", options.cluster)
    cancel = cancel or Cancel("the audit was cancelled")
    asked = fleet.ask() if fleet is not None else Asked(began, {}, ())
    if options.delete:
        _check_asked(fleet, options)
    live = options.live if options.live is not None else _ask_live(asked, options)
    if options.delete:
        _check_delete(live, asked, options)
    listed = options.live is not None or options.ask_live is not None
    rules = Rules(
        cluster=options.cluster,
        grace_seconds=options.grace_seconds,
        timing=options.timing,
        live=live,
        asked=min(asked.asked, options.live_as_of or asked.asked),
        unsure=frozenset() if listed else asked.damaged,
    )
    disks = [(each, _judge(each, rules)) for each in asked.jobs]
    cleared = []
    if options.delete and fleet is not None:
        cleared = [each for each, verdict in disks if verdict is Verdict.ORPHAN]
        for job in sorted({each.job for each in cleared}):
            cancel.check()
            fleet.fence(job)
    fence = None if fleet is None else fleet.fence
    found = left = sweep(stores, rules, delete=options.delete, fence=fence, cancel=cancel)
    deleted = found.deleted
    for _ in range(_PASSES - 1):
        if not left.deleted.things:
            break
        left = sweep(stores, rules, delete=True, fence=fence, cancel=cancel)
        deleted = deleted.plus(left.deleted)
    if options.delete:
        for store in stores:
            clear_old_probes(store)
    return Audit(
        options.cluster,
        [store.url for store in stores],
        found,
        left,
        disks,
        deleted,
        cleared,
        asked.silent,
        time.monotonic() - began,
        _versions(stores, options.cluster),
    )


def _versions(stores: Sequence[Store], cluster: str) -> dict[str, OldVersions | None]:
    found: dict[str, OldVersions | None] = {}
    for store in stores:
        if not isinstance(store, HasVersions):
            continue
        try:
            keeps = store.keeps_versions()
            if keeps is not False:
                found[store.url] = store.old_versions(f"{cluster}/") if keeps else None
        except CrossdockError:  # what was found and deleted must be told all the same
            found[store.url] = None
    return found


def _ask_live(asked: Asked, options: AuditOptions) -> frozenset[str] | None:
    """Return which jobs live as far as somebody knows it; None if nobody does."""
    longest = _least_uptime(options)
    if options.ask_live is None:
        return asked.live(longest_seconds=longest)
    listed = options.ask_live(options.cluster)
    if not options.has_processes or not asked.known:
        return listed
    found = asked.live(longest_seconds=longest, of_processes=True)
    return None if found is None else listed | found


def _least_uptime(options: AuditOptions) -> float:
    """Return for how long workers must have been up: a new disk knows of no job."""
    return options.timing.outlast(max(options.least_uptime_seconds, options.grace_seconds))


def _check_asked(fleet: Fleet | None, options: AuditOptions) -> None:
    """Raise where nobody is asked who knows the jobs of processes."""
    if options.live is None and options.ask_live and options.has_processes and fleet is None:
        raise ConfigError(
            "nothing is deleted: only the workers know the jobs of processes, and none is named",
            hint="--workers URL asks them; --no-process-jobs says that there are no such jobs",
        )


def _check_delete(live: frozenset[str] | None, asked: Asked, options: AuditOptions) -> None:
    if asked.silent:
        raise CleanupUnfinished(
            f"nothing is deleted: these workers do not answer: {', '.join(asked.silent)}",
            hint="each must refuse a job before it is deleted; declare gone who never comes back",
        )
    if live is None:
        least = _least_uptime(options)
        young = [w for w, up in asked.known.items() if up is not None and up < least]
        why = f": these have just begun: {', '.join(sorted(young))}" if young else ""
        raise ConfigError(
            f"nothing is deleted: which jobs live is not known{why}",
            hint="name them by --live (an empty one for none), or wait; for how long says "
            "--least-uptime-seconds",
        )


def _judge(each: OnDisk, rules: Rules) -> Verdict:
    return judge(
        each.job,
        each.age_seconds,
        live=rules.live_now(),
        grace_seconds=rules.grace_seconds,
        timing=rules.timing,
    )
