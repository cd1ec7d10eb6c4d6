"""What a drain hands over: frames that exist nowhere else, and seals to whoever decides next."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

import crossdock
from crossdock.cancel import Stop
from crossdock.errors import CrossdockError, Gone, SealLost, Unavailable
from crossdock.records import DRAINED, STAYING, Persistence, WorkerInfo
from crossdock.seals import Seals
from crossdock.store.manifest import identities
from crossdock.store.records import Record
from crossdock.store.seals import StoredSeals
from crossdock.views import ShuffleKey
from crossdock.wire import tables
from crossdock.wire.tables import Table
from crossdock.wire.tokens import Right
from crossdock_worker.job import Job
from crossdock_worker.persist import Progress
from crossdock_worker.policy import Trigger
from crossdock_worker.shuffle_log import ShuffleLog

if TYPE_CHECKING:
    from crossdock_worker.worker import Worker

log = structlog.get_logger()

_DEADLINE_SECONDS: Final = 5.0
_TELL_SECONDS: Final = 0.2
_PROBLEMS_TOLD: Final = 20


@dataclass(frozen=True, slots=True)
class Report:
    """How far a drain is."""

    drained: bool = False
    """Whether this worker can be deleted: all is handed over, and its peers know."""
    handed_over: bool = False
    """Whether it holds nothing that exists nowhere else."""
    remaining_bytes: int = 0
    """Payload that exists nowhere else yet."""
    seals_left: int = 0
    """Choices of winners that are not handed over yet."""
    problems: tuple[str, ...] = ()
    """What stands in the way; some of it may pass."""

    def to_json(self) -> dict[str, object]:
        """Return the JSON object."""
        return asdict(self)


class Handover:
    """Hands over what a worker holds. Used by one thread."""

    def __init__(
        self, worker: "Worker", stop: threading.Event, tell: Callable[[Report], None]
    ) -> None:
        """Args: `stop` ends a round early; `tell` is told during a round how far it is."""
        self._worker = worker
        self._stop = stop
        self._tell = tell
        self._left: set[ShuffleKey] = set()
        """Shuffles whose seals are handed over."""
        self._marked: set[str] = set()
        """Jobs of which the store knows that this worker has left all its seals."""
        self._problems: list[str] = []

    def round(self) -> Report:
        """Do what is left now; return what is left then."""
        self._problems = []
        jobs = list(self._worker.jobs)
        remaining = seals_left = 0
        try:
            token = self._worker.auth.own_token(Right.ADMIN)  # it is for every job
            with self._worker.client(token, deadline_seconds=_DEADLINE_SECONDS) as cluster:
                seals_left = sum(self._leave_seals(cluster, job) for job in jobs)
                remaining = self._persist(cluster, jobs, seals_left)
        except CrossdockError as error:
            self._note(str(error))
        done = not (remaining or seals_left or self._problems)
        return replace(self._report(remaining, seals_left), handed_over=done)

    def is_known(self) -> bool:
        """Whether all peers that answer know that this worker is drained, if they know it at all.

        They say so afterwards, and then nobody waits for it.
        """
        return self._peers_agree(lambda own: own.state == DRAINED)

    def is_known_back(self) -> bool:
        """Whether no peer that answers takes this worker for gone any more."""
        return self._peers_agree(lambda own: own.state != "gone")

    def _peers_agree(self, right: Callable[[WorkerInfo], bool]) -> bool:
        own = self._worker.identity.id
        urls = [peer.url for peer in self._worker.membership if peer.state in STAYING]
        token = self._worker.auth.own_token()
        with self._worker.client(token, deadline_seconds=_DEADLINE_SECONDS) as cluster:
            for url in urls:
                with suppress(Unavailable):
                    if any(w.id == own and not right(w) for w in cluster.listed_by(url)):
                        return False
        return True

    def _report(self, remaining: int, seals_left: int) -> Report:
        problems = tuple(self._problems[:_PROBLEMS_TOLD])
        return Report(remaining_bytes=remaining, seals_left=seals_left, problems=problems)

    def _note(self, problem: str) -> None:
        self._problems.append(problem)

    # -- frames --------------------------------------------------------------------------------

    def _persist(self, cluster: crossdock.Cluster, jobs: list[Job], seals_left: int) -> int:
        """Have persisted what is here alone; return how many bytes are not yet."""
        begun: dict[Future[Record], Progress] = {}
        waiting = 0
        for job, shuffle, left in self._alone(cluster, jobs):
            size = int(left["payload_bytes"].sum(dtype=np.uint64))
            progress = self._begin(job, shuffle, left)
            if progress is None:
                waiting += size
            else:
                begun[progress.future] = progress
        while True:
            pending = [f for f in begun if not f.done()]
            remaining = waiting + sum(
                begun[f].total_bytes - begun[f].persisted_bytes for f in pending
            )
            if not pending or self._stop.is_set():
                break
            self._tell(self._report(remaining, seals_left))
            wait(pending, timeout=_TELL_SECONDS)
        for future, progress in begun.items():
            problem = future.exception() if future.done() else None
            if problem is not None:  # the next round tries again
                self._note(str(problem))
                remaining += progress.total_bytes
        return remaining

    def _begin(self, job: Job, shuffle: ShuffleLog, left: Table) -> Progress | None:
        """Begin to persist frames; None when that cannot be, and a problem says why."""
        persister = self._worker.persister
        name = f"shuffle {shuffle.key.job}/{shuffle.key.name}/{shuffle.key.generation}"
        reason = "this worker has no --store" if persister is None else ""
        if job.record.persistence is Persistence.NEVER:
            reason = "its job says persistence Never"
        if persister is None or reason:
            self._note(f"{name}: {len(left)} frames are only here, and {reason}")
            return None
        keys = tables.frame_keys(left)
        try:
            return persister.persist(shuffle, keys, trigger=Trigger.DRAIN).progress
        except Gone:  # released, or its job ended, meanwhile
            return None
        except CrossdockError as error:
            self._note(f"{name}: {error}")
            return None

    def _alone(
        self, cluster: crossdock.Cluster, jobs: list[Job]
    ) -> Iterator[tuple[Job, ShuffleLog, Table]]:
        """Yield each shuffle that has frames which exist nowhere else, with those."""
        for job in jobs:
            for shuffle in job.logs():
                try:
                    frames = shuffle.frames()
                    _, left = shuffle.runs.covering(frames[tables.sort_order(frames)])
                    if len(left):
                        left = left[~self._elsewhere(cluster, shuffle, left)]
                except Gone:
                    continue
                except CrossdockError as error:
                    self._note(f"shuffle {job.uid}/{shuffle.key.name}: {error}")
                    continue
                if len(left):
                    yield job, shuffle, left

    def _elsewhere(
        self, cluster: crossdock.Cluster, shuffle: ShuffleLog, frames: Table
    ) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return which frames some peer holds that is not about to go.

        Peers are asked for frames first and how they are afterwards. Of two that drain at once the
        later one thus sees the other draining, and persists what both have.
        """
        found = np.zeros(len(frames), bool)
        own = self._worker.identity.id
        if not any(peer.state in STAYING for peer in self._worker.membership):
            return found
        key = shuffle.key
        attempts = np.unique(frames[["map", "attempt"]].astype(tables.ATTEMPT))
        with cluster.job(key.job) as job:
            asked = job.shuffle(key.name, partitions=shuffle.partitions, generation=key.generation)
            held, _, _ = asked.held(attempts)
        members = cluster.members(fresh=True).reachable
        for worker, table in held.items():
            if worker != own and worker in members and members[worker].state in STAYING:
                found |= np.isin(identities(frames), identities(table))
        return found

    # -- seals ---------------------------------------------------------------------------------

    def _leave_seals(self, cluster: crossdock.Cluster, job: Job) -> int:
        """Make no seals of a job any more, and hand over those there are; return how many stay."""
        left = 0
        with suppress(Gone):  # the job ended
            job.close_seals()
            with self._worker.seal_lock:  # what came before this drain began is there by now
                sealed = job.sealed()
            for key in sealed:
                if key not in self._left and job.record.homes:
                    left += not self._leave_seal(cluster, job, key)
            if not left:
                self._mark(job)
        return left

    def _leave_seal(self, cluster: crossdock.Cluster, job: Job, key: ShuffleKey) -> bool:
        """Hand a seal to the homes that decide next, and to the store if there is one."""
        leave = job.leaves.of(key.name, key.generation)
        stored = self._stored(leave.publishing(job.record.epoch))
        try:
            seal = job.read_seal(key.name, key.generation)
            if seal is None:
                return True
            if stored is not None:
                with leave.held():
                    stored.leave(key, seal)
            with cluster.job(key.job) as attached:
                shuffle = attached.shuffle(key.name, partitions=1, generation=key.generation)
                try:
                    Seals(shuffle).leave(self._worker.url, seal)
                except SealLost:
                    if stored is None:
                        raise
        except Gone as error:
            if not isinstance(error, SealLost):
                return True  # released, or the job ended
            self._note(f"seal of {key.job}/{key.name}: {error}")
            return False
        except CrossdockError as error:
            self._note(f"seal of {key.job}/{key.name}: {error}")
            return False
        self._left.add(key)
        return True

    def _mark(self, job: Job) -> None:
        """Tell the store that this home has left all its seals: once all have, it decides."""
        leave = job.leaves.of("", 0)  # of the whole job: no shuffle is called so
        stored = self._stored(leave)
        if stored is None or job.uid in self._marked or not job.record.homes:
            return
        try:
            with leave.held():
                stored.close_home(job.uid, self._worker.identity.id)
        except CrossdockError as error:
            self._note(f"job {job.uid}: {error}")
        else:
            self._marked.add(job.uid)

    def _stored(self, stop: Stop) -> StoredSeals | None:
        persister = self._worker.persister
        if persister is None:
            return None
        return StoredSeals(persister.store.stopped_by(stop), self._worker.settings.cluster)
