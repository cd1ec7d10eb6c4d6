"""ShuffleClusters and ShuffleJobs as rows of tables, for people and for machines."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossdock_operator.api.cluster import ShuffleClusterSpec
from crossdock_operator.api.reading import read
from crossdock_operator.kinds import Object


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRow:
    """A ShuffleCluster."""

    namespace: str
    name: str
    phase: str
    workers: str
    """Ready pods of those wanted, such as 3/4."""
    worker_bytes: int
    """On the workers' disks, at the newest audit."""
    disk_bytes: int
    """Of all the workers' volumes; 0: nobody says."""
    store_bytes: int
    orphans: int
    orphan_bytes: int
    audited: str
    """When the newest audit ended, RFC 3339; empty: there was none."""

    @property
    def fill(self) -> float | None:
        """Share of the disks that was in use at the newest audit; None: not known."""
        if not self.disk_bytes or not self.audited:
            return None
        return self.worker_bytes / self.disk_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """A stage of a ShuffleJob."""

    name: str
    phase: str
    tasks: int
    done: int
    attempts: int
    partitions: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A ShuffleJob."""

    namespace: str
    name: str
    cluster: str
    phase: str
    progress: str
    stages: tuple[StageRow, ...]
    worker_bytes: int
    store_bytes: int
    store_requests: int
    created: str


def cluster_row(body: Object) -> ClusterRow:
    """Return the row of a ShuffleCluster."""
    metadata, status = body["metadata"], _part(body, "status")
    storage = _part(status, "storage")
    return ClusterRow(
        namespace=metadata["namespace"],
        name=metadata["name"],
        phase=_phase(body),
        workers=str(status.get("summary", "")),
        worker_bytes=_count(storage, "workerBytes"),
        disk_bytes=_disk_bytes(body, _count(_part(status, "workers"), "replicas")),
        store_bytes=_count(storage, "storeBytes"),
        orphans=_count(storage, "orphans"),
        orphan_bytes=_count(storage, "orphanBytes"),
        audited=str(storage.get("lastAuditTime", "")),
    )


def job_row(body: Object) -> JobRow:
    """Return the row of a ShuffleJob."""
    metadata, status = body["metadata"], _part(body, "status")
    reference = _part(body["spec"], "clusterRef")
    namespace = reference.get("namespace")
    name = str(reference.get("name", "default"))
    return JobRow(
        namespace=metadata["namespace"],
        name=metadata["name"],
        cluster=f"{namespace}/{name}" if namespace else name,
        phase=_phase(body),
        progress=str(status.get("progress", "")),
        stages=tuple(
            StageRow(
                name=str(stage["name"]),
                phase=str(stage.get("phase", "")),
                tasks=_count(stage, "tasks"),
                done=_count(stage, "done"),
                attempts=_count(stage, "attempts"),
                partitions=_count(stage, "partitions"),
                bytes=_count(stage, "bytes"),
            )
            for stage in status.get("stages") or ()
        ),
        worker_bytes=_count(status, "workerBytes"),
        store_bytes=_count(status, "storeBytes"),
        store_requests=_count(status, "storeRequests"),
        created=str(metadata["creationTimestamp"]),
    )


def age(time: str, now: dt.datetime) -> str:
    """Return how long ago a time of the API server is, such as "5m"; "-": never."""
    if not time:
        return "-"
    seconds = max(0.0, (now - dt.datetime.fromisoformat(time)).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.0f}s"


def _phase(body: Object) -> str:
    """Return the phase; what nobody has looked at yet has none."""
    return str(_part(body, "status").get("phase") or "New")


def _disk_bytes(body: Object, pods: int) -> int:
    storage = read(ShuffleClusterSpec, body["spec"]).workers.storage
    if storage.volume_claim is not None:
        return pods * storage.volume_claim.size
    if storage.empty_dir is not None and storage.empty_dir.size_limit is not None:
        return pods * storage.empty_dir.size_limit
    return 0


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = body.get(name) or {}
    return found


def _count(body: Mapping[str, Any], name: str) -> int:
    return int(body.get(name) or 0)
