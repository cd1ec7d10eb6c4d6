"""What must hold at every moment of a simulated history, seen from outside of it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sim_loop import Loop, Violation

from crossdock.records import Owner
from crossdock.store.layout import place_of

if TYPE_CHECKING:
    from sim_bucket import Bucket, Content, Write

CLUSTER = "c1"


@dataclass(slots=True)
class Truth:
    """What is true of a job, whatever anybody believes."""

    owner: Owner
    heard: float
    """When a word of its owner last reached any worker, and later by the time in which none was
    there to hear one."""
    ended: bool = False
    """It may be deleted: somebody said so, or it was silent everywhere for lease and grace."""
    wished: bool = False
    """Its owner said so, and a worker has taken it."""
    released: dict[str, int] = field(default_factory=dict)
    epoch: int = 0
    """The highest whose owner has been told that it has taken over."""
    reported: bool = False
    void: bool = False
    """The only disk that knew a fence was lost: only the sweep helps then."""
    proved_releases: dict[str, int] = field(default_factory=dict)


class Checks:
    """Raises `Violation`."""

    def __init__(self, loop: Loop, *, patience: float, breaks_bound: bool) -> None:
        self.loop = loop
        self.patience = patience
        """Lease and grace together."""
        self.breaks_bound = breaks_bound
        self.jobs: dict[str, Truth] = {}
        self.deaf_since: float | None = None
        """Since when no worker runs."""
        self.fenced: set[tuple[str, str]] = set()
        """(worker id, job) of fences that were acknowledged."""
        self.dropped: dict[tuple[str, str, str], int] = {}
        """By (worker id, job, shuffle), the first generation that it has not agreed to drop."""
        self.reads = 0
        self.manifests = 0
        self.reports = 0

    def fail(self, what: str) -> None:
        raise Violation(what)

    # -- which jobs live ---------------------------------------------------------------------

    def heard(self, job: str, epoch: int) -> None:
        truth = self.jobs[job]
        if self.lives(job) and epoch >= truth.epoch:
            truth.heard = self.loop.now

    def listening(self, *, somebody: bool) -> None:
        """Note whether any worker runs. While none does, no owner is silent."""
        if not somebody:
            self.deaf_since = self.loop.now if self.deaf_since is None else self.deaf_since
        elif self.deaf_since is not None:
            for truth in self.jobs.values():
                silent = max(0.0, self.deaf_since - truth.heard)
                truth.heard = self.loop.now - silent
            self.deaf_since = None

    def lives(self, job: str) -> bool:
        truth = self.jobs.get(job)
        if truth is None or truth.ended:
            return False
        now = self.loop.now if self.deaf_since is None else self.deaf_since
        silent = now - truth.heard >= self.patience
        if silent and truth.owner is not Owner.CLUSTER:
            truth.ended = True
        return not truth.ended

    def released(self, job: str, shuffle: tuple[str, int]) -> bool:
        return shuffle[1] < self.jobs[job].released.get(shuffle[0], 0)

    # -- workers -----------------------------------------------------------------------------

    def acked_fence(self, worker: str, job: str, epoch: int) -> None:
        truth = self.jobs[job]
        self.fenced.add((worker, job))
        if epoch < truth.epoch and not truth.void and not truth.ended:
            self.fail(f"{worker} took a fence of {job} from an owner of epoch {epoch}")
        if self.lives(job):
            self.fail(f"{worker} was made to fence {job}, which lives")

    def acked_release(self, worker: str, job: str, name: str, first: int) -> None:
        key = worker, job, name
        self.dropped[key] = max(first, self.dropped.get(key, 0))

    def local_removed(self, worker: str, job: str, shuffle: tuple[str, int]) -> None:
        if self.lives(job) and not self.released(job, shuffle):
            self.fail(f"{worker} deleted files of {job}, which lives")

    def refused(self, job: str, why: str) -> None:
        if self.jobs[job].owner is Owner.CLUSTER and self.lives(job) and why == "ended":
            self.fail(f"a frame of {job} was refused, and only the operator is silent")

    def sends(self, write: "Write") -> None:
        if (write.worker, write.job) in self.fenced:
            self.fail(f"{write.worker} writes for {write.job}, and has acknowledged its fence")
        name, generation = write.shuffle
        if generation < self.dropped.get((write.worker, write.job, name), 0):
            self.fail(f"{write.worker} writes for {write.job}/{name}, and has agreed to drop it")

    # -- the store ---------------------------------------------------------------------------

    def created(
        self, key: str, content: "Content | None", write: "Write", bucket: "Bucket"
    ) -> None:
        truth = self.jobs[write.job]
        if self.breaks_bound:
            return
        if truth.reported and not truth.void:
            self.fail(f"{key} came into being after it was proved that nothing of it is left")
        name, generation = write.shuffle
        if generation < truth.proved_releases.get(name, 0) and not truth.void:
            self.fail(f"{key} came into being after its shuffle was proved to be released")
        if content is None or content.kind not in ("record", "manifest"):
            return
        if write.epoch < truth.epoch and not truth.void and self.lives(write.job):
            self.fail(f"{key} was published by epoch {write.epoch}, {truth.epoch} had taken over")
        if self.loop.now > write.deadline + 1e-6:
            self.fail(f"{key} was published after the lease it relied on")
        if self.lives(write.job) and not self.released(write.job, write.shuffle):
            self.manifests += content.kind == "manifest"
            for segment in content.segments:
                if segment not in bucket.objects:
                    self.fail(f"{key} names {segment}, which is gone")

    def removed(self, key: str, content: "Content | None", by: str, *, named: bool) -> None:
        place = place_of(key)
        if place is None or place.cluster != CLUSTER or place.job not in self.jobs:
            self.fail(f"{by} deleted {key}, which is foreign")
        parts = key.split("/")
        if not self.lives(place.job) or self.released(place.job, (parts[3], int(parts[4]))):
            return
        if by != "undo":
            self.fail(f"{by} deleted {key} of a job that lives")
        counts = content is not None and content.kind in ("record", "manifest")
        if (named or counts) and not self.breaks_bound:
            self.fail(f"a run was undone, and {key} counts")

    def read(self, bucket: "Bucket", job: str) -> None:
        """Read all views of a job straight from the store."""
        if not self.lives(job) or self.breaks_bound:
            return
        prefix = f"{CLUSTER}/{job}/"
        for key, (content, _) in list(bucket.objects.items()):
            if content.kind not in ("manifest", "record") or not key.startswith(prefix):
                continue
            parts = key.split("/")
            if self.released(job, (parts[3], int(parts[4]))):
                continue
            self.reads += 1
            got: set[int] = set()
            for segment in content.segments:
                if segment not in bucket.objects:
                    self.fail(f"a read of {key} is short of {segment}")
                got |= bucket.objects[segment][0].attempts
            if got != content.attempts:
                self.fail(f"a read of {key} got attempts {got} for {set(content.attempts)}")

    def reported(self, job: str, bucket: "Bucket") -> None:
        truth = self.jobs[job]
        truth.reported = True
        self.reports += 1
        left = self.left_in_store(job, bucket)
        if left and not self.breaks_bound and not truth.void:
            self.fail(f"{job} was reported as deleted, but there is {left[0]}")

    def left_in_store(self, job: str, bucket: "Bucket") -> list[str]:
        prefix = f"{CLUSTER}/{job}/"
        left = [k for k in bucket.objects if k.startswith(prefix)]
        if bucket.lists_uploads or not self.breaks_bound:
            # An upload that comes after the proof, on a server that cannot list it, is found by
            # nobody but the bucket's own rules.
            left += [f"upload {u}" for u, (k, _) in bucket.uploads.items() if k.startswith(prefix)]
        return left

    def summary(self) -> dict[str, Any]:
        return {"reads": self.reads, "manifests": self.manifests, "reports": self.reports}
