"""What the operator says of itself, who leads, what it looks after, and what it may do."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from administrator import OURS, Administrator
from attached_jobs import Engine
from audit import Asked, asked
from control_plane import ADMIN_TOKEN, ControlPlane, control_plane
from operators import running_operator
from roles import grant, grant_all
from scenes import SECONDS, Scene, condition
from specs import job
from staged_jobs import JobScene, job_scene

from crossdock_operator.rbac import looked_after, own_namespace, reviews
from harness import eventually

pytestmark = pytest.mark.usefixtures("_controllers")
PAUSED = {"metadata": {"annotations": {"crossdock.dev/paused": "true"}}}
RESUMED = {"metadata": {"annotations": {"crossdock.dev/paused": None}}}


def test_health_and_metrics(scene: Scene) -> None:
    scene.create()
    scene.wait_status(lambda s: s.get("phase") == "Pending")
    operator = scene.operator
    eventually(lambda: operator.fetch("/readyz")[0] == 200, seconds=SECONDS, what="it to be ready")
    assert operator.fetch("/healthz") == (200, '{"problems": []}')
    assert operator.metric("crossdock_operator_leader") == 1
    assert operator.metric("crossdock_operator_objects", kind="ShuffleCluster") == 1
    looks = "crossdock_operator_reconciles_total"
    # What a look has written is seen before the look has ended, and by the operator itself later.
    failing = "crossdock_operator_clusters_failing"
    for probe, what in (
        (lambda: operator.metric(looks, kind="ShuffleCluster", outcome="done") >= 1, "a look"),
        (lambda: operator.metric("crossdock_operator_reconcile_seconds_count") >= 1, "its time"),
        (lambda: operator.metric(failing, condition="Available") == 1, "that it has no worker"),
    ):
        eventually(probe, what=what)
    calls = "crossdock_operator_api_calls_total"
    assert operator.metric(calls, verb="patch", resource="services", code="201") == 2
    assert operator.metric(calls, verb="watch", resource="shufflejobs", code="200") == 1
    assert operator.metric(calls, verb="update", resource="leases") >= 0
    assert operator.metric("crossdock_operator_watch_age_seconds", resource="secrets") > 0
    assert operator.metric(failing, condition="StorageClean") == 0
    assert scene.namespace not in operator.fetch("/metrics")[1], "no label names an object"


def test_a_leader_that_was_held_up_does_nothing_more(
    scene: Scene, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its process stood still; another leads by the time it goes on."""
    scene.create()
    scene.wait_status(lambda s: s.get("phase") == "Pending")
    first = scene.operator
    with running_operator(plane, tmp_path_factory.mktemp("second"), scene.namespace) as second:
        eventually(lambda: second.fetch("/readyz")[0] == 200, seconds=SECONDS, what="it is warm")
        assert second.metric("crossdock_operator_leader") == 0
        os.kill(first.pid, signal.SIGSTOP)
        try:
            scene.change(workers={"replicas": 5})
            scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 5)
            # Both see this; the first one as news of a cluster that it thinks it leads.
            scene.change(workers={"replicas": 6})
            scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 6)
            written = len(first.events("applied"))
        finally:
            os.kill(first.pid, signal.SIGCONT)
        eventually(lambda: first.ended() is not None, seconds=SECONDS, what="its end")
        assert first.ended() == 1
        assert len(first.events("applied")) == written
        assert second.running


def test_pause_by_annotation(scene: Scene) -> None:
    cluster = scene.path("shuffleclusters", "main")
    scene.create()
    scene.wait_status(lambda s: s.get("phase") == "Pending")
    scene.admin.merge(cluster, PAUSED)
    status = scene.wait_status(lambda s: s.get("phase") == "Paused")
    assert condition(status, "Paused")["status"] == "True"
    scene.change(workers={"replicas": 3})
    scene.admin.ask("DELETE", scene.path("services", "main"))
    scene.wait_status(lambda s: s.get("observedGeneration") == 2)
    assert scene.get("services", "main") is None
    scene.admin.merge(cluster, RESUMED)
    scene.wait("services", "main")
    scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 3)
    status = scene.wait_status(lambda s: s.get("phase") != "Paused")
    assert "Paused" not in {c["type"] for c in status["conditions"]}


