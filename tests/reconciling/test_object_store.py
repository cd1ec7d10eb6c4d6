"""What is kept of objects: the newest state, whatever comes late."""

from typing import Any

from crossdock_operator.plan.names import CLUSTER_LABEL
from crossdock_operator.records import ChildKey, Item, Key
from crossdock_operator.store import Store

KEY = Key("data", "main")
ITEM = Item("ShuffleCluster", KEY)


def body(version: int, uid: str = "u-1", **more: Any) -> dict[str, Any]:
    labels = {CLUSTER_LABEL: "main"}
    metadata = {"namespace": "data", "name": "main", "uid": uid, "labels": labels, "generation": 1}
    metadata["resourceVersion"] = str(version)
    return {"metadata": metadata, "spec": {"store": {"url": "s3://b/p"}}, **more}


def phase(store: Store) -> object:
    return store.clusters[KEY].status.get("phase")


def test_an_event_that_is_older_than_an_answer_changes_nothing() -> None:
    store = Store()
    assert store.saw_cluster(body(10, status={"phase": "Ready"})) == KEY
    store.saw_cluster(body(9, status={"phase": "Pending"}))
    assert phase(store) == "Ready"
    store.saw_cluster(body(100, status={"phase": "Paused"}))
    assert phase(store) == "Paused"


def test_an_answer_that_comes_after_the_deletion_brings_nothing_back() -> None:
    store = Store()
    store.saw_cluster(body(10))
    store.saw_cluster(body(12), deleted=True)
    store.saw_cluster(body(11))
    assert KEY not in store.clusters
    store.saw_cluster(body(5, uid="another"))
    assert KEY in store.clusters, "an object of the same name is another one"


def test_children_are_those_with_our_label() -> None:
    store = Store()
    child = body(3, status={"replicas": 4, "readyReplicas": 3})
    assert store.saw_child("StatefulSet", child) == ITEM
    found = store.children(ITEM)[ChildKey("StatefulSet", "main")]
    assert (found.replicas, found.ready) == (4, 3)
    assert not found.settled, "its status is of an older spec"
    foreign = body(3, uid="u-2")
    foreign["metadata"]["labels"] = {}
    assert store.saw_child("Service", foreign) is None
    store.saw_child("StatefulSet", body(4), deleted=True)
    assert store.children(ITEM) == {}


def test_a_mark_is_of_what_people_change() -> None:
    store = Store()

    def mark(seen: dict[str, Any]) -> str:
        store.saw_child("StatefulSet", seen)
        return store.children(ITEM)[ChildKey("StatefulSet", "main")].mark

    first = mark(body(1))
    assert mark(body(2, status={"replicas": 4})) == first
    assert mark(body(3, spec={"replicas": 4})) != first
    annotated = body(4)
    annotated["metadata"]["annotations"] = {"a": "b"}
    assert mark(annotated) != first
