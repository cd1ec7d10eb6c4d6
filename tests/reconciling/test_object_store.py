"""What is kept of objects: the newest state, whatever comes late."""

from typing import Any

from crossdock_operator.jobs.tools import Tools
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
    found = store.children(ITEM, "c-1")[ChildKey("StatefulSet", "main")]
    assert (found.replicas, found.ready) == (4, 3)
    assert not found.settled, "its status is of an older spec"
    foreign = body(3, uid="u-2")
    foreign["metadata"]["labels"] = {}
    assert store.saw_child("Service", foreign) is None
    store.saw_child("StatefulSet", body(4), deleted=True)
    assert store.children(ITEM, "c-1") == {}


def test_children_are_told_apart_by_whose_they_are() -> None:
    store = Store()
    owned = body(3)
    owner = {"apiVersion": "crossdock.dev/v1alpha1", "kind": "ShuffleCluster", "name": "main"}
    owned["metadata"]["ownerReferences"] = [{**owner, "uid": "c-1"}]
    store.saw_child("Service", owned)
    assert ChildKey("Service", "main") in store.children(ITEM, "c-1")
    assert store.others(ITEM, "c-1") == store.children(ITEM, "c-2") == {}
    assert store.others(ITEM, "c-2") == store.children(ITEM, "c-1")
    store.saw_child("Service", body(4))
    assert store.others(ITEM, "c-2") == {}, "whose it is nobody says"


def test_a_mark_is_of_what_people_change() -> None:
    store = Store()

    def mark(seen: dict[str, Any]) -> str:
        store.saw_child("StatefulSet", seen)
        return store.children(ITEM, "c-1")[ChildKey("StatefulSet", "main")].mark

    first = mark(body(1))
    assert mark(body(2, status={"replicas": 4})) == first
    assert mark(body(3, spec={"replicas": 4})) != first
    annotated = body(4)
    annotated["metadata"]["annotations"] = {"a": "b"}
    assert mark(annotated) != first


def test_the_end_of_an_object_is_not_that_of_the_next_one_of_its_name() -> None:
    store = Store()
    store.saw_child("Service", body(5, "old"))
    store.saw_child("Service", body(9, "new"))
    store.saw_child("Service", body(8, "old"), deleted=True)
    assert ChildKey("Service", "main") in store.children(ITEM, "c-1")
    store.saw_cluster(body(9, "new"))
    store.saw_cluster(body(8, "old"), deleted=True)
    assert store.clusters[KEY].uid == "new"


def test_an_object_that_comes_back_into_a_watch_is_there_again() -> None:
    """Who takes our label away and gives it back has not made another object."""
    store = Store()
    store.saw_child("Service", body(5))
    store.saw_child("Service", body(6), deleted=True)
    store.saw_child("Service", body(7))
    assert ChildKey("Service", "main") in store.children(ITEM, "c-1")


def test_what_a_list_does_not_have_is_lost_unless_it_is_newer() -> None:
    store = Store()
    item = Item("Service", KEY)
    store.saw_child("Service", body(9))
    assert store.known("Service") == store.known("Service", "data") == [item]
    assert store.known("Service", "other") == store.known("Secret") == []
    assert store.lost(item, 8) is None
    assert store.lost(item, 9) == ITEM
    assert store.children(ITEM, "c-1") == {}
    assert store.lost(item, 10) is None
    assert store.knows("Service", body(9))
    assert not store.knows("Service", body(10)), "it was seen in a later state"


def job(name: str, version: int = 1, cluster: str = "main") -> dict[str, Any]:
    found = body(version, uid=name)
    found["metadata"] |= {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {**found, "spec": {"clusterRef": {"name": cluster}}}


def test_jobs_by_cluster() -> None:
    store = Store()
    store.saw_job(job("a", 1))
    store.saw_job(job("b", 2))
    store.saw_job(job("c", 3, "other"))
    assert {found.key.name for found in store.jobs_of(KEY)} == {"a", "b"}
    store.saw_job(job("a", 4), deleted=True)
    assert {found.key.name for found in store.jobs_of(KEY)} == {"b"}
    assert store.lost(Item("ShuffleJob", Key("data", "b")), 5) == Item(
        "ShuffleJob", Key("data", "b")
    )
    assert store.jobs_of(KEY) == []
    assert store.counts() == {"ShuffleJob": 1}


def test_a_job_that_only_names_a_cluster_is_not_served_by_it() -> None:
    """Anybody may name one: nobody is asked for such a job."""
    store = Store()
    for name, said in (("taken", "True"), ("refused", "False"), ("new", "")):
        conditions = [{"type": "Accepted", "status": said}] if said else []
        store.saw_job({**job(name), "status": {"conditions": conditions}})
    tools = Tools(None, store, None, wake=lambda *_: None)  # type: ignore[arg-type]
    assert len(store.jobs_of(KEY)) == 3
    assert [each.key.name for each in tools.served(KEY)] == ["taken"]
