"""Leadership by a Lease: one operator acts, the others watch and wait.

A lease is over when it has not changed for its duration by *our* clock: clocks of machines need not
agree. Who cannot renew in time stops before that, by its own clock. The number of transitions
only grows, and goes with commands to workers, which refuse lower ones.

The lease belongs to the operator's service account: it goes with that when all is uninstalled.
"""

import asyncio
import datetime as dt
import time
from dataclasses import dataclass
from typing import Final

import structlog

from crossdock.errors import CrossdockError
from crossdock_operator.errors import KubeError, Stale
from crossdock_operator.kinds import LEASE, SELF_SUBJECT_REVIEW, Object
from crossdock_operator.kube import Kube

LEASE_NAME: Final = "crossdock-operator"
LEASE_SECONDS: Final = 10
RENEW_SECONDS: Final = 3.0
GIVE_UP_SECONDS: Final = 8.0
"""A leader that could not renew for so long ends, before another can take over."""
_ACCOUNT: Final = "system:serviceaccount:"
LOOK_SECONDS: Final = 2.0
"""How often one that waits looks at the lease."""

log = structlog.get_logger()


class LeadershipLost(CrossdockError):
    """Another operator leads now, or may."""

    code = "leadership_lost"
    hint = "this one ends, and is started anew"


@dataclass(frozen=True, slots=True)
class Seen:
    """A lease as it was seen, and when it was first seen so, on our monotonic clock."""

    version: str
    since: float


def look(lease: Object | None, seen: Seen | None, now: float) -> Seen | None:
    """Return since when the lease has been as it is."""
    if lease is None:
        return None
    version = lease["metadata"]["resourceVersion"]
    return seen if seen is not None and seen.version == version else Seen(version, now)


def is_free(lease: Object | None, seen: Seen | None, identity: str, now: float) -> bool:
    """Whether this operator may take the lease now."""
    if lease is None or seen is None:
        return True
    spec = lease.get("spec") or {}
    holder = spec.get("holderIdentity")
    if holder in {None, "", identity}:
        return True
    return now - seen.since >= float(spec.get("leaseDurationSeconds", LEASE_SECONDS))


def owner_of(user: Object, namespace: str) -> Object | None:
    """Return what a Lease's owner is: the service account of who asked the API server.

    Args:
        user: the `userInfo` of a SelfSubjectReview.
        namespace: the Lease's. An account of another one, or a person, owns nothing here.
    """
    account = str(user.get("username", "")).removeprefix(f"{_ACCOUNT}{namespace}:")
    if account == user.get("username") or not user.get("uid"):
        return None
    return {"apiVersion": "v1", "kind": "ServiceAccount", "name": account, "uid": user["uid"]}


def taken(lease: Object, identity: str, now: str) -> Object:
    """Return the lease as it is to be written by who takes or renews it."""
    spec = dict(lease.get("spec") or {})
    if spec.get("holderIdentity") != identity:
        spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + 1
        spec["acquireTime"] = now
    spec |= {"holderIdentity": identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
    return {**lease, "spec": spec}


_TRANSITIONS_BITS: Final = 24
"""Room for transitions of one lease below the time at which it was made."""


class Leadership:
    """One operator's part in it.

    It has a connection of its own: a busy server or pool must not hold up the lease.
    """

    def __init__(self, kube: Kube, *, namespace: str, name: str, identity: str) -> None:
        """Take part later. `identity` is of this process alone."""
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._lease: Object = {"metadata": {"namespace": namespace, "name": name}}
        self._renewed = 0.0
        self._leads = asyncio.Event()

    @property
    def leads(self) -> bool:
        """Whether this operator leads, as far as it knows."""
        return self._leads.is_set()

    @property
    def number(self) -> int:
        """How often the lease went to another; only of use while leading."""
        return int(self._lease.get("spec", {}).get("leaseTransitions", 0))

    @property
    def epoch(self) -> int:
        """A number that grows with each leader, also when the lease was deleted and made anew."""
        created = dt.datetime.fromisoformat(self._lease["metadata"]["creationTimestamp"])
        return int(created.timestamp()) << _TRANSITIONS_BITS | self.number

    async def led(self) -> None:
        """Return when this operator leads."""
        await self._leads.wait()

    def check(self) -> None:
        """Do nothing while this operator leads.

        Raises:
            LeadershipLost: it does not, or another may by now: this process was held up.
        """
        if not self.leads or time.monotonic() >= self._renewed + GIVE_UP_SECONDS:
            raise LeadershipLost("the lease is not this operator's, or was not renewed in time")

    async def acquire(self) -> None:
        """Return when this operator leads."""
        seen: Seen | None = None
        while True:
            try:
                lease = await self._kube.get(LEASE, self._namespace, self._name)
                seen = look(lease, seen, time.monotonic())
                if is_free(lease, seen, self._identity, time.monotonic()):
                    await self._write(lease)
                    self._leads.set()
                    log.info("leads", identity=self._identity, transitions=self.number)
                    return
            except Stale:
                continue
            except KubeError as error:  # one that has just started refuses what roles allow
                log.warning("the lease cannot be looked at", error=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def _account(self) -> Object | None:
        try:
            review = await self._kube.review(SELF_SUBJECT_REVIEW, {})
        except KubeError as error:  # not worth being without a leader
            log.warning("the lease will stay when all else is uninstalled", error=str(error))
            return None
        return owner_of(review["userInfo"], self._namespace)

    async def hold(self) -> None:
        """Renew the lease for ever.

        Raises:
            LeadershipLost: it could not be renewed in time, or somebody took it. Stop at once.
        """
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            left = self._renewed + GIVE_UP_SECONDS - time.monotonic()
            try:
                async with asyncio.timeout(max(left, 0)):
                    await self._renew()
            except (KubeError, TimeoutError) as error:
                if time.monotonic() >= self._renewed + GIVE_UP_SECONDS:
                    raise LeadershipLost("the lease was not renewed in time") from error
                log.warning("the lease is not renewed", error=str(error))

    async def _renew(self) -> None:
        try:
            await self._write(self._lease)
        except Stale:  # an earlier try whose answer was lost, or somebody else
            lease = await self._kube.get(LEASE, self._namespace, self._name)
            if lease is None or lease["spec"].get("holderIdentity") != self._identity:
                raise LeadershipLost("another operator took the lease") from None
            await self._write(lease)

    async def release(self) -> None:
        """Give the lease up, so that the next one need not wait for its end."""
        spec = {**self._lease.get("spec", {}), "holderIdentity": ""}
        try:
            await self._kube.replace(LEASE, {**self._lease, "spec": spec})
        except KubeError as error:
            log.warning("the lease is not released", error=str(error))

    async def _write(self, lease: Object | None) -> None:
        asked = time.monotonic()
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if lease is None:
            # Only now: who gives a Lease that is there another owner needs the right to delete it.
            metadata: Object = {"namespace": self._namespace, "name": self._name}
            if owner := await self._account():
                metadata["ownerReferences"] = [owner]
            fresh: Object = {"metadata": metadata}
            self._lease = await self._kube.create(LEASE, taken(fresh, self._identity, now))
        else:
            self._lease = await self._kube.replace(LEASE, taken(lease, self._identity, now))
        self._renewed = asked
