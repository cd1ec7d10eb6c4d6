"""The end of jobs and clusters: the resource goes only when nothing is left, whatever happens."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from administrator import Administrator
from control_plane import ControlPlane
from ending_scene import Scene, Site, condition, scenes
from faults import FaultyProxy, refuse
from roles import grant, granted_everywhere
from servers import S3Server, running

from crossdock.store.api import Verb
from harness import eventually

pytestmark = pytest.mark.usefixtures("_controllers")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running("versitygw", tmp_path_factory.mktemp("versitygw")) as found:
        yield found


@pytest.fixture
def scene(admin: Administrator, server: S3Server) -> Iterator[Scene]:
    with scenes(admin, server) as found:
        grant(admin, found.home)
        yield found


@pytest.fixture
def site(scene: Scene, plane: ControlPlane, tmp_path: Path, namespace: str) -> Site:
    """A cluster with two workers, in a namespace of its own."""
    grant(scene.admin, namespace)
    found = scene.site(namespace)
    scene.start(plane, tmp_path, [namespace], found)
    return found


def test_a_job_goes_when_nothing_is_left(scene: Scene, site: Site) -> None:
    site.create()
    uid = site.make_job("wordcount")
    assert scene.copies() == [f"crossdock-access-{site.uid}"], "before its first byte"
    site.fill(uid)
    other = site.make_job("other")
    site.fill(other)
    assert scene.in_store(uid)
    assert site.left_on_disks(uid)

    path = scene.path(site.namespace, "shufflejobs", "wordcount")
    before = scene.admin.ask("GET", path)["metadata"]["resourceVersion"]
    scene.delete(site.namespace, "shufflejobs", "wordcount")
    scene.wait_gone(site.namespace, "shufflejobs", "wordcount")
    told = [
        each["status"] | condition(each, "StorageClean")
        for each in scene.admin.history(path, before)
        if condition(each, "StorageClean")
    ]
    assert (told[0]["phase"], told[0]["reason"]) == ("Deleting", "Deleting")
    assert not scene.in_store(uid)
    assert not site.left_on_disks(uid)
    assert scene.in_store(other), "only what is its own"
    assert site.left_on_disks(other)


def test_a_store_that_is_away_holds_up_the_end_until_it_is_back(scene: Scene, site: Site) -> None:
    with FaultyProxy(scene.server.endpoint) as proxy:
        site.create(endpoint=proxy.endpoint)
        uid = site.make_job("wordcount")
        site.fill(uid)
        for verb in (Verb.LIST, Verb.LIST_UPLOADS, Verb.DELETE):
            proxy.fail(verb, refuse(503, "SlowDown"), times=100_000)
        scene.delete(site.namespace, "shufflejobs", "wordcount")
        eventually(lambda: not site.left_on_disks(uid), what="workers are told all the same")
        found = scene.wait(
            site.namespace,
            "shufflejobs",
            "wordcount",
            lambda o: condition(o, "StorageClean").get("reason") == "StoreUnavailable",
        )
        assert "crossdock.dev/abandon-storage" in condition(found, "StorageClean")["message"]
        assert scene.in_store(uid)
        proxy.heal()
        scene.wait_gone(site.namespace, "shufflejobs", "wordcount")
        assert not scene.in_store(uid)


def test_the_way_out(scene: Scene, site: Site) -> None:
    with FaultyProxy(scene.server.endpoint) as proxy:
        site.create(endpoint=proxy.endpoint)
        uid = site.make_job("wordcount")
        site.fill(uid)
        for verb in Verb:
            proxy.fail(verb, refuse(503, "SlowDown"), times=100_000)
        scene.delete(site.namespace, "shufflejobs", "wordcount")
        scene.wait(
            site.namespace, "shufflejobs", "wordcount", lambda o: condition(o, "StorageClean")
        )
        looks = scene.looks("ShuffleJob")
        scene.annotate(site.namespace, "shufflejobs", "wordcount", abandon_storage="yes")
        # Any other value than the one that says it does nothing. The first look may have begun.
        eventually(lambda: scene.looks("ShuffleJob") >= looks + 2, what="looks at it")
        assert scene.get(site.namespace, "shufflejobs", "wordcount") is not None
        scene.annotate(
            site.namespace, "shufflejobs", "wordcount", abandon_storage="objects-may-stay"
        )
        scene.wait_gone(site.namespace, "shufflejobs", "wordcount")
        assert scene.in_store(uid)
        assert not site.left_on_disks(uid), "what answers is told"
        events = scene.admin.ask("GET", f"/api/v1/namespaces/{site.namespace}/events")["items"]
        assert "StorageAbandoned" in {each["reason"] for each in events}


def test_a_namespace_with_all_that_is_in_it(
    scene: Scene, plane: ControlPlane, tmp_path: Path, namespace: str
) -> None:
    """Its Secrets and pods go at once; who ends jobs has what that takes elsewhere."""
    site = scene.site(namespace)
    with granted_everywhere(scene.admin):
        scene.start(plane, tmp_path, [namespace], site)
        site.create()
        uids = [site.make_job(f"job-{n}") for n in range(3)]
        for uid in uids:
            site.fill(uid)
        assert scene.in_store(site.uid)
        scene.admin.ask("DELETE", f"/api/v1/namespaces/{namespace}")
        eventually(
            lambda: scene.admin.get(f"/api/v1/namespaces/{namespace}") is None,
            what="the namespace to be gone",
        )
        assert not scene.in_store(site.uid)
        eventually(lambda: not scene.copies(), what="the copy to be gone")


def test_a_cluster_waits_for_its_jobs(scene: Scene, site: Site) -> None:
    site.create()
    uid = site.make_job("wordcount")
    site.fill(uid)
    scene.delete(site.namespace, "shuffleclusters", "main")
    found = scene.wait(
        site.namespace,
        "shuffleclusters",
        "main",
        lambda o: condition(o, "StorageClean").get("reason") == "JobsLeft",
    )
    assert f"{site.namespace}/wordcount" in condition(found, "StorageClean")["message"]
    assert scene.get(site.namespace, "statefulsets", "main-worker") is not None
    assert scene.in_store(uid)
    scene.delete(site.namespace, "shufflejobs", "wordcount")
    scene.wait_gone(site.namespace, "shufflejobs", "wordcount")
    scene.wait_gone(site.namespace, "shuffleclusters", "main")
    scene.wait_gone(site.namespace, "statefulsets", "main-worker")
    assert not scene.in_store(site.uid)
    assert not scene.copies()


def test_a_job_outlives_its_cluster(scene: Scene, site: Site) -> None:
    """By force, and with all that its namespace had: what its end takes is elsewhere."""
    site.create()
    uid = site.make_job("wordcount")
    site.fill(uid)
    path = scene.path(site.namespace, "shuffleclusters", "main")
    scene.delete(site.namespace, "shuffleclusters", "main")
    scene.admin.merge(path, {"metadata": {"finalizers": None}})
    scene.delete(site.namespace, "secrets", "s3")
    scene.wait_gone(site.namespace, "statefulsets", "main-worker")
    assert scene.copies() == [f"crossdock-access-{site.uid}"]
    scene.delete(site.namespace, "shufflejobs", "wordcount")
    scene.wait_gone(site.namespace, "shufflejobs", "wordcount")
    assert not scene.in_store(uid)
    assert not scene.copies(), "it was the last that needed it"


def test_manifests_that_were_exported_are_applied_again(scene: Scene, site: Site) -> None:
    """What held the job that they were of holds no other, nor says whose data it has."""
    site.create()
    site.make_job("wordcount")
    old = scene.get(site.namespace, "shufflejobs", "wordcount")
    assert old is not None
    scene.delete(site.namespace, "shufflejobs", "wordcount")
    scene.wait_gone(site.namespace, "shufflejobs", "wordcount")
    notes = dict.fromkeys(old["metadata"]["annotations"], "of-an-earlier-one")
    kept = {"finalizers": old["metadata"]["finalizers"], "annotations": notes}
    for name, reference in (
        ("wordcount", old["spec"]["clusterRef"]),
        ("nowhere", {"name": "no-such-cluster"}),
    ):
        body = {**old, "metadata": {"name": name, **kept}}
        body["spec"] = {**old["spec"], "clusterRef": reference}
        scene.admin.create(site.namespace, "shufflejobs", body)
    made = scene.wait(
        site.namespace,
        "shufflejobs",
        "wordcount",
        lambda o: condition(o, "Ready").get("status") == "True",
    )
    uid = made["metadata"]["uid"]
    assert made["metadata"]["annotations"][f"crossdock.dev/held-{uid}"] == site.uid
    site.fill(uid)
    path = scene.path(site.namespace, "shufflejobs", "wordcount")
    scene.admin.merge(path, {"metadata": kept})  # once more, as those do who sync all the time
    for name in ("wordcount", "nowhere"):
        scene.delete(site.namespace, "shufflejobs", name)
        scene.wait_gone(site.namespace, "shufflejobs", name)
    assert not scene.in_store(uid)


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_what_an_abandoned_job_left_goes_with_its_cluster(
    scene: Scene, site: Site, policy: str
) -> None:
    site.create(deletionPolicy=policy)
    uid = site.make_job("wordcount")
    site.fill(uid)
    scene.annotate(site.namespace, "shufflejobs", "wordcount", abandon_storage="objects-may-stay")
    scene.delete(site.namespace, "shufflejobs", "wordcount")
    scene.wait_gone(site.namespace, "shufflejobs", "wordcount")
    left = scene.in_store(uid)
    assert left
    scene.delete(site.namespace, "shuffleclusters", "main")
    scene.wait_gone(site.namespace, "shuffleclusters", "main")
    assert scene.in_store(site.uid) == (left if policy == "Retain" else [])
    assert not scene.copies()


def test_a_cluster_ends_its_jobs(scene: Scene, site: Site) -> None:
    site.create(jobsOnDeletion="End")
    for name in ("one", "two"):
        site.fill(site.make_job(name))
    scene.delete(site.namespace, "shuffleclusters", "main")
    scene.wait_gone(site.namespace, "shuffleclusters", "main")
    assert scene.get(site.namespace, "shufflejobs", "one") is None
    assert not scene.in_store(site.uid)


@pytest.mark.parametrize("seed", range(4))
def test_an_operator_that_is_killed_while_it_ends_jobs(scene: Scene, site: Site, seed: int) -> None:
    moments = random.Random(seed)
    site.create()
    names = [f"job-{n}" for n in range(3)]
    uids = [site.make_job(name) for name in names]
    for uid in uids:
        site.fill(uid)
    assert scene.operator is not None
    for name in names:
        scene.delete(site.namespace, "shufflejobs", name)
    for _ in range(3):
        time.sleep(moments.uniform(0, 2.5))  # the moment is the point of the test
        scene.operator.kill9_for_another(scene.admin)
        for name, uid in zip(names, uids, strict=True):
            if scene.get(site.namespace, "shufflejobs", name) is None:
                assert not scene.in_store(uid), f"seed {seed}"
        scene.operator.start()
    for name in names:
        scene.wait_gone(site.namespace, "shufflejobs", name)
    assert not scene.in_store(site.uid), f"seed {seed}"
    assert not any(site.left_on_disks(uid) for uid in uids), f"seed {seed}"


def test_two_clusters_in_one_store(
    scene: Scene, plane: ControlPlane, tmp_path: Path, namespace: str
) -> None:
    sites = [scene.site(namespace), scene.site(scene.admin.new_namespace())]
    for each in sites:
        grant(scene.admin, each.namespace)
    scene.start(plane, tmp_path, [each.namespace for each in sites], *sites)
    for each in sites:
        each.create()
        each.fill(each.make_job("wordcount"))
    first, second = sites
    kept = scene.in_store(second.uid)
    scene.delete(first.namespace, "shuffleclusters", "main")
    scene.delete(first.namespace, "shufflejobs", "wordcount")
    scene.wait_gone(first.namespace, "shuffleclusters", "main")
    assert not scene.in_store(first.uid)
    assert scene.in_store(second.uid) == kept
    assert scene.copies() == [f"crossdock-access-{second.uid}"]
