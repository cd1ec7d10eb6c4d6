"""What happens to one job, told once by this operator: events are bounded, and logged."""

from dataclasses import dataclass, field
from typing import Final

import structlog

from crossdock_operator.events import Events
from crossdock_operator.kinds import SHUFFLE_JOB
from crossdock_operator.kube import Kube
from crossdock_operator.records import Job

_MOST: Final = 200
"""Events of one job; a job that fails and repairs for ever shall not fill the API server."""

log = structlog.get_logger()


@dataclass(slots=True)
class Teller:
    """Tells of one job."""

    kube: Kube
    _told: set[tuple[str, str]] = field(default_factory=set)

    async def tell(self, job: Job, reason: str, message: str, *, warning: bool = False) -> None:
        """Write an event, unless it was written before."""
        if (reason, message) in self._told or len(self._told) >= _MOST:
            return
        self._told.add((reason, message))
        log.info(message, job=job.key, reason=reason)
        await Events(self.kube).tell(SHUFFLE_JOB, job, reason, message, warning=warning)
