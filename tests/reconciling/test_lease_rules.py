"""Who may take the lease, by one's own clock only."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock_operator import leader
from crossdock_operator.leader import (
    GIVE_UP_SECONDS,
    LEASE_SECONDS,
    RENEW_SECONDS,
    Leadership,
    LeadershipLost,
    Seen,
    is_free,
    look,
    owner_of,
    taken,
)


def lease(holder: str, version: str = "1", transitions: int = 4) -> dict[str, Any]:
    spec = {
        "holderIdentity": holder,
        "leaseTransitions": transitions,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": "1999-01-01T00:00:00.000000Z",  # clocks of others do not count
    }
    return {"metadata": {"resourceVersion": version}, "spec": spec}


def test_free_are_no_lease_a_released_one_and_ones_own() -> None:
    assert is_free(None, None, "me", 0.0)
    assert is_free(lease(""), Seen("1", 0.0), "me", 0.0)
    assert is_free(lease("me"), Seen("1", 0.0), "me", 0.0)
    assert not is_free(lease("other"), Seen("1", 0.0), "me", 0.0)


@given(waited=st.floats(0, 100))
def test_a_foreign_one_is_free_when_it_stood_still_for_its_duration(waited: float) -> None:
    assert is_free(lease("other"), Seen("1", 0.0), "me", waited) == (waited >= LEASE_SECONDS)


def test_each_renewal_begins_the_wait_anew() -> None:
    seen = look(lease("other", "1"), None, 0.0)
    assert look(lease("other", "1"), seen, 9.0) == Seen("1", 0.0)
    assert look(lease("other", "2"), seen, 9.0) == Seen("2", 9.0)


def test_transitions_grow_with_each_new_holder() -> None:
    renewed = taken(lease("me"), "me", "now")["spec"]
    assert (renewed["leaseTransitions"], renewed["renewTime"]) == (4, "now")
    assert taken(lease("other"), "me", "now")["spec"]["leaseTransitions"] == 5
    assert taken({"metadata": {}}, "me", "now")["spec"]["leaseTransitions"] == 1


class OneLease:
    """A Lease that everybody may write."""

    def __init__(self, *, made: int = 0, transitions: int | None = None) -> None:
        self.made = made
        self.transitions = transitions
        self.written: dict[str, Any] = {}

    async def get(self, *_: object) -> dict[str, Any] | None:
        if self.transitions is None:
            return None
        metadata = {"namespace": "a", "name": "b", "resourceVersion": "1"}
        return {"metadata": metadata, "spec": {"leaseTransitions": self.transitions}}

    async def review(self, *_: object) -> dict[str, Any]:
        return {"userInfo": {"username": "system:serviceaccount:a:operator", "uid": "u"}}

    async def replace(self, kind: object, body: dict[str, Any]) -> dict[str, Any]:
        return await self.create(kind, body)

    async def create(self, _kind: object, body: dict[str, Any]) -> dict[str, Any]:
        self.written = body
        created = f"2026-01-01T00:00:{self.made:02}Z"
        metadata = {**body["metadata"], "resourceVersion": "1", "creationTimestamp": created}
        return {**body, "metadata": metadata}


async def test_a_leader_that_was_held_up_is_stopped_before_it_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever it comes to first: the renewal may be the last thing that it does."""
    now = time.monotonic()
    leadership = Leadership(OneLease(), namespace="a", name="b", identity="me")  # type: ignore[arg-type]
    with pytest.raises(LeadershipLost):
        leadership.check()
    await leadership.acquire()
    assert leadership.leads
    assert leadership.number == 1
    leadership.check()
    monkeypatch.setattr(leader.time, "monotonic", lambda: now + GIVE_UP_SECONDS + 1)
    with pytest.raises(LeadershipLost):
        leadership.check()


def test_a_lease_goes_with_the_service_account_of_who_leads() -> None:
    user = {"username": "system:serviceaccount:here:operator", "uid": "u"}
    owner = owner_of(user, "here")
    assert owner == {"apiVersion": "v1", "kind": "ServiceAccount", "name": "operator", "uid": "u"}
    assert owner_of(user, "there") is None, "nothing is owned across namespaces"
    assert owner_of({"username": "somebody", "uid": "u"}, "here") is None


@pytest.mark.parametrize("transitions", [None, 3], ids=["made", "taken over"])
async def test_a_lease_gets_its_owner_when_it_is_made_and_never_later(
    transitions: int | None,
) -> None:
    """Who changes the owner of what is there needs the right to delete it, in some clusters."""
    lease = OneLease(transitions=transitions)
    leadership = Leadership(lease, namespace="a", name="b", identity="me")  # type: ignore[arg-type]
    await leadership.acquire()
    assert ("ownerReferences" in lease.written["metadata"]) is (transitions is None)


def test_a_leader_ends_before_another_may_begin() -> None:
    assert RENEW_SECONDS < GIVE_UP_SECONDS < LEASE_SECONDS


async def test_the_epoch_grows_with_each_leader_and_each_lease() -> None:
    """A lease that was deleted, say with the operator's namespace, counts from one again."""
    found = []
    for made, transitions in ((1, None), (1, 1), (1, 40_000), (2, None)):
        lease = OneLease(made=made, transitions=transitions)
        leadership = Leadership(lease, namespace="a", name="b", identity="me")  # type: ignore[arg-type]
        await leadership.acquire()
        found.append(leadership.epoch)
    assert found == sorted(set(found))
    assert found[-1] < 2**64
