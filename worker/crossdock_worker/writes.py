"""When this process sent the store anything last that makes something of a job."""

import math
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from crossdock.lifecycle.stopping import idle_since
from crossdock_worker.life import clock


class Writes:
    """By job. Thread-safe. Made once no earlier process on this disk can be alive."""

    def __init__(self) -> None:
        self._began = clock()
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._ended: dict[str, float] = {}

    @contextmanager
    def counted(self, uid: str) -> Iterator[None]:
        """Send one request within the block, tries included."""
        self.begin(uid)
        try:
            yield
        finally:
            with self._lock:
                self._under_way[uid] -= 1
                self._ended[uid] = clock()

    def begin(self, uid: str) -> None:
        """Note that requests begin whose end is not seen: none counts as ended from now on."""
        with self._lock:
            self._under_way[uid] += 1

    def idle_seconds(self, uid: str) -> float:
        """Return for how long nothing was sent for a job; 0 while a request is under way."""
        with self._lock:
            if self._under_way[uid]:
                return 0.0
            seconds = clock() - idle_since(self._ended.get(uid), self._began)
        return math.floor(max(0.0, seconds) * 1000) / 1000

    def forget(self, uid: str) -> None:
        """Forget a job that nobody asks for any more."""
        with self._lock:
            self._ended.pop(uid, None)
            self._under_way.pop(uid, None)
