"""Events of Kubernetes: each step that a person cares about, told once.

An event's name is made of what it tells, so an operator that takes over does not tell it again. One
that cannot be written is dropped: it only tells what the status says too.
"""

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from typing import Final

import structlog

from crossdock_operator.api.common import API_VERSION
from crossdock_operator.errors import KubeError, Stale
from crossdock_operator.kinds import EVENT, SHUFFLE_JOB, Object
from crossdock_operator.kube import Kube
from crossdock_operator.plan.names import MANAGER
from crossdock_operator.records import Job

NORMAL: Final = "Normal"
WARNING: Final = "Warning"
_MESSAGE_CHARACTERS: Final = 1000
_MOST: Final = 200
"""Events of one job; a job that fails and repairs for ever shall not fill the API server."""

log = structlog.get_logger()


@dataclass(slots=True)
class Teller:
    """Tells of one job."""

    kube: Kube
    _told: set[str] = field(default_factory=set)

    async def tell(self, job: Job, reason: str, message: str, *, kind: str = NORMAL) -> None:
        """Write an event, unless it was written before."""
        name = _name(job, reason, message)
        if name in self._told or len(self._told) >= _MOST:
            return
        self._told.add(name)
        log.info(message, job=job.key, reason=reason)
        try:
            await self.kube.create(EVENT, _event(job, name, reason, message, kind))
        except Stale:
            pass  # an earlier operator has told it
        except KubeError as error:
            log.debug("an event is not written", job=job.key, error=str(error))


def _name(job: Job, reason: str, message: str) -> str:
    digest = hashlib.sha256(f"{job.uid}/{reason}/{message}".encode()).hexdigest()[:16]
    return f"{job.key.name}.{digest}"


def _event(job: Job, name: str, reason: str, message: str, kind: str) -> Object:
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"name": name, "namespace": job.key.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": SHUFFLE_JOB.name,
            "namespace": job.key.namespace,
            "name": job.key.name,
            "uid": job.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message[:_MESSAGE_CHARACTERS],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
