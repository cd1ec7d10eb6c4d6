"""The operator as a process, with no more rights than it needs, on a real control plane."""

import base64
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from administrator import OURS, Administrator, Object
from control_plane import ControlPlane, control_plane
from operators import OperatorProcess, running_operator
from roles import grant
from specs import cluster, job

from crossdock.wire import tokens
from harness import eventually

pytestmark = pytest.mark.usefixtures("_controllers")
PATHS = {
    "statefulsets": "/apis/apps/v1",
    "services": "/api/v1",
    "serviceaccounts": "/api/v1",
    "secrets": "/api/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "pods": "/api/v1",
}
SECONDS = 30.0


class Scene:
    """One namespace, in which only restricted pods may run, with an operator for it."""

    def __init__(self, admin: Administrator, namespace: str, operator: OperatorProcess) -> None:
        self.admin = admin
        self.namespace = namespace
        self.operator = operator

    def path(self, plural: str, name: str) -> str:
        root = OURS if plural.startswith("shuffle") else PATHS[plural]
        return f"{root}/namespaces/{self.namespace}/{plural}/{name}"

    def get(self, plural: str, name: str) -> Object | None:
        return self.admin.get(self.path(plural, name))

    def create(self, **spec: Any) -> Object:
        return self.admin.create(self.namespace, "shuffleclusters", cluster(**spec))

    def change(self, **spec: Any) -> Object:
        return self.admin.merge(self.path("shuffleclusters", "main"), {"spec": spec})

    def wait(self, plural: str, name: str, holds: Callable[[Object], object] = bool) -> Object:
        def probe() -> Object | None:
            found = self.get(plural, name)
            return found if found is not None and holds(found) else None

        try:
            found = eventually(probe, seconds=SECONDS, what=f"{plural} {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.operator.log()[-3000:]}") from None
        assert found is not None
        return found

    def wait_status(self, holds: Callable[[Object], object]) -> Object:
        found = self.wait("shuffleclusters", "main", lambda o: holds(o.get("status") or {}))
        status: Object = found["status"]
        return status

    def make_ready(self, count: int) -> None:
        """Play the kubelet: say of so many worker pods that they are ready."""
        for n in range(count):
            self.wait("pods", f"main-worker-{n}")
            conditions = [{"type": "Ready", "status": "True"}]
            status = {"phase": "Running", "conditions": conditions}
            self.admin.merge(f"{self.path('pods', f'main-worker-{n}')}/status", {"status": status})


@pytest.fixture
def scene(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> Iterator[Scene]:
    grant(admin, namespace)
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    admin.merge(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": enforce}})
    with running_operator(plane, tmp_path, namespace) as operator:
        yield Scene(admin, namespace, operator)


def condition(status: Object, kind: str) -> Object:
    found: Object = next(c for c in status["conditions"] if c["type"] == kind)
    return found


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
    status = scene.wait_status(lambda s: s.get("phase") == "Ready")
    assert status["summary"] == "2/2"
    assert condition(status, "Available")["status"] == "True"
    assert condition(status, "Progressing")["reason"] == "RolledOut"
    assert condition(status, "StorageClean")["status"] == "Unknown"

    scene.admin.merge(f"{scene.path('shuffleclusters', 'main')}/scale", {"spec": {"replicas": 3}})
    scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 3)
    scene.make_ready(3)
    scene.wait_status(lambda s: s["summary"] == "3/3" and s["phase"] == "Ready")

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
    before = versions(scene)
    seen = scene.operator.log().count("applied")
    scene.change(audit={"intervalSeconds": 120})  # is of no child
    scene.wait_status(lambda s: s.get("observedGeneration") == 2)
    after = versions(scene)
    assert after == before
    assert scene.operator.log().count("applied") == seen


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
        scene.operator.kill9()
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
        assert "leads" not in second.log()
        assert second.running
        scene.operator.kill9()
        scene.change(workers={"replicas": 4})
        scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 4)
        assert "transitions=2" in second.log()


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