def test_a_job_is_paused_by_annotation(scene: Scene) -> None:
    body = job(clusterRef={"name": "main"})
    body["metadata"] |= PAUSED["metadata"]
    scene.admin.create(scene.namespace, "shufflejobs", body)
    scene.wait("shufflejobs", "wordcount", lambda o: o.get("status", {}).get("phase") == "Paused")
    scene.admin.merge(scene.path("shufflejobs", "wordcount"), RESUMED)
    scene.wait("shufflejobs", "wordcount", lambda o: o["status"]["phase"] != "Paused")


def test_several_namespaces(plane: ControlPlane, admin: Administrator, tmp_path: Path) -> None:
    own, *watched, other = (admin.new_namespace() for _ in range(4))
    grant(admin, own, *watched)
    with running_operator(plane, tmp_path, own, watch=watched) as operator:
        for each in (*watched, other):
            Scene(admin, each, operator).create()
        for each in watched:
            Scene(admin, each, operator).wait("statefulsets", "main-worker")
        assert operator.metric("crossdock_operator_objects", kind="ShuffleCluster") == 2
        assert Scene(admin, other, operator).get("statefulsets", "main-worker") is None


def test_all_namespaces(tmp_path: Path) -> None:
    """Also one that is made later; and with no right to list namespaces or CRDs."""
    with control_plane(tmp_path) as plane:  # that of other tests has all that they left
        admin = Administrator(plane)
        admin.install_crds()
        own = admin.new_namespace()
        grant_all(admin, own)
        with running_operator(plane, tmp_path, own, watch=()) as operator:
            for _ in range(2):
                scene = Scene(admin, admin.new_namespace(), operator)
                scene.create()
                scene.wait("statefulsets", "main-worker")
                scene.wait_status(lambda s: s.get("phase"))
        calls = list(asked(plane.audit_log))
    assert calls
    assert not [call for call in calls if not call.allowed]


