"""Events for people: best effort, each where something happens once."""

import datetime as dt
import secrets
from dataclasses import dataclass

import structlog

from crossdock_operator.api.common import API_VERSION
from crossdock_operator.errors import KubeError
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
        self, kind: Kind, about: Job | Cluster, reason: str, message: str, *, warning: bool = False
    ) -> None:
        """Write an event about one of our objects; nothing is tried again."""
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace, name = about.key
        body = {
            "metadata": {"namespace": namespace, "name": f"{name[:200]}.{secrets.token_hex(8)}"},
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
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self.kube.create(EVENT, body)
        except KubeError as error:
            log.info("an event is not written", reason=reason, error=str(error))
