"""A ShuffleJob's owner: its end or deletion ends the job."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from administrator import Administrator, Object
from control_plane import ControlPlane
from specs import job
from staged_jobs import JobScene, condition, job_scene

from crossdock_operator.plan.owners import OwnerKind
from harness import connect_all, eventually

pytestmark = pytest.mark.usefixtures("_controllers")

SPARK: Final = "sparkoperator.k8s.io"
POD: Final = {"apiVersion": "v1", "kind": "Pod"}
JOB: Final = {"apiVersion": "batch/v1", "kind": "Job"}
APPLICATION: Final = {"apiVersion": f"{SPARK}/v1beta2", "kind": "SparkApplication"}


@pytest.fixture
def scene(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> Iterator[JobScene]:
    owners = [OwnerKind("SparkApplication", SPARK)]
    with job_scene(plane, admin, namespace, tmp_path, owners=owners) as found:
        yield found


def make_pod(scene: JobScene, name: str, *finalizers: str) -> str:
    """Make a pod that does nothing; return its uid."""
    containers = [{"name": "driver", "image": "example.com/driver"}]
    metadata = {"name": name, "finalizers": list(finalizers)}
    body = {"metadata": metadata, "spec": {"containers": containers}}
    made = scene.admin.ask("POST", f"/api/v1/namespaces/{scene.namespace}/pods", body)
    uid: str = made["metadata"]["uid"]
    return uid


def pod_path(scene: JobScene, name: str) -> str:
    return f"/api/v1/namespaces/{scene.namespace}/pods/{name}"


def make_job(scene: JobScene, name: str) -> None:
    """Make a Job that the kubelet runs, and that fails when `end-NAME` is there."""
    wait = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(.1)"
    command = ["python", "-c", f"{wait}\nsys.exit('told to fail')", f"{scene.control}/end-{name}"]
    containers = [{"name": "main", "image": "example.com/job", "command": command}]
    template = {"spec": {"restartPolicy": "Never", "containers": containers}}
    spec = {"completionMode": "Indexed", "completions": 1, "backoffLimit": 0, "template": template}
    path = f"/apis/batch/v1/namespaces/{scene.namespace}/jobs"
    scene.admin.ask("POST", path, {"metadata": {"name": name}, "spec": spec})


def install_applications(scene: JobScene) -> None:
    """Make the CRD of Spark applications, as far as it counts."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1beta2", "served": True, "storage": True, "subresources": {"status": {}}}
    body = {
        "metadata": {
            "name": f"sparkapplications.{SPARK}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, as its project's is"},
        },
        "spec": {
            "group": SPARK,
            "scope": "Namespaced",
            "names": {"plural": "sparkapplications", "kind": "SparkApplication"},
            "versions": [version | {"schema": {"openAPIV3Schema": anything}}],
        },
    }
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    if scene.admin.get(f"{crds}/{body['metadata']['name']}") is None:  # type: ignore[index]
        scene.admin.ask("POST", crds, body)
    where = applications(scene)
    eventually(lambda: _served(scene, where), what="applications to be served")


def _served(scene: JobScene, path: str) -> bool:
    try:
        return scene.admin.get(path) is not None
    except Exception:  # noqa: BLE001 -- 429 while it begins
        return False


def applications(scene: JobScene) -> str:
    return f"/apis/{SPARK}/v1beta2/namespaces/{scene.namespace}/sparkapplications"


def make_application(scene: JobScene, name: str) -> None:
    body = {**APPLICATION, "metadata": {"name": name}, "spec": {}}
    scene.admin.ask("POST", applications(scene), body)


def attached(scene: JobScene, name: str, owner: dict[str, str], **spec: Any) -> str:
    """Make a job of an engine, whose owner has its name; return its uid."""
    body = job(name, clusterRef={"name": "main"}, owner={**owner, "name": name}, **spec)
    uid: str = scene.admin.create(scene.namespace, "shufflejobs", body)["metadata"]["uid"]
    return uid


def ended(scene: JobScene, name: str, phase: str, reason: str) -> Object:
    """Wait for a job's end; return its status when there is nothing left to do."""
    scene.wait(lambda s: s.get("phase") == phase, name, what=f"{name}: {phase}")
    status = scene.wait(lambda s: condition(s, "Running").get("reason") == "Ended", name)
    for kind, good in (("Complete", phase == "Succeeded"), ("Failed", phase == "Failed")):
        assert condition(status, kind)["status"] == str(good)
        assert condition(status, kind)["reason"] == reason
    return status


