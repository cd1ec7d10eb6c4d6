"""What ends jobs and clusters and looks at their stores, put together."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from crossdock_operator.ending.attempts import Attempts
from crossdock_operator.ending.clusters import ClusterEnds
from crossdock_operator.ending.jobs import JobEnds
from crossdock_operator.ending.listing import Listing
from crossdock_operator.ending.tidying import Tidying
from crossdock_operator.ending.workers import Reach
from crossdock_operator.kube import Kube
from crossdock_operator.records import Item
from crossdock_operator.storage.checks import Checks
from crossdock_operator.storage.copies import Copies
from crossdock_operator.storage.keepers import Keepers
from crossdock_operator.storage.tasks import Audited, Ended
from crossdock_operator.store import Store


@dataclass(frozen=True, slots=True)
class Endings:
    """Of one operator."""

    jobs: JobEnds
    clusters: ClusterEnds
    checks: Checks
    tidying: Tidying


@asynccontextmanager
async def endings(
    kube: Kube,
    store: Store,
    *,
    namespace: str,
    watched: Sequence[str],
    resolve: Mapping[tuple[str, str], Sequence[str]],
    epoch: Callable[[], int],
    again: Callable[[Item, float], None],
) -> AsyncIterator[Endings]:
    """Give what ends jobs and clusters; what is under way is given up when the context ends.

    Args:
        kube: the API server.
        store: what was seen.
        namespace: the operator's.
        watched: namespaces that it looks after; none: all.
        resolve: by namespace and name of a cluster, URLs of its workers; default: their names.
        epoch: of this leader: fences commands to workers.
        again: has an object looked at after so many seconds.
    """
    copies, keepers, reach = Copies(kube, namespace), Keepers(), Reach(kube, resolve)
    listing = Listing(kube, watched)
    checks = Checks(copies, keepers, reach, listing, epoch, again)
    ended, swept = Attempts[Ended](again), Attempts[Audited](again)
    try:
        yield Endings(
            JobEnds(kube, store, copies, keepers, reach, listing, checks, ended),
            ClusterEnds(kube, store, copies, keepers, reach, listing, swept),
            checks,
            Tidying(kube, copies, listing),
        )
    finally:
        await checks.close()
        await ended.close()
        await swept.close()
        await keepers.close()
