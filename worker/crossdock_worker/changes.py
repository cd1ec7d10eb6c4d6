"""Which jobs something new is known of, in order, so that peers are told no more than that."""

import threading
from typing import Final

MOST_AT_ONCE: Final = 1000


class Changes:
    """By job, the version at which it changed last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = 0
        self._versions: dict[str, int] = {}
        """Rising."""

    def note(self, uid: str) -> None:
        """Note that something new is known of a job."""
        with self._lock:
            self._version += 1
            self._versions.pop(uid, None)
            self._versions[uid] = self._version

    def forget(self, uid: str) -> None:
        """Leave a job out from now on."""
        with self._lock:
            self._versions.pop(uid, None)

    def since(self, version: int) -> tuple[list[str], int, bool]:
        """Return the jobs that changed after a version, up to which one, and whether more did."""
        news: list[tuple[str, int]] = []
        with self._lock:
            for each in reversed(self._versions.items()):
                if each[1] <= version:
                    break
                news.append(each)
            latest = self._version
        news.reverse()
        if len(news) <= MOST_AT_ONCE:
            return [uid for uid, _ in news], latest, False
        some = news[:MOST_AT_ONCE]
        return [uid for uid, _ in some], some[-1][1], True
