"""What has a name that was another's before: the earlier one's objects are nobody else's."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from administrator import OURS, Administrator, Object
from api_proxy import ApiProxy
from control_plane import ControlPlane
from scenes import Scene, condition
from specs import cluster, job
from staged_jobs import JobScene, job_scene
from staged_jobs import condition as condition_of

from crossdock.wire import tokens
from harness import eventually

pytestmark = pytest.mark.usefixtures("_controllers")
_LABELS: Final = {
    "crossdock.dev/cluster": "main",
    "app.kubernetes.io/managed-by": "crossdock-operator",
}


@pytest.fixture
def proxy(plane: ControlPlane) -> Iterator[ApiProxy]:
    with ApiProxy(plane) as found:
        yield found


@pytest.fixture
def jobs(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path, proxy: ApiProxy
) -> Iterator[JobScene]:
    """An operator behind the proxy, with a real worker."""
    with job_scene(plane, admin, namespace, tmp_path, server=proxy.url) as found:
        yield found


def make_other(admin: Administrator, namespace: str) -> Object:
    """Make a living cluster of which nothing is made; return the reference of what it owns."""
    made = admin.create(namespace, "shuffleclusters", cluster("other", paused=True))
    return {
        "apiVersion": made["apiVersion"],
        "kind": made["kind"],
        "name": "other",
        "uid": made["metadata"]["uid"],
        "controller": True,
    }


def owners(found: Object) -> list[str]:
    """Return the uids of what an object belongs to."""
    return [each["uid"] for each in found["metadata"].get("ownerReferences", ())]


def apply_workers(scene: Scene, owner: Object) -> None:
    """Make `main-worker` as an operator does, for another cluster."""
    container = {"name": "worker", "image": "example.com/worker"}
    body: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "main-worker", "labels": _LABELS, "ownerReferences": [owner]},
        "spec": {
            "replicas": 0,
            "serviceName": "main-worker",
            "selector": {"matchLabels": {"app": "w"}},
            "template": {
                "metadata": {"labels": {"app": "w"}},
                "spec": {"containers": [container]},
            },
        },
    }
    path = scene.path("statefulsets", "main-worker")
    query = "fieldManager=crossdock-operator-cluster&force=true"
    scene.admin.ask("PATCH", f"{path}?{query}", body, content_type="application/apply-patch+yaml")


@pytest.mark.parametrize("labelled", [True, False])
def test_what_a_living_cluster_has_is_not_taken_from_it(scene: Scene, *, labelled: bool) -> None:
    """Labelled as `main`'s the watch tells of it; else it is known once it is asked for."""
    owner = make_other(scene.admin, scene.namespace)
    apply_workers(scene, owner)
    if not labelled:
        labels = {"crossdock.dev/cluster": "other"}
        path = scene.path("statefulsets", "main-worker")
        scene.admin.merge(path, {"metadata": {"labels": labels}})
    made = scene.create()
    status = scene.wait_status(
        lambda s: (
            bool(s.get("conditions"))
            and "cluster other" in condition(s, "Progressing")["message"].lower()
        )
    )
    assert status["phase"] == "Degraded"
    for plural, name in (("services", "main"), ("services", "main-worker")):
        assert owners(scene.wait(plural, name)) == [made["metadata"]["uid"]]
    workers = scene.get("statefulsets", "main-worker")
    assert workers is not None
    assert owners(workers) == [owner["uid"]], "the cluster `other` has it still"
    scene.admin.ask("DELETE", scene.path("statefulsets", "main-worker"))
    scene.wait("statefulsets", "main-worker", lambda o: owners(o) == [made["metadata"]["uid"]])
    scene.wait_status(lambda s: condition(s, "Progressing")["reason"] == "RollingOut")


