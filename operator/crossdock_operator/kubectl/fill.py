"""What workers hold now, as the operator's page says."""

from collections.abc import Mapping
from dataclasses import dataclass

from crossdock.errors import ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFill:
    """A worker."""

    namespace: str
    cluster: str
    url: str
    state: str
    disk_used: float | None
    """Share of its disk; None: it does not answer."""
    inflight_bytes: int | None
    """Of frames that it is receiving."""
    store: bool
    """Whether it has a store."""


def fills(namespace: str, cluster: str, answer: object) -> list[WorkerFill]:
    """Read what the page answers of one cluster's workers.

    Raises:
        ProtocolError: it is not what this version understands.
    """
    workers = answer.get("workers") if isinstance(answer, Mapping) else None
    if not isinstance(workers, list):
        raise ProtocolError("the operator's answer has no workers", hint="is it of this version?")
    return [_fill(namespace, cluster, each) for each in workers if isinstance(each, Mapping)]


def _fill(namespace: str, cluster: str, said: Mapping[str, object]) -> WorkerFill:
    used, flying = said.get("disk_used"), said.get("inflight_bytes")
    return WorkerFill(
        namespace=namespace,
        cluster=cluster,
        url=str(said.get("url", "")),
        state=str(said.get("state", "")),
        disk_used=float(used) if isinstance(used, int | float) else None,
        inflight_bytes=flying if isinstance(flying, int) else None,
        store=said.get("store") is True,
    )
