"""The operator as a process, with no more rights than it needs, on a real control plane."""

import base64
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from administrator import Administrator, Object
from control_plane import ControlPlane, control_plane
from operators import running_operator
from roles import grant
from scenes import SECONDS, Scene, condition
from specs import job

from crossdock.wire import tokens
from harness import eventually

pytestmark = pytest.mark.usefixtures("_controllers")


def test_a_cluster_from_apply_to_gone(scene: Scene) -> None:
    scene.create(workers={"replicas": 2})
    workers = scene.wait("statefulsets", "main-worker")
    assert workers["spec"]["replicas"] == 2
    for plural in ("services", "serviceaccounts", "poddisruptionbudgets", "networkpolicies"):
        scene.wait(plural, "main-worker")
    scene.wait("services", "main")
    keys = base64.b64decode(scene.wait("secrets", "main-key")["data"]["keys"]).decode()
    assert tokens.parse_keys(keys), "workers can read the key file"

    status = scene.wait_status(lambda s: s.get("phase") == "Pending")
    assert (status["summary"], condition(status, "Available")["status"]) == ("0/2", "False")
    scene.make_ready(2)
    status = scene.wait_status(
        lambda s: (
            s.get("phase") == "Ready" and condition(s, "Progressing").get("reason") == "RolledOut"
        )
    )
    assert status["summary"] == "2/2"
    assert condition(status, "Available")["status"] == "True"
    assert condition(status, "StorageClean")["status"] == "Unknown"

    scene.admin.merge(f"{scene.path('shuffleclusters', 'main')}/scale", {"spec": {"replicas": 3}})
    scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 3)
    scene.make_ready(3)
    scene.wait_status(lambda s: s["summary"] == "3/3" and s["phase"] == "Ready")
    scene.hold_pod("main-worker-2")
    scene.change(workers={"replicas": 2})
    status = scene.wait_status(lambda s: s["workers"]["draining"] == 1)
    assert status["workers"]["replicas"] == 3
    scene.let_pod_go("main-worker-2")
    scene.wait_status(lambda s: s["workers"]["draining"] == 0 and s["phase"] == "Ready")

    scene.admin.ask("DELETE", scene.path("shuffleclusters", "main"))
    for plural, name in (("statefulsets", "main-worker"), ("secrets", "main-key"),
                         ("services", "main")):  # fmt: skip
        eventually(lambda p=plural, n=name: scene.get(p, n) is None, seconds=SECONDS, what=plural)
    assert scene.operator.terminate() == 0, scene.operator.log()[-3000:]
    lease = scene.admin.get(
        f"/apis/coordination.k8s.io/v1/namespaces/{scene.namespace}/leases/crossdock-operator"
    )
    assert lease is not None
    assert not lease["spec"].get("holderIdentity"), "the next one need not wait"


def test_drift_is_repaired(scene: Scene) -> None:
    scene.create()
    scene.wait("statefulsets", "main-worker")
    scene.admin.merge(scene.path("statefulsets", "main-worker"), {"spec": {"replicas": 7}})
    scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 2)
    labels = {"metadata": {"labels": {"app.kubernetes.io/name": "other", "theirs": "stays"}}}
    scene.admin.merge(scene.path("services", "main"), labels)
    found = scene.wait(
        "services",
        "main",
        lambda o: o["metadata"]["labels"]["app.kubernetes.io/name"] == "crossdock-worker",
    )
    assert found["metadata"]["labels"]["theirs"] == "stays"
    scene.admin.ask("DELETE", scene.path("poddisruptionbudgets", "main-worker"))
    scene.wait("poddisruptionbudgets", "main-worker")


def test_nothing_is_written_when_nothing_changes(scene: Scene) -> None:
    scene.create()
    scene.wait_status(lambda s: s.get("phase") == "Pending")
    # Its controller writes to it, too, until it has said of all pods that they are there.
    scene.wait("statefulsets", "main-worker", _has_all_pods)
    before = versions(scene)
    seen = len(scene.operator.events("applied"))
    scene.change(audit={"intervalSeconds": 120})  # is of no child
    scene.wait_status(lambda s: s.get("observedGeneration") == 2)
    after = versions(scene)
    assert after == before
    assert len(scene.operator.events("applied")) == seen


def _has_all_pods(workers: Object) -> bool:
    status, wanted = workers["status"], workers["spec"]["replicas"]
    known = status.get("observedGeneration") == workers["metadata"]["generation"]
    counts = {status.get(f"{each}Replicas") for each in ("current", "updated")}
    return known and counts == {wanted} == {status.get("replicas")}