def test_a_cluster_that_is_applied_again_waits_for_the_end_of_its_objects(scene: Scene) -> None:
    """The garbage collector may be late: what it is to delete is not made to be the new one's."""
    before = scene.create()["metadata"]["uid"]
    workers, service = (
        scene.path(plural, "main-worker") for plural in ("statefulsets", "services")
    )
    held = {"metadata": {"finalizers": ["tests.crossdock.dev/hold"]}}
    for plural, path in (("statefulsets", workers), ("services", service)):
        scene.wait(plural, "main-worker")
        scene.admin.merge(path, held)
    scene.admin.ask("DELETE", scene.path("shuffleclusters", "main"))
    eventually(lambda: scene.get("shuffleclusters", "main") is None, seconds=30, what="its end")
    after = scene.create()["metadata"]["uid"]
    scene.wait_status(
        lambda s: (
            bool(s.get("conditions")) and condition(s, "Progressing")["reason"] == "WaitsForEarlier"
        )
    )
    for path in (workers, service):
        assert owners(scene.admin.ask("GET", path)) == [before]
    scene.admin.merge(service, {"metadata": {"finalizers": []}})
    scene.wait("services", "main-worker", lambda o: owners(o) == [after])
    scene.admin.merge(workers, {"metadata": {"finalizers": []}})
    scene.wait("statefulsets", "main-worker", lambda o: owners(o) == [after])


def test_a_pod_of_an_earlier_cluster_is_no_peer(scene: Scene) -> None:
    """It drains for up to an hour, under the same names."""
    uid = scene.create(workers={"replicas": 1})["metadata"]["uid"]
    pod = scene.wait("pods", "main-worker-0")
    labels = {**pod["metadata"]["labels"], "crossdock.dev/cluster-uid": "earlier"}
    spec = {k: v for k, v in pod["spec"].items() if k not in {"hostname", "nodeName"}}
    body = {"metadata": {"name": "earlier", "labels": labels}, "spec": spec}
    assert pod["metadata"]["labels"]["crossdock.dev/cluster-uid"] == uid
    scene.admin.ask("POST", scene.path("pods", ""), body)
    for number, name in enumerate(("earlier", "main-worker-0")):
        address = f"10.9.8.{number + 1}"
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
        scene.admin.merge(f"{scene.path('pods', name)}/status", {"status": status})
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{scene.namespace}/endpointslices"

    def peers() -> set[str]:
        query = "labelSelector=kubernetes.io/service-name=main-worker"
        found = scene.admin.ask("GET", f"{slices}?{query}")["items"]
        endpoints = [each for one in found for each in one.get("endpoints") or ()]
        return {each["targetRef"]["name"] for each in endpoints}

    assert eventually(peers, seconds=30, what="peers") == {"main-worker-0"}


def test_the_key_of_another_cluster_signs_nothing(jobs: JobScene) -> None:
    admin, namespace = jobs.admin, jobs.namespace
    owner = make_other(admin, namespace)
    key = f"/api/v1/namespaces/{namespace}/secrets/main-key"
    path = f"{OURS}/namespaces/{namespace}/shuffleclusters/main"
    jobs.until(
        "the store to be looked at",
        lambda: (
            condition_of(admin.ask("GET", path).get("status") or {}, "StoreReachable").get("status")
            == "True"
        ),
    )
    admin.merge(key, {"metadata": {"ownerReferences": [owner]}})
    main = admin.ask("GET", path)
    admin.create(namespace, "shufflejobs", job("engine", clusterRef={"name": "main"}))
    jobs.wait(
        lambda s: "of another ShuffleCluster" in condition_of(s, "Ready").get("message", ""),
        "engine",
    )
    assert owners(admin.ask("GET", key)) == [owner["uid"]]
    assert admin.get(f"/api/v1/namespaces/{namespace}/secrets/engine-connection") is None
    admin.ask("DELETE", key)

    def made() -> Object | None:
        found = admin.get(key)
        return found if found is not None and owners(found) == [main["metadata"]["uid"]] else None

    found = jobs.until("a key of its own", made)
    assert found is not None
    for worker in jobs.workers:
        write_keys(worker.key_file, found)
    jobs.wait(lambda s: condition_of(s, "Ready").get("status") == "True", "engine")


