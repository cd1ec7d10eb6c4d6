"""Copies that nobody needs any more: a cluster that was let go by force takes none with it."""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from crossdock.errors import CrossdockError
from crossdock_operator.ending.listing import Listing
from crossdock_operator.kinds import SECRET, SHUFFLE_CLUSTER
from crossdock_operator.kube import Kube
from crossdock_operator.plan import names
from crossdock_operator.plan.ending import cluster_uid
from crossdock_operator.storage.copies import Copies

EVERY_SECONDS: Final = 3600.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tidying:
    """Of one operator."""

    kube: Kube
    copies: Copies
    listing: Listing

    async def run(self) -> None:
        """Look now, and again and again."""
        while True:
            try:
                await self.tidy()
            except CrossdockError as error:
                log.warning("copies are not looked through", error=str(error))
            await asyncio.sleep(EVERY_SECONDS)

    async def tidy(self) -> None:
        """Drop the copies of clusters that are gone, with all their jobs.

        Raises:
            KubeError: it is not known which are.
        """
        found = self.kube.every(SECRET, self.copies.namespace, labels=names.CLUSTER_UID)
        kept = {
            body["metadata"]["labels"][names.CLUSTER_UID]: body["metadata"]["annotations"]
            async for body in found
        }
        gone = [uid for uid, notes in kept.items() if not await self._is_there(uid, notes)]
        if not gone:
            return
        needed = {cluster_uid(job) for job in await self.listing.every()}
        for uid in gone:
            if uid not in needed:
                await self.copies.drop(uid)

    async def _is_there(self, uid: str, notes: dict[str, str]) -> bool:
        namespace, _, name = notes.get(names.COPY_OF, "").partition("/")
        if self.listing.namespaces and namespace not in self.listing.namespaces:
            return True  # another operator's: not ours to judge
        body = await self.kube.get(SHUFFLE_CLUSTER, namespace, name)
        return body is not None and body["metadata"]["uid"] == uid
