"""Jobs made known to their workers, and the Secret with which tasks and engines reach them."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from crossdock.cluster import Cluster as Client
from crossdock.errors import CrossdockError, Unavailable
from crossdock.job import Job as Handle
from crossdock.records import Owner
from crossdock_operator.errors import NotAllowed, Refused, Stale
from crossdock_operator.jobs.render import connection, connection_name
from crossdock_operator.jobs.tools import AGAIN_SECONDS, Tools
from crossdock_operator.jobs.workers import RENEW_SECONDS, job_token
from crossdock_operator.kinds import SECRET, SHUFFLE_CLUSTER, SHUFFLE_JOB, Object
from crossdock_operator.plan import names
from crossdock_operator.plan.job_status import is_true
from crossdock_operator.records import Child, ChildKey, Cluster, Item, Job, fingerprint

MOST_SECONDS: Final = 60.0
"""Longest pause between two tries to register a job."""
_NOT_YET: Final = "the workers are being told of the job"
_UNKNOWN: Final = Child(mark="")


class Registry:
    """Which jobs this operator has registered. Of the event loop's thread."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._handles: dict[str, Handle] = {}
        """By uid, of jobs with stages."""
        self._asked: set[str] = set()
        self._done: set[str] = set()
        self._problems: dict[str, str] = {}
        self._failures: dict[str, tuple[int, float]] = {}
        """By uid, how often in a row, and until when not again; monotonic."""

    async def ready(self, job: Job, cluster: Cluster) -> str:
        """Return what a job waits for until its tasks can reach the workers; empty: nothing.

        The operator is one owner, whichever process it is: the epoch stays 0 for the job's life,
        since a higher one would refuse the frames of tasks that run. The job's end fences it.

        Raises:
            KubeError: the API server does not do it now.
        """
        try:
            waits_for = await self._registered(job, cluster)
            if not waits_for:
                await self._connect(job, cluster)
        except (Unavailable, Refused) as error:
            self._tools.wake(Item(SHUFFLE_JOB.name, job.key), AGAIN_SECONDS)
            return str(error)
        except NotAllowed as error:  # it may be a quota's or a policy's answer: they know why
            self._tools.wake(Item(SHUFFLE_JOB.name, job.key), AGAIN_SECONDS)
            return error.message
        return waits_for

    def handle(self, uid: str) -> Handle:
        """Return the handle of a job with stages that is ready."""
        return self._handles[uid]

    def forget(self, uid: str) -> None:
        """Let go of a job."""
        self._done.discard(uid)
        self._asked.discard(uid)
        self._problems.pop(uid, None)
        self._failures.pop(uid, None)
        handle = self._handles.pop(uid, None)
        if handle is not None:
            handle.close()

    # -- workers ---------------------------------------------------------------------------

    async def _registered(self, job: Job, cluster: Cluster) -> str:
        uid = job.uid
        if uid in self._done or (not job.spec.stages and is_true(job.status, "Ready")):
            return ""
        _, not_before = self._failures.get(uid, (0, 0.0))
        left = not_before - time.monotonic()
        if uid not in self._asked and left > 0:  # somebody else had it looked at: see `Queue.add`
            self._tools.wake(Item(SHUFFLE_JOB.name, job.key), left)
        elif uid not in self._asked:
            client = await self._tools.workers.client(cluster)
            self._asked.add(uid)
            self._tools.workers.ask(
                partial(_register, client, job, cluster), partial(self._heard, job)
            )
        return self._problems.get(uid, _NOT_YET)

    def _heard(self, job: Job, future: "asyncio.Future[Handle]") -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._failed(job, error)
            return
        handle, wanted = future.result(), job.uid in self._asked
        self._asked.discard(job.uid)
        if wanted and job.spec.stages:
            self._handles[job.uid] = handle
        else:
            handle.close()
        if wanted:
            self._problems.pop(job.uid, None)
            self._done.add(job.uid)
            self._tools.wake(Item(SHUFFLE_JOB.name, job.key), 0.0)

    def _failed(self, job: Job, error: BaseException) -> None:
        if job.uid not in self._asked:
            return  # it was let go of meanwhile
        self._asked.discard(job.uid)
        known = isinstance(error, CrossdockError)
        self._problems[job.uid] = str(error) if known else repr(error)
        failures, _ = self._failures.get(job.uid, (0, 0.0))
        pause = min(AGAIN_SECONDS * 2.0 ** min(failures, 9), MOST_SECONDS)
        self._failures[job.uid] = failures + 1, time.monotonic() + pause
        self._tools.wake(Item(SHUFFLE_JOB.name, job.key), pause)

    # -- the Secret ------------------------------------------------------------------------

    async def _connect(self, job: Job, cluster: Cluster) -> None:
        """Make the connection Secret, or renew its token when it is time."""
        item, name = Item(SHUFFLE_JOB.name, job.key), connection_name(job.key.name)
        child = self._tools.store.children(item, job.uid).get(ChildKey(SECRET.name, name))
        now = time.time()
        if child is not None and child.renew_at > now and self._is_good(child, cluster):
            self._tools.wake(item, child.renew_at - now)
            return
        key = await self._tools.workers.signing_key(cluster)
        authority = await self._tools.workers.authority(cluster)
        made_of = f"{fingerprint(key.decode())} {fingerprint(authority)}"
        if child is not None and child.renew_at > now and child.made_of == made_of:
            self._tools.wake(item, child.renew_at - now)  # what was read before was older
            return
        body = connection(
            job,
            endpoint=names.endpoint(cluster),
            token=job_token(key, job.uid),
            authority=authority,
            made_of=made_of,
            renew_at=now + RENEW_SECONDS,
        )
        write = self._make if child is None else self._renew
        made = await write(job, name, body)
        self._tools.store.saw_child(SECRET.name, made)
        self._tools.wake(item, RENEW_SECONDS)

    def _is_good(self, child: Child, cluster: Cluster) -> bool:
        """Whether a Secret still opens what it opened: keys and authority may be made again."""
        item = Item(SHUFFLE_CLUSTER.name, cluster.key)
        children = self._tools.store.children(item, cluster.uid)
        key, certificate = (
            children.get(ChildKey(SECRET.name, name), _UNKNOWN).has
            for name in (names.signing_key(cluster), names.certificate(cluster))
        )
        if names.certificate(cluster) and not certificate:  # the user's own, which is not watched
            authority = self._tools.workers.known_authority(cluster)
            certificate = frozenset([fingerprint(authority)] if authority else ())
        return child.is_good(key, certificate)

    async def _make(self, job: Job, name: str, body: Object) -> Object:
        try:
            return await self._tools.kube.create(SECRET, body)
        except Stale:
            found = await self._tools.kube.get(SECRET, job.key.namespace, name)
            if found is None:
                raise
            owners = [owner["uid"] for owner in found["metadata"].get("ownerReferences") or ()]
            if job.uid in owners:
                return found
            if not owners:
                raise Refused(
                    f"the Secret {name} is there already, and is not of this job",
                    hint="delete it, or give the job another name",
                ) from None
            raise  # of a job of the same name, which is going away

    async def _renew(self, job: Job, name: str, body: Object) -> Object:
        steps: list[Mapping[str, object]] = [{"op": "add", "path": "/data", "value": body["data"]}]
        for key, value in body["metadata"]["annotations"].items():
            path = f"/metadata/annotations/{_escaped(key)}"
            steps.append({"op": "add", "path": path, "value": value})
        return await self._tools.kube.patch(
            SECRET, job.key.namespace, name, [dict(step) for step in steps]
        )


def _register(client: Client, job: Job, cluster: Cluster) -> Handle:
    persistence = job.spec.persistence or cluster.spec.persistence.policy
    return client.job(
        job.uid,
        owner=Owner.CLUSTER,
        quota_bytes=_quota_bytes(job, cluster),
        tenant=job.key.namespace,
        persistence=persistence,
    )


def _quota_bytes(job: Job, cluster: Cluster) -> int:
    """Return what a job may have: no more than its cluster allows, also if it asks for nothing."""
    said = [each for each in (job.spec.quota, cluster.spec.jobs.most_quota) if each is not None]
    return min(said, default=0)


def _escaped(name: str) -> str:
    """Return a key as a JSON pointer has it."""
    return name.replace("~", "~0").replace("/", "~1")