def write_keys(file: Path, secret: Object) -> None:
    """Do as kubelets do with the keys' Secret."""
    file.write_bytes(base64.b64decode(secret["data"]["keys"]))


def test_no_job_is_ready_by_the_secret_of_the_one_before(jobs: JobScene, proxy: ApiProxy) -> None:
    """No watch tells that it went."""
    admin, namespace = jobs.admin, jobs.namespace
    path = f"/api/v1/namespaces/{namespace}/secrets/engine-connection"

    def apply() -> str:
        body = job("engine", clusterRef={"name": "main"})
        made = admin.create(namespace, "shufflejobs", body)
        return str(made["metadata"]["uid"])

    apply()
    jobs.wait(lambda s: condition_of(s, "Ready").get("status") == "True", "engine")
    proxy.silence("secrets")
    admin.ask("DELETE", jobs.path("engine"))
    jobs.until("it is gone", lambda: jobs.get("engine") is None)
    uid = apply()
    jobs.wait(lambda s: condition_of(s, "Ready").get("status") == "True", "engine")
    assert owners(admin.ask("GET", path)) == [uid]
    proxy.expire()


def test_tokens_are_of_the_keys_that_there_are(jobs: JobScene) -> None:
    """Who deletes the Secret with the keys has all tokens made anew, and not some hours later."""
    admin, root = jobs.admin, f"/api/v1/namespaces/{jobs.namespace}/secrets"
    admin.create(jobs.namespace, "shufflejobs", job("engine", clusterRef={"name": "main"}))
    jobs.wait(lambda s: condition_of(s, "Ready").get("status") == "True", "engine")
    before = admin.ask("GET", f"{root}/engine-connection")["data"]["token"]
    admin.ask("DELETE", f"{root}/main-key")

    def keys() -> list[bytes] | None:
        made = admin.get(f"{root}/main-key")
        return made and tokens.parse_keys(base64.b64decode(made["data"]["keys"]).decode())

    made = jobs.until("other keys", keys)
    assert made is not None

    def token() -> str | None:
        found = admin.ask("GET", f"{root}/engine-connection")["data"]["token"]
        return None if found == before else base64.b64decode(found).decode()

    renewed = jobs.until("another token", token)
    assert renewed is not None
    assert tokens.verify(made, renewed).may(tokens.Right.WRITE)


def test_a_stage_goes_on_once_the_keys_are_right_again(jobs: JobScene) -> None:
    """Workers and operator take another key at different times; no job fails for that."""
    admin, key = jobs.admin, f"/api/v1/namespaces/{jobs.namespace}/secrets/main-key"
    right = admin.ask("GET", key)["data"]["keys"]
    jobs.hold("count")
    jobs.apply()
    jobs.until("the second stage", lambda: jobs.starts()["count-0"] and jobs.starts()["count-1"])
    secret = f"/api/v1/namespaces/{jobs.namespace}/secrets/words-connection"
    before = admin.ask("GET", secret)["data"]["token"]
    wrong = base64.b64encode(base64.b64encode(b"another key of thirty-two bytes!")).decode()
    admin.merge(key, {"data": {"keys": wrong}})
    jobs.until("tokens of it", lambda: admin.ask("GET", secret)["data"]["token"] != before)
    time.sleep(6)  # for some seconds the operator itself goes on with the key that it has read
    jobs.release("count")
    seen = jobs.wait(
        lambda s: (
            s.get("phase") in {"Failed", "Succeeded"}
            or condition_of(s, "Running").get("reason") == "WaitsForWorkers"
        )
    )
    assert seen["phase"] in {"Running", "Succeeded"}, (
        "where all is slow it has not read another yet"
    )
    if seen["phase"] == "Running":
        assert "token" in condition_of(seen, "Running")["message"]
    admin.merge(key, {"data": {"keys": right}})
    jobs.wait_phase("Succeeded")
