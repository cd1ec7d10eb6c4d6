"""What a job takes up: on the workers' disks, in the store, and of requests."""

from collections.abc import Mapping
from dataclasses import dataclass

from crossdock.errors import JobUnknown, ProtocolError
from crossdock.job import Job as Handle


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one job, over all workers that answer."""

    worker_bytes: int = 0
    store_bytes: int = 0
    store_requests: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            worker_bytes=self.worker_bytes + other.worker_bytes,
            store_bytes=self.store_bytes + other.store_bytes,
            store_requests=self.store_requests + other.store_requests,
        )


def usage_of(handle: Handle) -> Usage:
    """Ask every worker what a job takes up.

    Raises:
        Unavailable: no worker answers.
    """
    cluster = handle.cluster

    def call(url: str) -> Usage:
        with cluster.pool.call("GET", url, handle.path) as response:
            return _read(response.read_json())

    found = cluster.ask_each(cluster.members(), call, ignore=(JobUnknown,))
    return sum(found.answers.values(), Usage())


def _read(value: object) -> Usage:
    if not isinstance(value, Mapping):
        raise ProtocolError("a job's description is no JSON object")
    store = value.get("store")
    store = store if isinstance(store, Mapping) else {}
    return Usage(
        worker_bytes=_count(value, "disk_bytes"),
        store_bytes=_count(store, "stored_bytes"),
        store_requests=_count(store, "requests"),
    )


def _count(value: Mapping[object, object], name: str) -> int:
    found = value.get(name)
    return found if isinstance(found, int) else 0
