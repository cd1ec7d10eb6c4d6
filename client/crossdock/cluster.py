"""The way in: which workers there are, and calls to all of them."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

from crossdock.buffers import Buffers
from crossdock.cancel import Cancel
from crossdock.errors import CrossdockError, ProtocolError, Unavailable, WorkersLost
from crossdock.http import Timeouts
from crossdock.job import Job
from crossdock.options import (
    ENV_STORE,
    Options,
    check_endpoints,
    endpoints_from_environment,
    store_options_from_environment,
    tls_context,
    token_source,
)
from crossdock.pool import Pool
from crossdock.push import PushLoad
from crossdock.records import JobRecord, Owner, Persistence, WorkerInfo
from crossdock.statistics import ReadMeter, ReadStatistics
from crossdock.store.api import Meter, Store, StoreOptions
from crossdock.store.errors import StoreUnavailable
from crossdock.store.opening import open_store
from crossdock.store.tier import StoreTier
from crossdock.survey import Acquaintances, Answer, Found, Members, Silences, Survey
from crossdock.threads import Threads, result_of
from crossdock.wire import names

T = TypeVar("T")

_FRESH_SECONDS = 2.0
_CALL_THREADS = 16
_SURVEY_ROUNDS = 3
"""Endpoints, then whom they name, then whom those name."""


@dataclass(slots=True)
class Answers(Generic[T]):
    """What many workers answered to one question."""

    answers: dict[str, T] = field(default_factory=dict)
    """By worker id."""
    away: set[str] = field(default_factory=set)
    """URLs of those that did not answer, and are not lost yet."""
    collected: list[CrossdockError] = field(default_factory=list)


class Cluster:
    """A connection to a shuffle cluster. Thread-safe; close it, or use it as a context manager."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        pool: Pool,
        options: Options,
        store_options: StoreOptions | None = None,
    ) -> None:
        """Use `connect`."""
        self.options = options
        self.pool = pool
        self._store_options = store_options
        self._endpoints = tuple(endpoints)
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._members: Members | None = None
        self._asked = float("-inf")
        self._silences = Silences(options.loss_after_seconds)
        self._met = Acquaintances()
        self._calls = Threads(_CALL_THREADS, thread_name_prefix="crossdock-call")
        self.pushers = Threads(options.push_threads, thread_name_prefix="crossdock-push")
        self.fetchers = Threads(_CALL_THREADS, thread_name_prefix="crossdock-fetch")
        self.buffers = Buffers(options.read_ahead_bytes)
        self.reads = ReadMeter()
        self.tier = StoreTier(
            options, store_options, pool=pool, workers=self.stores, meter=self.reads
        )
        self.load = PushLoad()

    def job(
        self,
        uid: str,
        *,
        owner: str | Owner | None = None,
        lease_seconds: float = 60.0,
        grace_seconds: float = 300.0,
        epoch: int = 0,
        quota_bytes: int = 0,
        store_quota_bytes: int = 0,
        tenant: str = "",
        persistence: str | Persistence = Persistence.ON_PRESSURE,
    ) -> Job:
        """Open a job.

        With `owner` this process owns it: it is registered with every worker, and its lease is
        renewed until the job is closed; that of owner `cluster` need not be. Without, this
        process attaches to a registered job.

        Args:
            uid: of the job.
            owner: runner, driver or cluster; None attaches, and no other argument counts.
            lease_seconds: for how long the job lives on without word from this process.
            grace_seconds: for how long after that its data is kept.
            epoch: higher than that of whoever owned the job before.
            quota_bytes: on each worker's disk; 0: the worker's own quota.
            store_quota_bytes: that each worker may bring into the store; 0: the worker's own quota.
            tenant: whose job it is, for the workers' metrics.
            persistence: when workers with a store persist by themselves: Never, OnPressure, Eager,
                BeforeAck.
        """
        names.check_name("job", uid)
        record = None
        if owner is not None:
            record = JobRecord.from_json(
                {
                    "owner": str(owner),
                    "lease_seconds": lease_seconds,
                    "grace_seconds": grace_seconds,
                    "epoch": epoch,
                    "quota_bytes": quota_bytes,
                    "store_quota_bytes": store_quota_bytes,
                    "tenant": tenant,
                    "persistence": persistence,
                }
            )
        job = Job(self, uid, record)
        with self._lock:
            self._jobs.append(job)
        return job

    def forget(self, job: Job) -> None:
        """Let go of a job that was closed."""
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)

    def members(self, *, fresh: bool = False, cancel: Cancel | None = None) -> Members:
        """Return the workers there are, asked for at most every two seconds unless `fresh`.

        Raises:
            Unavailable: none answers.
            Closed: the cluster was closed, or `cancel` set.
        """
        cancel = cancel or self.pool.cancel
        cancel.check()
        with self._lock:
            members = self._members
            known = members is not None and time.monotonic() - self._asked < _FRESH_SECONDS
            if members is not None and known and not fresh:
                return members
        members = self._ask_all(cancel)
        with self._lock:
            self._members = members
            self._asked = time.monotonic()
        return members

    def statistics(self) -> ReadStatistics:
        """Return what was read so far, by tier: requests, bytes, seconds, hit rate."""
        return self.reads.statistics()

    def stores(self, *, fresh: bool = False) -> list[str]:
        """Return the URLs of workers that read their store for us; none, if no worker has one.

        Args:
            fresh: ask who is there, also if somebody is known.

        Raises:
            StoreUnavailable: there was a worker with a store, and none answers now: what is in
                the store is not lost with them.
        """
        with self._lock:
            members = self._members
        found = members.with_store if members else []
        if found and not fresh:
            return found
        problem = "none that answers has one"
        try:
            found = self.members(fresh=fresh).with_store
        except WorkersLost as error:
            found, problem = [], error.message
        with self._lock:
            expected = self._met.have_store
        if expected and not found:
            raise StoreUnavailable(
                f"no worker reads the store for us: {problem}",
                hint="start a worker with the store, or give this process CROSSDOCK_STORE",
            )
        return found

    def open_store(self, meter: Meter) -> Store:
        """Open the store that `Options.store` names, to delete there; the caller closes it."""
        return open_store(self.options.store, self._store_options, meter=meter)

    def id_at(self, url: str) -> str | None:
        """Return the id of the worker that names this URL as its own, if it was ever met."""
        with self._lock:
            return next((id_ for id_, own in self._met.urls.items() if own == url), None)

    def _ask_all(self, cancel: Cancel) -> Members:
        began = time.monotonic()
        with self._lock:
            survey = Survey(self._endpoints, self._met)
        urls = list(self._endpoints)
        for _ in range(_SURVEY_ROUNDS):
            for url, answer in self._each(urls, partial(self._ask, cancel)).items():
                survey.note(url, answer)
            with self._lock:
                urls = survey.next_urls()
        cancel.check()  # or those that were not asked to the end would count as silent
        with self._lock:
            found = survey.found()
        return self._judge(found, survey.problem, began)

    def _judge(self, found: Found, problem: CrossdockError | None, began: float) -> Members:
        """Tell who is away from who is lost; raise when there is nobody else."""
        away = self._silences.still_away(found.silent, began)
        bound = self.options.loss_after_seconds
        late = [f"{u} has not answered for {bound:g} s" for u in sorted(found.silent - away)]
        lost = (*found.lost.values(), *late)
        if not found.reachable and found.silent and not away:
            raise WorkersLost(f"no worker is left: {', '.join(lost)}")
        if not found.reachable:
            raise problem or Unavailable("no worker answers")
        ids = frozenset(found.lost)
        return Members(found.reachable, away, lost, ids, found.replaced)

    def _ask(self, cancel: Cancel, url: str) -> Answer:
        with self.pool.call("GET", url, "/v1/workers", cancel=cancel) as response:
            data = response.read_json()
        workers = data.get("workers") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(workers, list):
            raise ProtocolError(f"{url} is no worker: it does not list any")
        return WorkerInfo.from_json(data.get("self")), [WorkerInfo.from_json(w) for w in workers]

    def listed_by(self, url: str) -> list[WorkerInfo]:
        """Return the workers that the one at a URL knows, itself included."""
        return self._ask(self.pool.cancel, url)[1]

    def _each(self, urls: Iterable[str], call: Callable[[str], T]) -> dict[str, T | CrossdockError]:
        """Call every URL at once; return what each returned or raised."""

        def guarded(url: str) -> T | CrossdockError:
            try:
                return call(url)
            except CrossdockError as error:
                return error

        futures = {url: self._calls.submit(guarded, url) for url in dict.fromkeys(urls)}
        return {url: result_of(future) for url, future in futures.items()}

    def each_worker(
        self, members: Members, call: Callable[[str], T]
    ) -> dict[str, T | CrossdockError]:
        """Call every reachable worker by its URL, at once; return the outcome by worker id."""
        by_url = self._each([w.url for w in members.reachable.values()], call)
        return {w.id: by_url[w.url] for w in members.reachable.values()}

    def ask_each(
        self,
        members: Members,
        call: Callable[[str], T],
        *,
        ignore: tuple[type[CrossdockError], ...] = (),
        collect: tuple[type[CrossdockError], ...] = (),
    ) -> Answers[T]:
        """Call every reachable worker by its URL, at once, and sort the outcomes.

        Args:
            members: which workers.
            call: what asks the worker at a URL.
            ignore: errors by which a worker says that it has nothing to answer.
            collect: errors that are told beside the answers.

        Raises:
            CrossdockError: any other, but `Unavailable`.
        """
        found: Answers[T] = Answers(away=set(members.unreachable))
        for worker, outcome in self.each_worker(members, call).items():
            if not isinstance(outcome, CrossdockError):
                found.answers[worker] = outcome
            elif isinstance(outcome, Unavailable):
                found.away.add(members.reachable[worker].url)
            elif isinstance(outcome, collect):
                found.collected.append(outcome)
            elif not isinstance(outcome, ignore):
                raise outcome
        return found

    def on_all(self, call: Callable[[str], None]) -> None:
        """Call every worker there is by its URL, at once.

        Raises:
            Unavailable: some worker does not answer; call again.
        """
        away = self.ask_each(self.members(fresh=True), call).away
        if away:
            raise Unavailable(f"these do not answer: {', '.join(sorted(away))}")

    def url(self, worker: str) -> str:
        """Return a worker's URL, or raise `Unavailable` while it is not reachable."""
        for fresh in (False, True):
            info = self.members(fresh=fresh).reachable.get(worker)
            if info is not None:
                return info.url
        raise Unavailable(f"worker {worker} does not answer")

    def close(self) -> None:
        """Stop renewing leases, and close all connections and threads. Idempotent.

        What other threads have under way ends with `Closed`, pushes included: commit first.
        """
        self.pool.close()
        with self._lock:
            jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.close()
        self.buffers.clear()
        for threads in (self.pushers, self.fetchers, self._calls):
            threads.close()
        self.tier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def connect(
    endpoints: Sequence[str] | None = None,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    store_options: StoreOptions | None = None,
) -> Cluster:
    """Return a cluster, reached through any of its workers.

    Args:
        endpoints: URLs of workers; default CROSSDOCK_ENDPOINTS (by commas).
        token: what opens the job; default CROSSDOCK_TOKEN.
        token_file: a file with the token, read again when it changes; default
            CROSSDOCK_TOKEN_FILE.
        ca_file: authority of the workers' certificates, PEM; default CROSSDOCK_CA_FILE, then
            the system's.
        options: all other settings.
        store_options: of the store that `options.store` names; default
            CROSSDOCK_STORE_OPTIONS (NAME=VALUE by spaces).

    Raises:
        ConfigError: an argument is wrong. Nothing is sent yet.
    """
    options = options or Options()
    if not options.store:
        options = replace(options, store=os.environ.get(ENV_STORE, ""))
    if options.store and store_options is None:
        store_options = store_options_from_environment()
    pool = Pool(
        token=token_source(token, token_file),
        tls=tls_context(ca_file),
        timeouts=Timeouts(options.connect_seconds, options.stall_seconds),
    )
    urls = check_endpoints(endpoints_from_environment() if endpoints is None else endpoints)
    return Cluster(urls, pool=pool, options=options, store_options=store_options)