def test_the_end_of_an_owner_ends_its_job(scene: JobScene) -> None:
    install_applications(scene)
    pods = ("done", "broken", "deleted", "replaced", "stays", "kept")
    lifecycles = {"kept": {"lifecycle": {"keepOnFailure": True}}}
    uids = {}
    for name in pods:
        make_pod(scene, name)
        uids[name] = attached(scene, name, POD, **lifecycles.get(name, {}))
    make_application(scene, "spark")
    uids["spark"] = attached(scene, "spark", APPLICATION)
    make_job(scene, "batch")
    scene.hold("split")
    scene.apply("batch", owner={**JOB, "name": "batch"})
    for name, uid in uids.items():
        status = scene.wait_phase("Ready", name)
        assert condition(status, "Accepted")["reason"] == "Accepted"
        write(scene, uid, name)
    scene.until("tasks run", lambda: scene.starts()["split-0"])

    say = {"message": "out of luck", "reason": "Evicted"}
    for name, phase in (("done", "Succeeded"), ("broken", "Failed"), ("kept", "Failed")):
        status = {"phase": phase} | (say if phase == "Failed" else {})
        scene.admin.merge(f"{pod_path(scene, name)}/status", {"status": status})
    for name in ("deleted", "replaced"):
        scene.admin.ask("DELETE", f"{pod_path(scene, name)}?gracePeriodSeconds=0")
    make_pod(scene, "replaced")
    state = {"state": "COMPLETED"}
    path = f"{applications(scene)}/spark/status"
    scene.admin.merge(path, {"status": {"applicationState": state}})
    scene.say("end-batch")

    ended(scene, "done", "Succeeded", "OwnerSucceeded")
    failed = condition(ended(scene, "broken", "Failed", "OwnerFailed"), "Failed")
    assert failed["message"] == "Pod broken has failed: Evicted: out of luck"
    ended(scene, "deleted", "Failed", "OwnerDeleted")
    said = condition(ended(scene, "replaced", "Failed", "OwnerDeleted"), "Failed")["message"]
    # Whether the operator looks between the two is chance; `test_owner_rules` has both.
    assert said.startswith(("Pod replaced was deleted", "Pod replaced was replaced"))
    ended(scene, "kept", "Failed", "OwnerFailed")
    ended(scene, "spark", "Succeeded", "OwnerSucceeded")
    said = condition(ended(scene, "batch", "Failed", "OwnerFailed"), "Failed")["message"]
    assert "Job batch has failed: BackoffLimitExceeded" in said
    scene.until("no task runs", lambda: not scene.kubelet.running())
    assert (scene.get("stays") or {})["status"]["phase"] == "Ready"

    there = {name for name, uid in uids.items() if held(scene, uid)}
    assert there == {"stays", "kept"}, "what else they wrote is gone"
    events = scene.events()
    assert (events["Complete"], events["Failed"]) == (2, 5)


def write(scene: JobScene, uid: str, name: str) -> None:
    """Play the engine: write something, with what the connection Secret has."""
    path = f"/api/v1/namespaces/{scene.namespace}/secrets/{name}-connection"
    token = base64.b64decode(scene.admin.ask("GET", path)["data"]["token"]).decode()
    with connect_all(scene.workers, token=token) as client, client.job(uid) as handle:
        shuffle = handle.shuffle("exchange", partitions=2, maps=1)
        with shuffle.writer(map_id=0) as writer:
            writer.write(0, b"data")


def held(scene: JobScene, uid: str) -> bool:
    """Whether the worker has anything of a job, and serves it."""
    (worker,) = scene.workers
    answer = worker.request("GET", f"/v1/jobs/{uid}", token=worker.admin_token())
    return answer.status == 200 and bool(answer.json()["disk_bytes"])


def test_owners_that_cannot_be_or_are_not_there_yet(scene: JobScene) -> None:
    other = {"apiVersion": "ray.io/v1", "kind": "RayJob"}
    attached(scene, "ray", other)
    status = scene.wait(lambda s: condition(s, "Accepted"), "ray")
    refused = condition(status, "Accepted")
    assert (refused["status"], refused["reason"]) == ("False", "OwnerKindNotAllowed")
    assert "start it with --owner-kinds RayJob.ray.io" in refused["message"]
    assert "let its role list rayjobs" in refused["message"]

    attached(scene, "driver", POD)
    scene.apply("staged", owner={**POD, "name": "driver"})
    status = scene.wait_phase("Ready", "driver")  # the driver may need the connection to start
    assert condition(status, "Accepted")["reason"] == "WaitsForOwner"
    status = scene.wait(lambda s: condition(s, "Accepted"), "staged")
    waits = condition(status, "Accepted")
    assert (waits["status"], waits["reason"]) == ("False", "OwnerNotFound")
    assert waits["message"] == (
        "there is no Pod driver yet; the job waits for 600 s from its creation"
    )
    make_pod(scene, "driver")
    scene.wait_phase("Succeeded", "staged")
    status = scene.wait(lambda s: s.get("ownerUid"), "driver")
    assert condition(status, "Accepted")["reason"] == "Accepted"

    scene.kill_operator()
    scene.admin.ask("DELETE", f"{pod_path(scene, 'driver')}?gracePeriodSeconds=0")
    make_pod(scene, "driver")
    scene.operator.start()
    ended(scene, "driver", "Failed", "OwnerDeleted")  # though this operator has seen one alone


def test_all_again_under_the_same_names(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    """A new job's owner is looked for at once: what was seen before was that of another."""
    rarely = ["--look-seconds", "600"]
    with job_scene(plane, admin, namespace, tmp_path, operator_options=rarely) as scene:
        for _ in range(2):
            uid = make_pod(scene, "driver")
            attached(scene, "driver", POD)
            status = scene.wait_phase("Ready", "driver")
            assert status["ownerUid"] == uid
            scene.admin.ask("DELETE", scene.path("driver"))
            scene.until("the job to go", lambda: scene.get("driver") is None)
            scene.admin.ask("DELETE", f"{pod_path(scene, 'driver')}?gracePeriodSeconds=0")


def test_an_earlier_owner_that_is_still_going_is_not_the_jobs(scene: JobScene) -> None:
    make_pod(scene, "driver", "tests.crossdock.dev/look")
    scene.admin.ask("DELETE", f"{pod_path(scene, 'driver')}?gracePeriodSeconds=0")
    attached(scene, "driver", POD)
    status = scene.wait_phase("Ready", "driver")
    assert condition(status, "Accepted")["reason"] == "WaitsForOwner"
    scene.admin.merge(pod_path(scene, "driver"), {"metadata": {"finalizers": None}})
    uid = make_pod(scene, "driver")
    status = scene.wait(lambda s: s.get("ownerUid"), "driver")
    assert status["ownerUid"] == uid
