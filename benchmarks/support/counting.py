"""Requests to an S3 server, counted where they come in: by a proxy that passes them on."""

from collections import Counter
from urllib.parse import unquote, urlsplit

from faults import FaultyProxy, Request

from crossdock.store.accounting import WRITES
from crossdock.store.api import Verb
from crossdock.store.layout import LOG_SUFFIX


class CountingProxy(FaultyProxy):
    """Counts, and lets nothing fail. It holds whole bodies in memory: not for speed."""

    def begin(self) -> None:
        """Count from 0."""
        with self._lock:
            self.requests.clear()

    @property
    def counts(self) -> Counter[Verb]:
        """Requests by verb, but for writes of log objects, which `BeforeAck` makes."""
        with self._lock:
            return Counter(each.verb for each in self.requests if not _is_of_log(each))

    @property
    def writes(self) -> int:
        """Requests of the dear class."""
        return sum(number for verb, number in self.counts.items() if verb in WRITES)


def _is_of_log(request: Request) -> bool:
    return unquote(urlsplit(request.target).path).endswith(LOG_SUFFIX)
