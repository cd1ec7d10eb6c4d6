"""What all that is done for jobs shares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from crossdock_operator.jobs.workers import Workers
from crossdock_operator.kube import Kube
from crossdock_operator.records import Item
from crossdock_operator.store import Store

AGAIN_SECONDS: Final = 5.0
"""After so long workers are asked again that did not answer."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Of one operator process."""

    kube: Kube
    store: Store
    workers: Workers
    wake: Callable[[Item, float], None]
    """Has a job looked at, at the latest after so many seconds."""
