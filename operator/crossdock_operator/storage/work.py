"""What a storekeeper does. All of it blocks, and runs in a thread of its process."""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Final
from urllib.parse import unquote, urlsplit

from crossdock.cancel import Cancel
from crossdock.cleanup.audit import Audit as Found
from crossdock.cleanup.audit import AuditOptions, audit
from crossdock.cleanup.deleting import DeletionOptions, NoWorkers, Workers, delete_job
from crossdock.cleanup.fleet import Fleet
from crossdock.cleanup.telling import ClusterWorkers
from crossdock.cluster import Cluster
from crossdock.errors import CleanupUnfinished, ConfigError, CrossdockError, JobFenced, JobUnknown
from crossdock.http import Response, Timeouts
from crossdock.lifecycle.stopping import Ender
from crossdock.lifecycle.sweep import Verdict
from crossdock.lifecycle.timing import Timing
from crossdock.options import Options
from crossdock.pool import Pool
from crossdock.speaking import record_of
from crossdock.store.accounting import Requests
from crossdock.store.api import Store, StoreOptions, UnfinishedUpload
from crossdock.store.buckets import each_bucket
from crossdock.store.errors import StoreUnavailable
from crossdock.store.opening import open_store
from crossdock.store.probes import FOLDER
from crossdock.store.rules import HasLifecycle, Net
from crossdock.store.settings import store_options
from crossdock.store.versions import HasVersions
from crossdock.wire import names
from crossdock_operator.storage.tasks import (
    Audit,
    Audited,
    Ended,
    EndJob,
    Place,
    Probe,
    Probed,
)

STORE_SECONDS: Final = 15.0
"""How long one call of the store is tried, so that what is wrong is told soon."""
LEASE_SECONDS: Final = 60.0
"""Of a job whose record no worker tells."""
_NEVER: Final = 1e9
"""Silence is no loss here: a worker that is cut off may still write."""
_TIMEOUTS: Final = Timeouts(connect_seconds=3.0, stall_seconds=15.0)
_CONNECTIONS: Final = 32

Note = Callable[[CrossdockError], None]


@dataclass(slots=True)
class Bench:
    """What one storekeeper has open: connections to the workers of its cluster."""

    cancel: Cancel = field(default_factory=lambda: Cancel("the storekeeper ends"))

    @contextmanager
    def workers(self, place: Place) -> Iterator[Cluster]:
        """Give a client of the workers, as an administrator."""
        tls = ssl.create_default_context(cadata=place.authority) if place.authority else None
        pool = Pool(
            token=lambda: place.token,
            tls=tls,
            timeouts=_TIMEOUTS,
            addresses=dict(place.addresses),
        )
        options = Options(
            store=place.store,
            store_cluster=place.cluster,
            loss_after_seconds=_NEVER,
            deadline_seconds=STORE_SECONDS,
        )
        with Cluster(place.endpoints, pool=pool, options=options) as cluster:
            yield cluster

    @contextmanager
    def store(self, place: Place, meter: Requests) -> Iterator[Store]:
        """Give the store, or raise `CrossdockError` if it is not to be reached from here."""
        found = opened(place, meter)
        try:
            yield found
        finally:
            found.close()


def opened(place: Place, meter: Requests) -> Store:
    """Return a place's store."""
    parts = urlsplit(place.store)
    if parts.scheme == "file" and not Path(unquote(parts.path)).is_dir():
        # An empty listing of what is not mounted here would prove nothing.
        raise StoreUnavailable(
            f"the operator does not see the directory {parts.path}",
            hint="mount the volume in the operator's pod at the same place",
        )
    return open_store(place.store, _options(place), meter=meter)


def _options(place: Place) -> StoreOptions:
    bounds = (f"deadline_seconds={STORE_SECONDS:g}", f"connections={_CONNECTIONS}")
    return store_options((*bounds, *place.options))


# -- the end of a job -----------------------------------------------------------------------


def end_job(bench: Bench, place: Place, task: EndJob, note: Note) -> Ended:
    """Delete a job; `note` is told what it waits for.

    Raises:
        CleanupUnfinished: a worker or the store does not answer; what is left is found again.
        Unavailable: no worker answers.
        StoreDenied: the credentials do not list or delete.
    """
    meter, timing = Requests(), Timing(settle_seconds=place.settle_seconds)
    with ExitStack() as stack:
        workers: Workers = NoWorkers()
        lease = LEASE_SECONDS
        if place.endpoints:
            cluster = stack.enter_context(bench.workers(place))
            lease, met = _known(cluster, task.job)
            command = partial(_delete, cluster, task.job, bench.cancel)
            workers = ClusterWorkers(
                cluster,
                command,
                met=met,
                met_all=False,
                prove=None if task.leave_store else partial(command, more="?proved=true"),
            )

        def store() -> Store:
            return stack.enter_context(bench.store(place, meter))

        how = DeletionOptions(
            cluster=place.cluster,
            store=None if task.leave_store else store,
            timing=timing,
            deadline_seconds=task.deadline_seconds + timing.outlast(lease),
            cancel=bench.cancel,
            meter=meter,
            note=note,
        )
        deleted = delete_job(task.job, workers, how, ender=Ender.OPERATOR, lease_seconds=lease)
    return Ended(
        objects=deleted.objects,
        uploads=deleted.uploads,
        nbytes=deleted.nbytes,
        requests=deleted.requests,
        silent=tuple(sorted(deleted.silent)),
    )


