"""What the operator's metrics say of objects that are not well."""

from typing import Any

from crossdock_operator.plan.tally import tally
from crossdock_operator.store import Store

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def body(name: str, *conditions: tuple[str, str, str], **metadata: Any) -> dict[str, Any]:
    told = [{"type": t, "status": s, "reason": r, "message": ""} for t, s, r in conditions]
    return {
        "metadata": {
            "namespace": "data", "name": name, "uid": name, "generation": 1,
            "resourceVersion": "1", "creationTimestamp": "2025-12-31T00:00:00Z", **metadata,
        },
        "spec": {"store": {"url": "s3://b/p"}},
        "status": {"conditions": told, "storage": {"orphans": 2, "orphanBytes": 10}},
    }  # fmt: skip


def job(name: str, **metadata: Any) -> dict[str, Any]:
    return {**body(name, **metadata), "spec": {"clusterRef": {"name": "main"}}}


def test_clusters_are_counted_by_what_is_wrong() -> None:
    store = Store()
    store.saw_cluster(body("new"))
    store.saw_cluster(
        body("well", ("Available", "True", "WorkersReady"), ("StoreReachable", "True", "Probed"))
    )
    store.saw_cluster(
        body("bad", ("Degraded", "True", "WorkersNotReady"), ("StorageClean", "False", "Orphans"))
    )
    store.saw_cluster(body("denied", ("StoreReachable", "False", "Denied")))
    store.saw_cluster(body("small", ("Available", "False", "ScaledToZero")))
    found = tally(store.clusters.values(), (), NOW)
    assert found.failing == {
        "Available": 0, "Degraded": 1, "StoreReachable": 1, "StorageClean": 1,
    }  # fmt: skip
    assert (found.orphans, found.orphan_bytes) == (10, 50)
    assert found.deleting_seconds == {"ShuffleCluster": 0.0, "ShuffleJob": 0.0}


def test_the_longest_deletion_counts_and_what_goes_is_not_failing() -> None:
    store = Store()
    wrong = ("StorageClean", "False", "Deleting")
    store.saw_cluster(body("going", wrong, deletionTimestamp="2025-12-31T23:59:00Z"))
    store.saw_job(job("stays"))
    store.saw_job(job("old", deletionTimestamp="2025-12-31T23:00:00Z"))
    store.saw_job(job("young", deletionTimestamp="2025-12-31T23:59:59Z"))
    found = tally(store.clusters.values(), store.jobs.values(), NOW)
    assert found.failing["StorageClean"] == 0
    assert found.deleting_seconds == {"ShuffleCluster": 60.0, "ShuffleJob": 3600.0}
