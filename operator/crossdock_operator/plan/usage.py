"""What jobs take up, for statuses, and whether what they hold outlives the workers."""

from dataclasses import dataclass

from crossdock.records import Persistence
from crossdock_operator.kinds import Object
from crossdock_operator.plan.conditions import NO, UNKNOWN, YES, Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one job, or several, over all workers that answer."""

    worker_bytes: int = 0
    store_bytes: int = 0
    disk_only_bytes: int = 0
    """On the workers' disks, of what no run has brought into the store."""
    store_requests: int = 0
    dollars: float = 0.0
    """Of these requests, estimated by the workers' prices."""
    whole: bool = True
    """Whether every worker there is has answered."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            worker_bytes=self.worker_bytes + other.worker_bytes,
            store_bytes=self.store_bytes + other.store_bytes,
            disk_only_bytes=self.disk_only_bytes + other.disk_only_bytes,
            store_requests=self.store_requests + other.store_requests,
            dollars=self.dollars + other.dollars,
            whole=self.whole and other.whole,
        )

    def to_json(self) -> Object:
        """Return the fields of a status."""
        return {
            "workerBytes": self.worker_bytes,
            "storeBytes": self.store_bytes,
            "diskOnlyBytes": self.disk_only_bytes,
            "storeRequests": self.store_requests,
            "estimatedCost": f"{self.dollars:.4f}",
        }


FIELDS = frozenset(Usage().to_json())
"""Names of the fields that it makes."""


def data_durable(policy: str, usage: Usage) -> Answer:
    """Return the condition DataDurable: whether a job's data outlives all workers.

    Args:
        policy: when its data is persisted.
        usage: what it takes up.
    """
    kind = "DataDurable"
    if not usage.whole:
        return Answer(kind, UNKNOWN, "WorkersSilent", "not every worker says what it has")
    if policy == Persistence.BEFORE_ACK:
        return Answer(kind, YES, "BeforeAck", "nothing is acked before it is in the store")
    if not usage.disk_only_bytes:
        held = usage.worker_bytes or usage.store_bytes
        return Answer(kind, YES, "Persisted" if held else "NoData")
    if policy == Persistence.EAGER:
        said = "some of it is not in the store yet"
        return Answer(kind, NO, "Persisting", said)
    when = "never goes" if policy == Persistence.NEVER else "goes only under pressure"
    said = f"some of it is on the workers' disks alone, and {when} to the store"
    return Answer(kind, NO, "OnDisks", f"{said}: persistence is {policy}")