@pytest.mark.usefixtures("_service_monitors")
def test_every_right_is_used_and_none_is_missing(
    scene: Scene, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All that the operator does, once, against the API server's audit log."""
    tour(scene)
    namespaces = [scene.namespace, scene.admin.new_namespace()]
    directory = tmp_path_factory.mktemp("jobs")
    with job_scene(plane, scene.admin, namespaces[1], directory) as jobs:
        tour_of_jobs(jobs)

    def calls() -> list[Asked]:
        return [
            call
            for call in asked(plane.audit_log)
            if call.namespace in namespaces or call.resource.endswith("reviews")
        ]

    rules = [*looked_after(), *own_namespace(), *reviews()]
    granted = {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # To own an object with blockOwnerDeletion this is asked of the roles, not of the server.
    implied = {("crossdock.dev", "shuffleclusters/finalizers", "update")}
    # Asked where a cluster of another namespace selects by labels, and of a Job that is there
    # though it was not when this operator looked.
    implied |= {("", "namespaces", "get"), ("batch", "jobs", "get")}

    def unused() -> set[tuple[str, str, str]]:
        return granted - implied - {right for c in calls() if c.allowed for right in c.rights}

    with suppress(AssertionError):  # calls are logged some time after they are answered
        eventually(lambda: not unused(), seconds=10)
    assert unused() == set(), "no step of the tour needs this right"
    refused = [call for call in calls() if not call.allowed]
    assert not refused, "the operator asked for what its roles do not grant"


def tour(scene: Scene) -> None:
    """Have the operator do everything that it does."""
    scene.create(monitoring={"serviceMonitor": {}})
    scene.wait("servicemonitors", "main-worker")
    scene.change(monitoring={"serviceMonitor": None})
    eventually(
        lambda: scene.get("servicemonitors", "main-worker") is None,
        seconds=SECONDS, what="the end of the ServiceMonitor",
    )  # fmt: skip
    scene.wait("statefulsets", "main-worker")
    scene.wait_status(lambda s: s.get("phase") == "Pending")
    # It says so of a Secret that is there already, which it has to look at.
    scene.admin.ask("POST", f"/api/v1/namespaces/{scene.namespace}/secrets",
                    {"metadata": {"name": "second-key"}})  # fmt: skip
    scene.admin.create(
        scene.namespace, "shuffleclusters",
        {"metadata": {"name": "second"},
         "spec": {"store": {"url": "s3://bucket/second"},
                  "workers": {"autoscaling": {"minReplicas": 3, "maxReplicas": 4}}}} | HEAD,
    )  # fmt: skip
    scene.wait("shuffleclusters", "second",
               lambda o: o.get("status", {}).get("phase") == "Degraded")  # fmt: skip
    scene.admin.create(scene.namespace, "shufflejobs", job(clusterRef={"name": "main"}))
    scene.wait("shufflejobs", "wordcount", lambda o: o.get("status"))
    assert scene.operator.fetch("/ui/api/state", ADMIN_TOKEN)[0] == 200  # by reviews
    assert scene.operator.terminate() == 0  # it gives the Lease up


def tour_of_jobs(scene: JobScene) -> None:
    """Have the operator do everything that it does for jobs."""
    scene.fail("split-1", times=1)
    scene.hold("split-0")
    scene.apply(lifecycle={"ttlSecondsAfterSuccess": 2})
    scene.until("a task has failed", lambda: scene.events()["TaskFailed"])
    secret = f"/api/v1/namespaces/{scene.namespace}/secrets/words-connection"
    due = {"metadata": {"annotations": {"crossdock.dev/renew-at": "0"}}}
    scene.admin.merge(secret, due)
    for suspend, phase in ((True, "Suspended"), (False, "Running")):
        scene.admin.merge(scene.path(), {"spec": {"suspend": suspend}})
        scene.wait_phase(phase)
    scene.release("split-0")
    scene.wait_phase("Succeeded")
    scene.until("it is deleted in the end", lambda: scene.get() is None)
    for kind in ("Deployment", "StatefulSet"):
        engine = Engine(scene, kind=kind)
        engine.apply()
        engine.say(2)
        executors = engine.wait_pods(2)
        engine.say(0, {executors[0]: 1, executors[1]: 0})
        assert engine.wait_pods(1) == executors[:1]
        scene.admin.ask("DELETE", scene.path("engine"))
        scene.until("the job is gone", lambda: scene.get("engine") is None)
    cluster = f"{OURS}/namespaces/{scene.namespace}/shuffleclusters/main"
    scene.admin.ask("DELETE", cluster)
    scene.until("what ending it takes is gone, too", lambda: scene.admin.get(cluster) is None)


HEAD = {"apiVersion": "crossdock.dev/v1alpha1", "kind": "ShuffleCluster"}


def test_the_one_right_that_no_call_shows(scene: Scene, plane: ControlPlane) -> None:
    """Without it no object can be owned so that its owner waits for it."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{scene.namespace}/roles/operator-jobs"
    role = scene.admin.ask("GET", path)
    rules = [r for r in role["rules"] if r["resources"] != ["shuffleclusters/finalizers"]]
    scene.admin.merge(path, {"rules": rules})
    right = {
        "verb": "update", "group": "crossdock.dev", "resource": "shuffleclusters",
        "subresource": "finalizers", "namespace": scene.namespace,
    }  # fmt: skip
    scene.admin.await_right(right, user="operator", has=False)
    begun = plane.audit_log.stat().st_size
    scene.create()

    def refusals() -> list[Asked]:
        calls = asked(plane.audit_log, skip_bytes=begun)
        return [c for c in calls if c.namespace == scene.namespace and c.status == 403]

    eventually(refusals, seconds=SECONDS, what="a refusal")
