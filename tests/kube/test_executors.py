"""Executors of attached engines are scaled by what the engine says, on a real control plane."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from administrator import OURS, Administrator
from attached_jobs import NAME, Engine
from control_plane import ControlPlane
from staged_jobs import JobScene, condition, job_scene

pytestmark = pytest.mark.usefixtures("_controllers")


@pytest.fixture
def scene(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> Iterator[JobScene]:
    with job_scene(plane, admin, namespace, tmp_path, workers=2) as found:
        yield found


def test_none_between_stages(scene: JobScene) -> None:
    """5 → 0 → 8, and the operator is killed on the way."""
    engine = Engine(scene)
    engine.apply(tasksPerExecutor=2)
    engine.say(10)
    executors = engine.wait_pods(5)
    engine.wait_status(current=5, desired=5, releasable=0)
    # The stage is done, and one executor's last frames are not acked yet.
    last = executors[2]
    engine.say(0, dict.fromkeys(executors, 0) | {last: 1})
    assert engine.wait_pods(1) == [last], "who holds data stays"
    status = engine.wait_status(current=1, desired=0, releasable=0)
    assert condition(status, "ExecutorsReleasable")["reason"] == "Busy"
    scene.kill_operator()
    engine.say(0, {last: 0})
    scene.operator.start()
    engine.wait_pods(0)
    status = engine.wait_status(current=0, desired=0, releasable=0)
    assert condition(status, "ExecutorsReleasable")["status"] == "True"
    scene.kill_operator()
    engine.say(16)
    scene.operator.start()
    executors = engine.wait_pods(8)
    engine.wait_status(current=8, desired=8)
    # A worker that does not answer may have a newer word.
    scene.workers[1].kill9()
    engine.say(0, dict.fromkeys(executors, 0))
    engine.wait_condition("ExecutorsScaled", "WorkersAway")
    assert engine.replicas() == 8
    scene.workers[1].start()
    engine.wait_pods(0)
    engine.say(5)
    engine.wait_pods(3)
    wanted = [
        f"Deployment {NAME}: from {was} to {now}, as the engine needs them"
        for was, now in ((0, 5), (5, 1), (1, 0), (0, 8), (8, 0), (0, 3))
    ]
    scene.until("all to be told", lambda: len(engine.told("ExecutorsScaled")) >= len(wanted))
    assert engine.told("ExecutorsScaled") == wanted
    # The job ends while tasks run: they are nobody's any more.
    scene.admin.ask("DELETE", scene.path("engine"))
    engine.wait_pods(0)
    scene.until("the job is gone", lambda: scene.get("engine") is None)
    scene.admin.merge(f"{engine.path}/scale", {"spec": {"replicas": 2}})
    engine.wait_pods(2)


def test_what_may_not_be_scaled(scene: JobScene) -> None:
    engine = Engine(scene, annotated=False)
    engine.apply()
    said = engine.wait_condition("Accepted", "NotAnnotated")["message"]
    assert '"crossdock.dev/scalable-by: engine"' in said
    command = said.rpartition("run: ")[2]
    assert command == (
        f"kubectl annotate -n {scene.namespace} deployments/{NAME} crossdock.dev/scalable-by=engine"
    )
    name, _, value = command.rpartition(" ")[2].partition("=")
    scene.admin.merge(engine.path, {"metadata": {"annotations": {name: value}}})
    engine.wait_condition("Accepted", "Accepted")
    engine.say(1)
    engine.wait_pods(1)
    # What was accepted stays so; whose target changed its mind is told.
    scene.admin.merge(engine.path, {"metadata": {"annotations": {name: "other"}}})
    engine.say(3)
    engine.wait_condition("ExecutorsScaled", "NotAnnotated")
    assert engine.replicas() == 1
    assert len(engine.told("NotAnnotated")) == 1
    for kind, target in (
        ("KindNotAllowed", {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": NAME}),
        ("TargetNotFound", {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": NAME}),
    ):
        body = {"metadata": {"name": kind.lower()}, "spec": {"clusterRef": {"name": "main"}}}
        body["spec"]["executors"] = {"scaleTargetRef": target, "max": 1}
        scene.admin.ask("POST", f"{OURS}/namespaces/{scene.namespace}/shufflejobs", body | HEAD)
        status = scene.wait(lambda s: s.get("conditions"), kind.lower())
        assert condition(status, "Accepted")["reason"] == kind


HEAD = {"apiVersion": "crossdock.dev/v1alpha1", "kind": "ShuffleJob"}


def test_another_autoscaler(scene: JobScene) -> None:
    """One that is there is left to its work; one that nobody sees is not fought for ever."""
    engine = Engine(scene)
    engine.apply(cooldownSeconds=0)
    engine.say(40)
    idle = dict.fromkeys(engine.wait_pods(8), 0)
    for n in range(3):
        # An event is told before the number is written again.
        scene.until("it is set back", lambda: engine.replicas() != 2)
        scene.admin.merge(f"{engine.path}/scale", {"spec": {"replicas": 2}})
        engine.say(7 - n, idle)  # a word that changes nothing is no reason to look
        scene.until("it is seen", lambda n=n: len(engine.told("ReplicasChanged")) > n)
    assert "somebody else set 2 replicas (python" in engine.told("ReplicasChanged")[0].lower()
    engine.wait_condition("ExecutorsScaled", "Contested")
    assert len(engine.told("Contested")) == 1
    assert engine.replicas() == 2, "it is left to them"
    scaled = len(engine.told("ExecutorsScaled"))
    assert scaled == 3
    hpa = {
        "metadata": {"name": "other"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
            "minReplicas": 2,
            "maxReplicas": 4,
        },
    }
    path = f"/apis/autoscaling/v2/namespaces/{scene.namespace}/horizontalpodautoscalers"
    scene.admin.ask("POST", path, hpa)
    scene.kill_operator()
    scene.operator.start()
    said = engine.wait_condition("ExecutorsScaled", "AnotherAutoscaler")["message"]
    assert "HorizontalPodAutoscaler other scales Deployment executors" in said
    engine.say(1)
    scene.admin.ask("DELETE", f"{path}/other")
    scene.kill_operator()
    scene.operator.start()
    engine.wait_condition("ExecutorsScaled", "AsReported")
    engine.say(40)
    engine.wait_pods(8)
    # Suspended: no task runs.
    scene.admin.merge(scene.path("engine"), {"spec": {"suspend": True}})
    engine.wait_pods(0)
    assert scene.wait_phase("Suspended", "engine")


def test_a_target_that_is_made_again(scene: JobScene) -> None:
    """What it has then was set by nobody against the operator."""
    engine = Engine(scene)
    engine.apply(cooldownSeconds=0)
    engine.say(2)
    engine.wait_pods(2)
    body = scene.admin.ask("GET", engine.path)
    scene.admin.ask("DELETE", engine.path)
    kept = {name: body["metadata"][name] for name in ("name", "annotations")}
    again = {"metadata": kept, "spec": {**body["spec"], "replicas": 1}}
    scene.admin.ask("POST", engine.path.rpartition("/")[0], again)
    engine.say(4)
    scene.until("it is scaled", lambda: engine.replicas() == 4)
    assert engine.told("ReplicasChanged") == []
