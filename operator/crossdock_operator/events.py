"""Events of Kubernetes: each step that a person cares about, told once.

An event's name is made of what it tells, so an operator that takes over does not tell it again. One
that cannot be written is dropped: it only tells what the status says too.
"""

import datetime as dt
import hashlib
from dataclasses import dataclass

import structlog

from crossdock_operator.api.common import API_VERSION
from crossdock_operator.errors import KubeError, Stale
from crossdock_operator.kinds import EVENT, Kind
from crossdock_operator.kube import Kube
from crossdock_operator.plan.names import MANAGER
from crossdock_operator.records import Cluster, Job

_MESSAGE_CHARACTERS = 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Events:
    """Where they are written."""

    kube: Kube

    async def tell(
        self,
        kind: Kind,
        about: Job | Cluster,
        reason: str,
        message: str,
        *,
        mark: str = "",
        warning: bool = False,
    ) -> None:
        """Write an event about one of our objects, unless it is there.

        Args:
            kind: of the object.
            about: the object.
            reason: in one word.
            message: for people.
            mark: of one that comes again, what tells it from the one before.
            warning: whether somebody should act.
        """
        told = "/".join(filter(None, (about.uid, reason, message, mark)))
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace, name = about.key
        body = {
            "metadata": {"namespace": namespace, "name": f"{name[:200]}.{digest}"},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": kind.name,
                "namespace": namespace,
                "name": name,
                "uid": about.uid,
            },
            "reason": reason,
            "message": message[:_MESSAGE_CHARACTERS],
            "type": "Warning" if warning else "Normal",
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self.kube.create(EVENT, body)
        except Stale:
            pass  # it was told before
        except KubeError as error:
            log.info("an event is not written", reason=reason, error=str(error))
