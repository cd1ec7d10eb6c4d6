"""One worker's state and parts, put together."""

import asyncio
import fcntl
import os
import resource
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import structlog

import crossdock
from crossdock.errors import ConfigError, CrossdockError
from crossdock.lifecycle.timing import Timing
from crossdock.records import DRAINED, Reading, WorkerInfo
from crossdock.store.accounting import Requests, prices_of, writes
from crossdock.store.opening import open_store
from crossdock.store.records import Record
from crossdock.views import ShuffleKey
from crossdock_worker import accounts, tls
from crossdock_worker.acklog import AckLog
from crossdock_worker.admission import Admission
from crossdock_worker.auth import Authenticator
from crossdock_worker.deleting import Everywhere
from crossdock_worker.drain import Drain
from crossdock_worker.first_look import look_at
from crossdock_worker.front import ConnectionCount
from crossdock_worker.gossip import BEAT_SECONDS, Gossip
from crossdock_worker.identity import Identity
from crossdock_worker.jobs import Jobs
from crossdock_worker.keeper import Keeper
from crossdock_worker.leaders import Leaders
from crossdock_worker.leave import Leave
from crossdock_worker.life import Conditions, clock
from crossdock_worker.membership import Membership
from crossdock_worker.metrics import Gauge, Gauges, JobBytes, Metrics, StoreRequests
from crossdock_worker.noted import NotedStore, note_stored
from crossdock_worker.persist import Persister
from crossdock_worker.places import PlacesCache
from crossdock_worker.policy import Trigger
from crossdock_worker.reaper import Reaper
from crossdock_worker.releasing import ReleasedEverywhere, Releaser
from crossdock_worker.settings import LAST_SECONDS, ZSTD, Settings
from crossdock_worker.through import ReadThrough

log = structlog.get_logger()

_ANEW_SECONDS = 5.0
"""Before a part that failed begins anew."""
_VIEW_THREADS = 2
_STORE_THREADS = 2
"""For calls that write to the store: however slow it is, frames and reads have their threads."""


