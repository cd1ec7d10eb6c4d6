"""When each watch last asked: one that does not ask any more is dead, whatever it looks like.

kopf tells nobody of bookmarks, and a watch may be silent for days. But each asks anew every some
minutes, and sooner if it is cut or refused. While the API server is away it asks in vain, and
lives.
"""

from collections.abc import Callable, Iterable
from typing import Final

from crossdock_operator.calls import Call

WATCH_SECONDS: Final = 150
"""After so long a watch asks anew: some proxies drop it without a word."""
SILENT_SECONDS: Final = 70
"""A watch that hears nothing for so long, not even a bookmark, asks anew."""
DEAD_SECONDS: Final = 300.0
"""A watch that did not ask for so long does not work."""


class Watches:
    """Of all kinds and namespaces that are to be watched."""

    def __init__(
        self,
        resources: Iterable[str],
        namespaces: Iterable[str],
        *,
        clock: Callable[[], float],
        relisted: Callable[[str, str], None],
    ) -> None:
        """Begin; `asked` is told of all requests.

        Args:
            resources: plural names.
            namespaces: to be watched; "" is all.
            clock: seconds.
            relisted: is told of a list that is not a watch's first, with resource and namespace:
                what went meanwhile, nobody said.
        """
        self._clock = clock
        self._began = clock()
        self._relisted = relisted
        namespaces = list(namespaces)
        self._asked = {(r, n): self._began for r in resources for n in namespaces}
        self._waiting = set(self._asked)

    def asked(self, call: Call, status: int) -> None:
        """Take in a request of kopf's; status 0: it was not answered."""
        watch = (call.resource, call.namespace)
        if watch not in self._asked:
            return
        self._asked[watch] = self._clock()
        if status != 200:
            return
        if call.verb == "watch":
            self._waiting.discard(watch)
        elif call.verb == "list" and watch not in self._waiting:
            self._relisted(*watch)

    @property
    def complete(self) -> bool:
        """Whether all of them work, so that all objects were seen once."""
        return not self._waiting

    def ages(self) -> dict[str, float]:
        """Return how many seconds ago the watch of each resource asked; the oldest of several."""
        now = self._clock()
        found: dict[str, float] = {}
        for (resource, _), at in self._asked.items():
            found[resource] = max(found.get(resource, 0.0), now - at)
        return found
