"""The end of jobs without stages: an engine's shuffles have no names here, so all of them go."""

import asyncio
import time
from functools import partial

from crossdock.cluster import Cluster as Client
from crossdock.errors import Unavailable
from crossdock.wire import names
from crossdock_operator.jobs.tools import AGAIN_SECONDS, Tools
from crossdock_operator.kinds import SHUFFLE_JOB
from crossdock_operator.records import Cluster, Item, Job


class AttachedEnds:
    """Attached jobs that have ended, and whose ShuffleJob stays. Of the event loop's thread."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._asked: set[str] = set()
        self._dropped: set[str] = set()
        self._problems: dict[str, str] = {}
        self._not_before: dict[str, float] = {}
        """By uid, until when workers are not asked again; monotonic."""

    async def drop(self, job: Job, cluster: Cluster) -> str:
        """Have the workers refuse a job and drop what they have of it.

        Returns:
            What it waits for; empty once they have.
        """
        uid = job.uid
        if uid in self._dropped:
            return ""
        left = self._not_before.get(uid, 0.0) - time.monotonic()
        if uid not in self._asked and left > 0:  # somebody else had it looked at: see `Queue.add`
            self._tools.wake(Item(SHUFFLE_JOB.name, job.key), left)
        elif uid not in self._asked:
            try:
                client = await self._tools.workers.client(cluster)
            except Unavailable as error:
                self._failed(job, str(error))
            else:
                self._asked.add(uid)
                self._tools.workers.ask(partial(_drop, client, uid), partial(self._heard, job))
        return self._problems.get(uid, "the workers are being told of the end")

    def forget(self, uid: str) -> None:
        """Let go of a job."""
        self._asked.discard(uid)
        self._dropped.discard(uid)
        self._problems.pop(uid, None)
        self._not_before.pop(uid, None)

    def _heard(self, job: Job, future: "asyncio.Future[None]") -> None:
        if future.cancelled() or job.uid not in self._asked:
            return
        self._asked.discard(job.uid)
        error = future.exception()
        if error is not None:
            self._failed(job, str(error) or repr(error))
            return
        self._dropped.add(job.uid)
        self._tools.wake(Item(SHUFFLE_JOB.name, job.key), 0.0)

    def _failed(self, job: Job, problem: str) -> None:
        self._problems[job.uid] = problem
        self._not_before[job.uid] = time.monotonic() + AGAIN_SECONDS
        self._tools.wake(Item(SHUFFLE_JOB.name, job.key), AGAIN_SECONDS)


def _drop(client: Client, uid: str) -> None:
    path = names.job_path(uid)

    def delete(url: str) -> None:
        with client.pool.call("DELETE", url, path) as response:
            response.read()

    client.on_all(delete)