def versions(scene: Scene) -> dict[str, str]:
    found = {}
    for plural, name in (("statefulsets", "main-worker"), ("services", "main-worker"),
                         ("services", "main"), ("networkpolicies", "main-worker"),
                         ("serviceaccounts", "main-worker"), ("secrets", "main-key")):  # fmt: skip
        body = scene.wait(plural, name)
        found[f"{plural}/{name}"] = body["metadata"]["resourceVersion"]
    return found


def test_what_the_api_server_refuses_is_told(scene: Scene) -> None:
    template = {"spec": {"containers": [{"name": "worker", "imagePullPolicy": "Whenever"}]}}
    scene.create(workers={"podTemplate": template})
    status = scene.wait_status(lambda s: s.get("phase") == "Degraded")
    assert "imagePullPolicy" in condition(status, "Progressing")["message"]
    scene.wait("services", "main")
    scene.change(workers={"podTemplate": None})
    scene.wait_status(lambda s: s.get("phase") == "Pending")


def test_paused(scene: Scene) -> None:
    scene.create(paused=True)
    scene.wait_status(lambda s: s.get("phase") == "Paused")
    assert scene.get("statefulsets", "main-worker") is None
    scene.change(paused=False)
    scene.wait("statefulsets", "main-worker")


@pytest.mark.parametrize("seed", range(3))
def test_an_operator_that_is_killed(scene: Scene, seed: int) -> None:
    """At any moment; another one finishes what it began, and makes no second key."""
    moments = random.Random(seed)
    scene.create()
    keys = set()
    for replicas in (3, 4):
        time.sleep(moments.uniform(0, 3))  # the moment is the point of the test
        scene.operator.kill9_for_another(scene.admin)
        if found := scene.get("secrets", "main-key"):
            keys.add(found["data"]["keys"])
        scene.change(workers={"replicas": replicas})
        scene.operator.start()
    scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 4)
    scene.make_ready(4)
    scene.wait_status(lambda s: s.get("summary") == "4/4" and s["phase"] == "Ready")
    keys.add(scene.wait("secrets", "main-key")["data"]["keys"])
    assert len(keys) == 1, f"seed {seed}"


def test_a_second_operator_waits(
    scene: Scene, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scene.create()
    scene.wait("statefulsets", "main-worker")
    with running_operator(plane, tmp_path_factory.mktemp("second"), scene.namespace) as second:
        scene.change(workers={"replicas": 3})
        scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 3)
        assert not second.events("leads")
        assert second.running
        scene.operator.kill9()
        scene.change(workers={"replicas": 4})
        scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 4)
        assert [e["transitions"] for e in second.events("leads")] == [2]


def test_an_operator_that_lost_its_lease_ends(scene: Scene) -> None:
    scene.create()
    scene.wait("statefulsets", "main-worker")
    root = "/apis/coordination.k8s.io/v1/namespaces"
    path = f"{root}/{scene.namespace}/leases/crossdock-operator"
    scene.admin.merge(path, {"spec": {"holderIdentity": "another"}})
    eventually(lambda: scene.operator.ended() is not None, seconds=SECONDS, what="its end")
    assert scene.operator.ended() == 1
    assert "another operator took the lease" in scene.operator.log()
    lease = scene.admin.ask("GET", path)
    assert lease["spec"]["holderIdentity"] == "another", "it does not touch what is not its own"


def test_without_crds_it_says_so(tmp_path: Path) -> None:
    with control_plane(tmp_path) as bare:
        admin = Administrator(bare)
        namespace = admin.new_namespace()
        grant(admin, namespace)
        with running_operator(bare, tmp_path, namespace) as operator:
            eventually(lambda: operator.ended() is not None, seconds=SECONDS, what="its end")
            assert operator.ended() == 2
            assert "kubectl apply -f crds/" in operator.log()


def test_a_job_waits_for_its_cluster(scene: Scene) -> None:
    def accepted(reason: str) -> Callable[[Object], bool]:
        return lambda o: (
            [
                c["reason"]
                for c in o.get("status", {}).get("conditions", ())
                if c["type"] == "Accepted"
            ]
            == [reason]
        )

    scene.admin.create(scene.namespace, "shufflejobs", job(clusterRef={"name": "main"}))
    scene.wait("shufflejobs", "wordcount", accepted("ClusterNotFound"))
    scene.create()
    scene.wait("shufflejobs", "wordcount", accepted("Accepted"))
    eventually(lambda: scene.operator.events("the job is accepted"), what="its log")
    assert len(scene.operator.events("the job is accepted")) == 1