class Worker:
    """Everything that a request handler needs. Made on the event loop, closed once."""

    def __init__(self, settings: Settings) -> None:
        """Claim the data directory and replay it; raises `ConfigError` when it is in use."""
        self.settings = settings
        self._began = time.monotonic()
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock_fd = self._claim_directory()
        self.identity = Identity.claim(settings.data_dir)
        self.auth = Authenticator(settings.key_file)
        limits = settings.limits
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.conditions = Conditions(Timing(settle_seconds=settings.store_settle_seconds))
        self.jobs = Jobs(
            settings.data_dir,
            max_shuffles=limits.shuffle_room(descriptors),
            conditions=self.conditions,
        )
        self.admission = Admission(
            limits, settings.data_dir, own_bytes=lambda: self.jobs.disk_bytes
        )
        self.connections = ConnectionCount(limits.max_connections)
        self.places = PlacesCache(limits.places_cache_bytes)
        self.pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="bytes")
        self.view_pool = ThreadPoolExecutor(_VIEW_THREADS, thread_name_prefix="views")
        self.store_pool = ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="store")
        self._gossip_thread = ThreadPoolExecutor(1, thread_name_prefix="gossip")
        self.seal_lock = threading.Lock()
        """Held while a closed home takes a seal, and while a drain looks which there are."""
        self.store_requests = Requests(prices_of(settings.store, settings.store_prices))
        self.persister = self._open_store()
        self._left_runs = [
            (s, run) for job in self.jobs for s in job.logs() for run in s.runs.unfinished
        ]
        self._acks = self._open_acks()
        self.through = self._open_through()
        self.drain = Drain(self)
        self.keeper = Keeper(self)
        self._transfers: set[asyncio.Task[object]] = set()
        self._requests: set[asyncio.Task[object]] = set()
        self.metrics = Metrics()
        self.metrics.registry.register(Gauges(self._gauges))
        self.metrics.registry.register(StoreRequests(self.store_requests))
        self.metrics.registry.register(
            JobBytes(lambda: accounts.by_job_and_tenant(list(self.jobs)))
        )
        self.url = settings.advertise
        self.gossip = Gossip(
            self.jobs,
            self.identity,
            settled_file=settings.data_dir / "settled",
            has_peers=bool(settings.peers),
            url=lambda: self.url,
            hears=lambda: self.drain.hears,
            in_thread=self._in_gossip_thread,
            on_fence=self.places.forget_job,
        )
        self.releaser = Releaser(
            self.jobs, rank=self._rank_with_store, clear=ReleasedEverywhere(self)
        )
        self.reaper = Reaper(
            self.jobs,
            rank=lambda: self.gossip.rank,
            listens=lambda: self.drain.listens,
            delete=Everywhere(self),
        )
        self.membership = Membership(
            settings.peers,
            interval_seconds=settings.peers_interval_seconds,
            token=self.auth.own_token,
            tls=tls.of_peers(settings),
            gone_file=settings.data_dir / "gone",
            gossip=self.gossip,
        )
        self.leaders = Leaders(settings.data_dir / "leader")

    def _claim_directory(self) -> int:
        fd = os.open(self.settings.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ConfigError(
                f"--data-dir {self.settings.data_dir} is in use by another worker",
                hint="give every worker process a directory of its own",
            ) from None
        return fd

    def _open_store(self) -> Persister | None:
        settings = self.settings
        if not settings.store:
            return None
        store = open_store(settings.store, settings.store_options, meter=self.store_requests)
        return Persister(
            NotedStore(store, lambda uid: note_stored(self.jobs.get(uid)), self.jobs.writes),
            cluster=settings.cluster,
            worker=self.identity.id,
            segment_bytes=settings.limits.segment_bytes,
            uploads=settings.limits.store_uploads,
            timing=self.conditions.timing,
            leave=self._leave,
            check_room=self._check_store_room,
            compress_in=settings.data_dir if settings.store_compression == ZSTD else None,
            on_end=self._persisted,
        )

    def _leave(self, key: ShuffleKey) -> Leave:
        return self.jobs.get(key.job).leaves.of(key.name, key.generation)

    def _check_store_room(self, key: ShuffleKey, more: int) -> None:
        quota = self.settings.limits.job_store_quota_bytes
        accounts.check_store_quota(self.jobs.get(key.job), more, quota)

    def _open_acks(self) -> AckLog | None:
        if self.persister is None:
            return None
        return AckLog(
            self.persister.write_log,
            threads=self.persister.log_threads,
            interval_seconds=self.settings.ack_interval_seconds,
            group_bytes=self.settings.ack_log_bytes,
        )

    @property
    def acks(self) -> AckLog:
        """What brings frames into the store before their acks; raises without a store."""
        if self._acks is None:
            raise ConfigError(
                f"the job persists BeforeAck, and worker {self.identity.id} has no store",
                hint="start all workers with --store URL, or register the job otherwise",
            )
        return self._acks

    def _persisted(self, trigger: Trigger, record: Record | None) -> None:
        outcome = "failed" if record is None else "done"
        self.metrics.persist_runs.labels(trigger, outcome).inc()
        if record is not None:
            self.metrics.persisted_bytes.labels(trigger).inc(record.payload_bytes)

    def _open_through(self) -> ReadThrough | None:
        settings = self.settings
        if not settings.store:
            return None
        return ReadThrough(
            settings.store,
            settings.store_options,
            meter=self.store_requests,
            most_bytes=settings.limits.read_batch_bytes,
        )

    def client(self, token: str, *, deadline_seconds: float) -> crossdock.Cluster:
        """Return a client of this worker and its peers, for threads; the caller closes it."""
        return crossdock.connect(
            [self.url, *(peer.url for peer in self.membership if peer.state != "gone")],
            token=token,
            ca_file=self.settings.tls_ca or self.settings.tls_cert,
            options=crossdock.Options(deadline_seconds=deadline_seconds),
        )

    @property
    def state(self) -> str:
        """serving, full, draining or drained."""
        if self.admission.draining:
            return DRAINED if self.drain.report.handed_over else "draining"
        self.admission.check_disk()
        return "full" if self.admission.disk_full else "serving"

    @property
    def uptime_seconds(self) -> float:
        """Since this process began."""
        return time.monotonic() - self._began

    def store_use(self, job: str | None = None) -> dict[str, object]:
        """Return what a job, or all, have asked of the store since this process began."""
        asked = self.store_requests
        counts = asked.total() if job is None else asked.of_job(job)
        verbs: dict[str, dict[str, int]] = {}
        for (verb, outcome), count in sorted(counts.items()):
            verbs.setdefault(verb, {})[outcome] = count.requests
        return {
            "requests": sum(count.requests for count in counts.values()),
            "writes": writes(counts),
            "dollars": round(self.store_requests.dollars(counts), 6),
            "verbs": verbs,
        }

    def reading(self) -> Reading:
        """Return a reading of this process's clock, for owners to bring back."""
        return Reading(self.identity.id, self.identity.incarnation, clock())

    def as_of(self, reading: Reading | None) -> float | None:
        """Return what a reading that was brought back says here; None if it is of another clock."""
        own = self.identity.id, self.identity.incarnation
        if reading is None or (reading.worker, reading.incarnation) != own:
            return None
        return reading.seconds

    def info(self) -> WorkerInfo:
        """Describe this worker as `/v1/workers` does."""
        return WorkerInfo(
            id=self.identity.id,
            incarnation=self.identity.incarnation,
            url=self.url,
            state=self.state,
            inflight_bytes=self.admission.inflight_bytes,
            disk_used=round(self.admission.disk_used, 4),
            ingested_bytes=self.metrics.ingested_bytes,
            store=self.persister is not None,
        )

    def _gauges(self) -> Iterator[Gauge]:
        yield "inflight_bytes", "Bytes of frames being received.", self.admission.inflight_bytes
        yield "connections", "Open connections.", self.connections.open
        yield "disk_used_ratio", "Share of the disk capacity in use.", self.admission.disk_used
        jobs = list(self.jobs)
        yield "jobs", "Jobs known.", len(jobs)
        yield "shuffles", "Shuffles held.", self.jobs.shuffle_count
        yield "shuffles_limit", "Shuffles held at most.", self.jobs.max_shuffles
        yield "disk_bytes", "Bytes of shuffles on this disk.", sum(j.disk_bytes for j in jobs)

    async def run_background(self) -> None:
        """Do until cancelled what nobody asks for: peers, persisting, cleaning up of old runs."""
        parts: list[Callable[[], Awaitable[None]]] = [
            partial(self.membership.run, self.identity.id),
            self.keeper.run,
            self._beat,
            self.reaper.run,
            self.drain.come_back,
        ]
        if self.persister is not None:
            parts += [
                partial(self._in_background, partial(look_at, self.persister.store)),
                partial(self._recover, self.persister),
                self.releaser.run,
            ]
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(_unfailing(part))

    @property
    def may_be_stored(self) -> bool:
        """Whether a worker has a store, in which something may be."""
        return self.persister is not None or any(peer.store for peer in self.membership)

    def _rank_with_store(self) -> int:
        """Return how many workers with a store come first."""
        counted, own = self.gossip.counted, self.identity.id
        return sum(1 for p in self.membership if p.store and p.id in counted and p.id < own)

    async def _beat(self) -> None:
        while True:
            self.gossip.beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def _in_gossip_thread(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._gossip_thread, work)

    async def _recover(self, persister: Persister) -> None:
        """Adopt the persist runs that an earlier process has ended; the others are undone later."""
        for shuffle, run in self._left_runs:
            persister.recovery.add(shuffle, run)
        for shuffle, run in self._left_runs:
            await self._in_background(partial(persister.recovery.adopt, shuffle, run))

    async def _in_background(self, work: Callable[[], object]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self.store_pool, work)
        except CrossdockError as error:  # it is looked after once the store has settled
            log.warning("what an earlier process has left stays for now", problem=str(error))

    def request_began(self) -> None:
        """Note that this task answers a request; aiohttp makes one for each."""
        task = asyncio.current_task()
        assert task is not None
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def cut_off(self) -> None:
        """Cancel the requests under way: the grace is over."""
        for task in self._requests:
            task.cancel()

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """Note that this task needs the pool until the end of the block, also when cancelled."""
        task = asyncio.current_task()
        assert task is not None
        self._transfers.add(task)
        try:
            yield
        finally:
            self._transfers.discard(task)

    async def close(self) -> None:
        """Let the threads end and close the files."""
        loop = asyncio.get_running_loop()
        await self.drain.close()
        if self._transfers:  # they were cancelled, and give back what they hold
            await asyncio.wait(self._transfers, timeout=LAST_SECONDS)
        self.view_pool.shutdown(wait=False, cancel_futures=True)
        self.store_pool.shutdown(wait=False, cancel_futures=True)
        await loop.run_in_executor(None, self._gossip_thread.shutdown)
        await loop.run_in_executor(None, self.reaper.close)
        await loop.run_in_executor(None, self.releaser.close)
        await loop.run_in_executor(None, self.keeper.close)
        if self.persister is not None:
            await loop.run_in_executor(None, self.persister.close)
        if self.through is not None:
            await loop.run_in_executor(None, self.through.close)
        await loop.run_in_executor(None, self.pool.shutdown)
        self.jobs.close()
        os.close(self._lock_fd)


async def _unfailing(part: Callable[[], Awaitable[None]]) -> None:
    """Run a part to its end; after a fault of ours it begins anew, and the others go on."""
    while True:
        try:
            await part()
        except Exception:
            log.exception("a part of the worker failed, and begins anew")
            await asyncio.sleep(_ANEW_SECONDS)
        else:
            return