def _delete(cluster: Cluster, job: str, cancel: Cancel, url: str, more: str = "") -> Response:
    # Without an epoch: that a ShuffleJob is deleted is true for ever, whoever says it.
    return cluster.pool.call("DELETE", url, f"{names.job_path(job)}{more}", cancel=cancel)


def _known(cluster: Cluster, job: str) -> tuple[float, frozenset[str]]:
    """Return a job's lease, and the homes of its seals, as far as workers tell."""

    def ask(url: str) -> tuple[float, tuple[str, ...]]:
        with cluster.pool.call("GET", url, names.job_path(job)) as response:
            record = record_of(response.read_json())
        return record.lease_seconds, record.homes

    answers = cluster.ask_each(cluster.members(), ask, ignore=(JobUnknown, JobFenced)).answers
    if not answers:
        return LEASE_SECONDS, frozenset()
    homes = frozenset(home for _, each in answers.values() for home in each)
    return max(lease for lease, _ in answers.values()), homes


# -- probes ---------------------------------------------------------------------------------


def probe(bench: Bench, place: Place, task: Probe) -> Probed:
    """Try each verb on each bucket, where nothing of a job ever is."""
    problems: dict[str, str] = {}
    lifecycle: list[str] = []
    with bench.store(place, Requests()) as store:
        for bucket in each_bucket(store):
            for verb, attempt in _tries(bucket, place.cluster).items():
                bench.cancel.check()
                if problem := _problem(attempt):
                    problems.setdefault(verb, f"{bucket.url}: {problem}")
                    if verb == "list":
                        break  # it is away, or not ours: more tries say no more
            if task.lifecycle and not problems:
                lifecycle += _lacks(bucket)
    return Probed(problems=problems, lifecycle=tuple(lifecycle))


def _tries(bucket: Store, cluster: str) -> dict[str, Callable[[], object]]:
    """Return what tries each verb, by its name."""
    key = f"{FOLDER}operator-{token_hex(8)}"
    prefix = f"{cluster}/"
    tries: dict[str, Callable[[], object]] = {
        "list": lambda: next(bucket.list(prefix), None),
        "uploads": lambda: next(bucket.uploads(prefix), None),
        "put": lambda: bucket.put(key, b"operator"),
        "abort": lambda: bucket.abort(UnfinishedUpload(key, token_hex(16))),
        "delete": lambda: bucket.delete([key]),
    }
    if not isinstance(bucket, HasLifecycle):
        del tries["abort"]  # drafts of a directory are files like others
    return tries


def _problem(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except CrossdockError as error:
        return str(error)
    return ""


def _lacks(bucket: Store) -> list[str]:
    if not isinstance(bucket, HasLifecycle):
        return []
    try:
        there = bucket.read_lifecycle()
        if there is None:
            return [f"{bucket.url}: this server has no lifecycle rules"]
        versions = bucket.keeps_versions() if isinstance(bucket, HasVersions) else False
        net = Net(prefix=bucket.prefix, versions=bool(versions))
        return [f"{bucket.url}: {problem}" for problem in net.lacks(there.rules)]
    except CrossdockError as error:
        return [f"{bucket.url}: {error}"]


# -- audits ---------------------------------------------------------------------------------


def audit_cluster(bench: Bench, place: Place, task: Audit) -> Audited:
    """Compare what is there with the jobs that live.

    Raises:
        CrossdockError: as `crossdock.cleanup.audit.audit`.
        ConfigError: the list of jobs is too old: it lay about for longer than half the grace.
    """
    age = time.monotonic() - task.as_of
    if not 0 <= age <= max(task.grace_seconds / 2, 1.0):
        raise ConfigError(f"the list of jobs is {age:.0f} s old", hint="it is made again")
    meter = Requests()
    with ExitStack() as stack:
        store = stack.enter_context(bench.store(place, meter))
        fleet = None
        if place.endpoints:
            cluster = stack.enter_context(bench.workers(place))
            fleet = Fleet(cluster, place.cluster, epoch=task.epoch or None)

        def look(*, delete: bool) -> Found:
            options = AuditOptions(
                cluster=place.cluster,
                grace_seconds=task.grace_seconds,
                live=frozenset(task.live),
                live_as_of=task.as_of,
                delete=delete,
                timing=Timing(settle_seconds=place.settle_seconds),
            )
            return audit(each_bucket(store), fleet, options, cancel=bench.cancel)

        try:
            found = look(delete=task.delete)
        except CleanupUnfinished:  # a worker does not answer: all there is to do is to look
            if not task.delete:
                raise
            found = look(delete=False)
    return _audited(found, sum(count.requests for count in meter.total().values()))


def _audited(found: Found, requests: int) -> Audited:
    left = found.left
    disks = [d for d, v in found.disks if v is Verdict.ORPHAN and d not in found.cleared]
    orphans = left.of(Verdict.ORPHAN)
    return Audited(
        orphans=orphans.things + len(disks),
        orphan_bytes=orphans.nbytes + sum(each.nbytes for each in disks),
        deleted=found.deleted.things + len(found.cleared),
        store_bytes=left.of(Verdict.LIVE).nbytes,
        worker_bytes=sum(each.nbytes for each, _ in found.disks if each not in found.cleared),
        unsure=left.of(Verdict.UNKNOWN).things,
        young=left.of(Verdict.YOUNG).things,
        requests=requests,
        silent=tuple(found.silent),
    )
