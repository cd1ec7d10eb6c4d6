"""What is looked at when something is seen."""

import asyncio
from typing import Any

from crossdock_operator.intake import Intake
from crossdock_operator.kinds import SECRET, SERVICE, SHUFFLE_CLUSTER, SHUFFLE_JOB
from crossdock_operator.plan.names import CLUSTER_LABEL
from crossdock_operator.queue import Queue
from crossdock_operator.records import Item, Key
from crossdock_operator.store import Store

CLUSTER = Item("ShuffleCluster", Key("data", "main"))
JOB = Item("ShuffleJob", Key("data", "job"))


def intake() -> Intake:
    return Intake(Store(), Queue[Item](asyncio.get_running_loop().time))


def body(item: Item, version: int, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    metadata = {"namespace": item.key.namespace, "name": item.key.name, "uid": item.key.name}
    metadata |= {"generation": version, "resourceVersion": str(version)}
    metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata, "spec": spec, **more}


def cluster(version: int, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    spec = {"store": {"url": "s3://b/p"}, **spec}
    return body(CLUSTER, version, spec, status=status or {})


async def looked_at(found: Intake) -> set[Item]:
    items = set()
    while found.queue.depth().due:
        async with found.queue.taking() as item:
            items.add(item)
    return items


async def test_jobs_are_looked_at_when_what_they_go_by_changes() -> None:
    found = intake()
    found.saw(SHUFFLE_JOB, body(JOB, 1, {"clusterRef": {"name": "main"}}))
    assert await looked_at(found) == {JOB}
    found.saw(SHUFFLE_CLUSTER, cluster(2))
    assert await looked_at(found) == {CLUSTER, JOB}
    found.saw(SHUFFLE_CLUSTER, cluster(3, workers={"replicas": 7}))
    assert await looked_at(found) == {CLUSTER}, "they do not go by how many workers there are"
    found.saw(SHUFFLE_CLUSTER, cluster(4, {"phase": "Ready"}, workers={"replicas": 7}))
    assert await looked_at(found) == {CLUSTER, JOB}
    found.saw(SHUFFLE_CLUSTER, cluster(5, {"phase": "Ready"}, limits={"jobQuota": "1Gi"}))
    assert await looked_at(found) == {CLUSTER, JOB}
    found.saw(SHUFFLE_CLUSTER, cluster(6), deleted=True)
    assert await looked_at(found) == {CLUSTER, JOB}


async def test_jobs_are_looked_at_when_a_secret_of_their_cluster_changes() -> None:
    """It may have the keys that open it, or its authority."""
    found = intake()
    found.saw(SHUFFLE_JOB, body(JOB, 1, {"clusterRef": {"name": "main"}}))
    await looked_at(found)
    for kind, items in ((SERVICE, {CLUSTER}), (SECRET, {CLUSTER, JOB})):
        child = body(CLUSTER, 2, {})
        child["metadata"]["labels"] = {CLUSTER_LABEL: "main"}
        found.saw(kind, child)
        assert await looked_at(found) == items


async def test_what_a_list_lacks_is_looked_at() -> None:
    found = intake()
    found.saw(SHUFFLE_JOB, body(JOB, 1, {"clusterRef": {"name": "main"}}))
    found.saw(SHUFFLE_CLUSTER, cluster(2))
    child = body(CLUSTER, 3, {})
    child["metadata"] |= {"labels": {CLUSTER_LABEL: "main"}, "uid": "child"}
    found.saw(SERVICE, child)
    await looked_at(found)
    assert found.lost(Item("Service", CLUSTER.key), 3)
    assert await looked_at(found) == {CLUSTER}
    assert not found.lost(Item("Service", CLUSTER.key), 4), "it is no news any more"
    assert not found.lost(CLUSTER, 1), "it is newer than the list"
    assert found.lost(CLUSTER, 5)
    assert await looked_at(found) == {CLUSTER, JOB}
