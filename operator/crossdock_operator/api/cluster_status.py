"""The status of a `ShuffleCluster`: what the operator saw last."""

from dataclasses import dataclass
from typing import Annotated

from crossdock_operator.api.common import Conditions
from crossdock_operator.api.fields import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersStatus:
    """Worker pods by state."""

    replicas: Annotated[int, "Pods there are."] = 0
    ready: Annotated[int, "Pods that take frames."] = 0
    updated: Annotated[int, "Pods of the current spec."] = 0
    draining: Annotated[int, "Pods that are about to go."] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageStatus:
    """What the newest audit found."""

    last_audit_time: Annotated[str, "When it ended.", Text(40)] = ""
    store_bytes: Annotated[int, "Bytes in the store, of jobs that live."] = 0
    worker_bytes: Annotated[int, "Bytes on the workers' disks."] = 0
    orphans: Annotated[int, "Objects, uploads and files that are of no job, and still there."] = 0
    orphan_bytes: Annotated[int, "Their bytes."] = 0
    deleted_orphans: Annotated[int, "Those that the audit deleted."] = 0
    audit_requests: Annotated[int, "Requests to the store that the audit took."] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageStatus:
    """What the workers say of all their jobs."""

    worker_bytes: Annotated[int, "Bytes on the workers' disks."] = 0
    store_bytes: Annotated[int, "Bytes that they have brought into the store."] = 0
    disk_only_bytes: Annotated[int, "Of those on disks, bytes that the store does not have."] = 0
    store_requests: Annotated[int, "Requests to the store since each worker began."] = 0
    estimated_cost: Annotated[str, "Dollars that these requests cost, estimated.", Text(32)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleClusterStatus:
    """What the operator saw last."""

    observed_generation: Annotated[int, "Generation of the spec that this is about."] = 0
    phase: Annotated[
        str, "Pending, Progressing, Ready, Degraded, Paused or Deleting.", Text(32)
    ] = ""
    workers: Annotated[WorkersStatus | None, "Worker pods by state."] = None
    summary: Annotated[str, "Ready pods of those wanted, such as 3/4.", Text(32)] = ""
    selector: Annotated[str, "Label selector of the worker pods.", Text(1024)] = ""
    endpoint: Annotated[str, "URL at which jobs reach the workers.", Text(1024)] = ""
    usage: Annotated[UsageStatus | None, "What jobs take up."] = None
    storage: Annotated[StorageStatus | None, "What the newest audit found."] = None
    conditions: Annotated[Conditions, "Answers about the cluster."] = ()
