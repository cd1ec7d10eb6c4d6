"""What jobs take up: on the workers' disks, in the store, and of requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from crossdock.cluster import Cluster as Client
from crossdock.errors import JobUnknown, ProtocolError
from crossdock.job import Job as Handle
from crossdock_operator.plan.usage import Usage


@dataclass(frozen=True, slots=True)
class ClusterUsage:
    """Of a cluster's workers."""

    total: Usage = field(default_factory=Usage)
    """Of all jobs that they have; requests also of earlier ones, since each worker began."""
    jobs: Mapping[str, Usage] = field(default_factory=dict)
    """By uid."""


def usage_of(handle: Handle) -> Usage:
    """Ask every worker what a job takes up.

    Raises:
        Unavailable: no worker answers.
    """
    cluster = handle.cluster

    def call(url: str) -> Usage:
        with cluster.pool.call("GET", url, handle.path) as response:
            return _usage(_object(response.read_json()))

    found = cluster.ask_each(cluster.members(), call, ignore=(JobUnknown,))
    return sum(found.answers.values(), Usage(whole=not found.away))


def usage_of_cluster(client: Client) -> ClusterUsage:
    """Ask every worker what all jobs take up.

    Raises:
        Unavailable: no worker answers.
    """

    def call(url: str) -> Mapping[object, object]:
        with client.pool.call("GET", url, "/v1/jobs") as response:
            return _object(response.read_json())

    found = client.ask_each(client.members(), call)
    none = Usage(whole=not found.away)
    jobs: dict[str, Usage] = {}
    asked = Usage()
    for answer in found.answers.values():
        asked += _usage({"store": answer.get("store")})
        listed = answer.get("jobs")
        for each in listed if isinstance(listed, list) else ():
            job = _object(each)
            uid = str(job.get("uid"))
            jobs[uid] = jobs.get(uid, none) + _usage(job)
    held = sum(jobs.values(), none)
    return ClusterUsage(
        Usage(
            worker_bytes=held.worker_bytes,
            store_bytes=held.store_bytes,
            disk_only_bytes=held.disk_only_bytes,
            store_requests=asked.store_requests,
            dollars=asked.dollars,
            whole=none.whole,
        ),
        jobs,
    )


def _object(value: object) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise ProtocolError("a worker's answer is no JSON object")
    return value


def _usage(described: Mapping[object, object]) -> Usage:
    store = described.get("store")
    store = store if isinstance(store, Mapping) else {}
    dollars = store.get("dollars")
    return Usage(
        worker_bytes=_count(described, "disk_bytes"),
        store_bytes=_count(store, "stored_bytes"),
        disk_only_bytes=_count(store, "only_here_bytes"),
        store_requests=_count(store, "requests"),
        dollars=float(dollars) if isinstance(dollars, int | float) else 0.0,
    )


def _count(value: Mapping[object, object], name: str) -> int:
    found = value.get(name)
    return found if isinstance(found, int) else 0
