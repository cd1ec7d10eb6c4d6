"""A job: registered and kept alive by its owner, attached to by its tasks."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from crossdock.cancel import Cancel
from crossdock.cleanup.deleting import Deleted
from crossdock.cleanup.jobs import end_job
from crossdock.demand import Demand
from crossdock.errors import (
    CrossdockError,
    DataCorrupt,
    JobUnknown,
    LeaseEnded,
    ProtocolError,
    Unavailable,
)
from crossdock.records import JobRecord, Owner
from crossdock.renewal import Renewal
from crossdock.retry import patiently
from crossdock.shuffle import Shuffle
from crossdock.speaking import Speaker, record_of
from crossdock.survey import Members, Silences
from crossdock.views import ShuffleKey
from crossdock.wire import names

if TYPE_CHECKING:
    from crossdock.cluster import Cluster

T = TypeVar("T")


class Job:
    """An open job. The owner's renews the lease until it is closed. Thread-safe."""

    def __init__(self, cluster: "Cluster", uid: str, record: JobRecord | None) -> None:
        """Use `Cluster.job`. `record` None attaches."""
        self.uid = uid
        self.cluster = cluster
        self.is_owner = record is not None
        """Whether this process has registered it."""
        self.met: set[str] = set()
        """Ids of the workers that its owner has met since, and of its homes."""
        self.met_all = record is not None and record.epoch == 0
        """Whether they are all that ever were: nobody owned it before."""
        self._silences = Silences(cluster.options.loss_after_seconds)
        self._renewal: Renewal | None = None
        self._speaker = Speaker(cluster, self.path)
        self.released: dict[str, int] = {}
        """By shuffle, the first generation that this process has not released."""
        deadline = cluster.options.deadline_seconds
        if record is None:
            self.record = patiently(self._fetch, deadline_seconds=deadline)
        else:
            self.record = record
            self.record = patiently(self._register, deadline_seconds=deadline)
            if record.owner is not Owner.CLUSTER:  # its silence ends nothing
                seconds = record.lease_seconds
                self._renewal = Renewal(self._register, job=uid, lease_seconds=seconds)

    @property
    def epoch(self) -> int:
        """The epoch that this process writes under."""
        return self.record.epoch

    @property
    def path(self) -> str:
        """The job's URL path."""
        return names.job_path(self.uid)

    def shuffle(
        self, name: str, *, partitions: int, maps: int | None = None, generation: int = 0
    ) -> Shuffle:
        """Return a shuffle of this job; nothing is sent yet.

        Args:
            name: 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit.
            partitions: P, at least 1.
            maps: M, needed only for views without winners.
            generation: grows when the shuffle is computed again after a release.
        """
        names.check_name("shuffle", name)
        names.check_u32("generation", generation)
        return Shuffle(
            self, ShuffleKey(self.uid, name, generation), partitions=partitions, maps=maps
        )

    def held_bytes(self) -> dict[str, int]:
        """Return shuffle → bytes that the workers which answer hold of it on their disks."""
        held: dict[str, int] = {}
        for shuffles in self.cluster.each_worker(self.cluster.members(), self._shuffles).values():
            for name, size in shuffles if isinstance(shuffles, list) else ():
                held[name] = held.get(name, 0) + size
        return held

    def away_homes(self, members: Members, began: float) -> frozenset[str]:
        """Return the homes of its seals that do not answer, and are not lost yet, by their ids.

        Workers forget whom they met when they start again, so who asks others alone may never hear
        of a worker that is away. The homes are all there were when the job began.

        Args:
            members: who answers.
            began: when they were asked, monotonic.
        """
        absent = set(self.record.homes) - members.reachable.keys() - members.lost_ids
        return self._silences.still_away(absent, began)

    def may_be_stored(self) -> bool:
        """Whether something of it may be in the store and nowhere else.

        So it is when a worker has persisted some of it, or one of its homes does not answer: that
        may have drained. Then it is worth a request to the store.
        """
        members = self.cluster.members()
        if not set(self.record.homes) <= members.reachable.keys():
            return True
        found = self.cluster.ask_each(members, self._persisted_bytes, ignore=(JobUnknown,))
        return any(found.answers.values())

    def _persisted_bytes(self, url: str) -> int:
        with self.cluster.pool.call("GET", url, self.path) as response:
            value = response.read_json()
        store = value.get("store") if isinstance(value, dict) else None
        count = store.get("persisted_bytes") if isinstance(store, dict) else None
        return count if isinstance(count, int) else 0

    def _shuffles(self, url: str) -> list[tuple[str, int]]:
        with self.cluster.pool.call("GET", url, self.path) as response:
            value = response.read_json()
        try:
            return [(str(s["name"]), int(s["disk_bytes"])) for s in value["shuffles"]]  # type: ignore[index]
        except (TypeError, KeyError, ValueError) as error:
            raise ProtocolError(f"{url}{self.path} answers no job: {error!r}") from error

    def say(self) -> None:
        """Tell every worker that answers of the job, once: for an owner without a lease to renew.

        Raises:
            JobFenced: the job was ended.
            Unavailable: no worker answers; call again.
        """
        self._register()

    def ask(self, url: str, call: Callable[[], T], *, cancel: Cancel | None = None) -> T:
        """Return what `call` does of the job at a worker, which is told of the job if need be.

        One that does not know it is told here. One that began anew has to hear the owner, and does
        so soon if this process is it.
        """
        try:
            return call()
        except JobUnknown:
            self.introduce(url, cancel=cancel)
            return call()
        except LeaseEnded:
            if self._renewal is not None:
                self._renewal.soon()
            raise

    def introduce(self, url: str, *, cancel: Cancel | None = None) -> None:
        """Tell a worker of the job that does not know it: it came later, or was away."""
        body = json.dumps(self.record.to_json()).encode()
        pool = self.cluster.pool
        with pool.call("PUT", url, self.path, body=body, cancel=cancel) as response:
            response.read()

    def report_demand(
        self,
        tasks: int = 0,
        *,
        reporter: str,
        busy: Mapping[str, int] | None = None,
        valid_seconds: float = 60.0,
    ) -> None:
        """Say how many executors an attached engine needs; the operator scales them by that.

        Call it whenever that changes, and at least twice in `valid_seconds`.

        Args:
            tasks: of the engine, that run or could if there were executors; by one reporter alone.
            reporter: who says so, such as the name of the pod.
            busy: executor (pod) → tasks that run there or whose data is not acked; 0: it may go.
            valid_seconds: for how long it holds, at most 3600.

        Raises:
            Unavailable: no worker took it.
            JobFenced: the job was ended.
        """
        demand = Demand(
            reporter=reporter, tasks=tasks, busy=busy or {}, valid_seconds=valid_seconds
        )
        body = json.dumps(Demand.from_json(demand.to_json()).to_json()).encode()
        deadline = min(self.cluster.options.deadline_seconds, valid_seconds)
        patiently(lambda: self._report(body), deadline_seconds=deadline)

    def _report(self, body: bytes) -> None:
        problem: CrossdockError | None = None
        for worker in self.cluster.members().reachable:
            url = self.cluster.url(worker)
            try:
                with self.cluster.pool.call("PUT", url, f"{self.path}/demand", body=body) as answer:
                    answer.read()
            except (JobUnknown, Unavailable) as error:
                problem = error
            else:
                return
        raise Unavailable(f"job {self.uid}: no worker took its demand: {problem}")

    def end(self, *, cancel: Cancel | None = None) -> Deleted:
        """End the job: it is refused from now on, and all of it is deleted, up to the proof.

        A worker that does not answer is waited for, for a lease if this process owns the job. If
        something of the job is, or may be, in the store that `Options.store` names, it takes until
        that has settled. Without `Options.store` workers with a store clean up there.

        Args:
            cancel: ends it at the next wait or request; call again, from any process.

        Raises:
            StaleEpoch: another owner took the job over.
            CleanupUnfinished: the deadline has passed; the message says what is left. Call again.
            Unavailable: no worker answers; call again.
            StoreDenied: the credentials do not list or delete.
            Closed: it was cancelled, or the cluster closed.
        """
        self.close()
        return end_job(self, cancel or self.cluster.pool.cancel)

    def _fetch(self) -> JobRecord:
        members = self.cluster.members()
        found = self._records()
        if not found:
            if members.unreachable:
                raise Unavailable(f"job {self.uid}: no worker that answers knows it")
            raise JobUnknown(f"no worker knows job {self.uid!r}")
        return max(found, key=lambda r: r.epoch)

    def _records(self) -> list[JobRecord]:
        """Return what workers were told by the owner; where nobody was, by tasks."""

        def call(url: str) -> tuple[JobRecord, bool]:
            with self.cluster.pool.call("GET", url, self.path) as response:
                described = response.read_json()
            record = record_of(described)
            return record, isinstance(described, dict) and described.get("introduced") is True

        members = self.cluster.members(fresh=True)
        found = self.cluster.ask_each(members, call, ignore=(JobUnknown,), collect=(DataCorrupt,))
        if found.collected and not found.answers:
            raise found.collected[0]
        records = found.answers.values()
        owners = [record for record, introduced in records if not introduced]
        return owners or [record for record, _ in records]

    def _register(self) -> JobRecord:
        """Register with every worker that answers. The homes are those of the first time."""
        members = self.cluster.members(fresh=True)
        self.met.update(members.reachable, members.lost_ids)
        record = self.record
        if not record.homes:
            homes = next((r.homes for r in self._records() if r.homes), None)
            record = replace(record, homes=homes or members.staying())
        self.met.update(record.homes)
        stored = self._speaker.speak(record, self.released, members)
        if not stored:
            raise Unavailable(f"no worker took the registration of job {self.uid}")
        return stored[0]

    def close(self) -> None:
        """Stop renewing the lease. The job lives on for its lease and grace. Idempotent."""
        self.cluster.forget(self)
        if self._renewal is not None:
            self._renewal.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
