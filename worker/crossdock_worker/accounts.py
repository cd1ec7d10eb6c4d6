"""What a job takes, by tier, and what is told of it. Cheap: asked for at each of its words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossdock.errors import QuotaExceeded
from crossdock_worker.job import Job
from crossdock_worker.life import clock
from crossdock_worker.shuffle_log import ShuffleLog


@dataclass(frozen=True, slots=True)
class Tiers:
    """Bytes of one job, or several, on one worker."""

    disk: int = 0
    """Of its logs on this disk."""
    freed: int = 0
    """On this disk, given back since the store has them."""
    store: int = 0
    """Of payload that this worker has brought into the store; what was released counts until it is
    deleted there for the first time."""
    only_here: int = 0
    """On this disk, of frames that the store does not have."""

    def __add__(self, other: "Tiers") -> "Tiers":
        return Tiers(
            self.disk + other.disk,
            self.freed + other.freed,
            self.store + other.store,
            self.only_here + other.only_here,
        )


def tiers(job: Job) -> Tiers:
    """Return what a job takes on this worker."""
    logs = job.logs()
    holdings = [log.holdings() for log in logs]
    return Tiers(
        job.disk_bytes,
        sum(log.freed_bytes for log in logs),
        sum(log.runs.stored_bytes for log in logs) + job.gone.bytes_left,
        sum(held.complete_bytes + held.unfinished_bytes for held in holdings),
    )


def persisted_bytes(job: Job) -> int:
    """Return the bytes of payload that finished runs have brought into the store."""
    return sum(log.runs.payload_bytes for log in job.logs())


def check_disk_quota(job: Job, more: int, default_bytes: int) -> None:
    """Raise `QuotaExceeded` when `more` bytes on this disk would be over a job's quota.

    Args:
        job: whose quota; the lower one of its own and the worker's holds.
        more: bytes.
        default_bytes: the worker's; 0: none.
    """
    quota = _lower(job.record.quota_bytes, default_bytes)
    if quota and job.disk_bytes + more > quota:
        raise QuotaExceeded(
            f"job {job.uid} has {job.disk_bytes} bytes here and its quota is {quota}"
        )


def check_store_quota(job: Job, more: int, default_bytes: int) -> None:
    """Raise `QuotaExceeded` when `more` bytes in the store would be over; see the disk's."""
    quota = _lower(job.record.store_quota_bytes, default_bytes)
    stored = tiers(job).store if quota else 0
    if quota and stored + more > quota:
        raise QuotaExceeded(
            f"job {job.uid} has {stored} bytes of this worker in the store and its quota there is "
            f"{quota}"
        )


def _lower(one: int, other: int) -> int:
    return min((quota for quota in (one, other) if quota), default=0)


def by_job_and_tenant(jobs: Sequence[Job]) -> tuple[dict[str, Tiers], dict[str, Tiers]]:
    """Return what jobs take, each by its uid, and together by their tenants."""
    found = {job.uid: tiers(job) for job in jobs}
    tenants: dict[str, Tiers] = {}
    for job in jobs:
        tenant = job.record.tenant
        tenants[tenant] = tenants.get(tenant, Tiers()) + found[job.uid]
    return found, tenants


def overview(
    uid: str, job: Job | None, uptime_seconds: float, use: Mapping[str, object]
) -> dict[str, object]:
    """Return what `GET /v1/jobs` answers of a job, also if its files are damaged (None).

    Args:
        uid: of the job.
        job: what is known of it.
        uptime_seconds: of the worker.
        use: of the store, by the job: `Worker.store_use`.
    """
    age = uptime_seconds if job is None else clock() - job.life.since
    used = Tiers() if job is None else tiers(job)
    return {
        "uid": uid,
        "owner": None if job is None else job.record.owner,
        "fenced": job is not None and job.fenced,
        "age_seconds": round(age, 3),
        "disk_bytes": 0 if job is None else job.disk_bytes,
        "store": {
            "stored_bytes": used.store,
            "only_here_bytes": used.only_here,
            "requests": use["requests"],
            "dollars": use["dollars"],
        },
        "demand": [] if job is None else [each.to_json() for each in job.demands.reports()],
    }


def describe(job: Job) -> dict[str, object]:
    """Return what `GET /v1/jobs/{uid}` answers of the job itself."""
    return {
        "uid": job.uid,
        "record": job.record.to_json(),
        "introduced": job.introduced,
        **job.life.describe(job.standing),
        "disk_bytes": job.disk_bytes,
        "released": dict(job.gone.generations),
        "demand": [each.to_json() for each in job.demands.reports()],
        "shuffles": [
            _describe(log)
            for log in sorted(job.logs(), key=lambda s: (s.key.name, s.key.generation))
        ],
    }


def _describe(log: ShuffleLog) -> dict[str, object]:
    frames, pieces = log.counts
    return {
        "name": log.key.name,
        "generation": log.key.generation,
        "partitions": log.partitions,
        "frames": frames,
        "pieces": pieces,
        "disk_bytes": log.disk_bytes,
        "freed_bytes": log.freed_bytes,
    }
