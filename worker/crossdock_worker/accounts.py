"""What a job takes, by tier, and what is told of it. Cheap: asked for at each of its words."""

from crossdock_worker.job import Job
from crossdock_worker.life import clock
from crossdock_worker.shuffle_log import ShuffleLog


def persisted_bytes(job: Job) -> int:
    """Return the bytes of payload that this worker has brought into the store."""
    return sum(log.runs.payload_bytes for log in job.logs())


def freed_bytes(job: Job) -> int:
    """Return the bytes on this disk that were given back since the store has them."""
    return sum(log.freed_bytes for log in job.logs())


def overview(uid: str, job: Job | None, uptime_seconds: float) -> dict[str, object]:
    """Return what `GET /v1/jobs` answers of a job, also if its files are damaged (None)."""
    age = uptime_seconds if job is None else clock() - job.life.since
    return {
        "uid": uid,
        "fenced": job is not None and job.fenced,
        "age_seconds": round(age, 3),
        "disk_bytes": 0 if job is None else job.disk_bytes,
    }


def describe(job: Job) -> dict[str, object]:
    """Return what `GET /v1/jobs/{uid}` answers of the job itself."""
    return {
        "uid": job.uid,
        "record": job.record.to_json(),
        "introduced": job.introduced,
        **job.life.describe(job.standing),
        "disk_bytes": job.disk_bytes,
        "released": job.released,
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
