"""Workers that come back without their disks: the operator knows, and nobody waits for them."""

import shutil
import time
from pathlib import Path

import pytest
from administrator import OURS, Administrator
from control_plane import ControlPlane
from staged_jobs import MAPS, JobScene, job_scene

from harness import WorkerProcess, eventually

pytestmark = pytest.mark.usefixtures("_controllers")
LOSS_SECONDS = 120
"""For so long clients wait for a worker of which they hear nothing (`loss_after_seconds`)."""


def identity(worker: WorkerProcess) -> str:
    return str(worker.get_json("/v1/workers")["self"]["id"])


def replace_disk(worker: WorkerProcess) -> None:
    worker.kill9()
    shutil.rmtree(worker.data_dir)
    worker.start()


def gone(worker: WorkerProcess) -> set[str]:
    listed = worker.get_json("/v1/workers")["workers"]
    return {each["id"] for each in listed if each["state"] == "gone"}


def make_pods_run(scene: JobScene, count: int) -> None:
    """Give the cluster so many pods, and play the kubelet for them."""
    cluster = f"{OURS}/namespaces/{scene.namespace}/shuffleclusters/main"
    scene.admin.merge(cluster, {"spec": {"workers": {"replicas": count}}})
    for n in range(count):
        path = f"/api/v1/namespaces/{scene.namespace}/pods/main-worker-{n}"
        eventually(lambda path=path: scene.admin.get(path), what=path)
        scene.admin.merge(f"{path}/status", {"status": {"phase": "Running"}})
    others = (
        f"/api/v1/namespaces/{scene.namespace}/pods?labelSelector=app.kubernetes.io/instance=main"
    )
    scene.until(
        "no other pod is there", lambda: len(scene.admin.ask("GET", others)["items"]) == count
    )


def test_a_disk_that_went_while_no_operator_ran(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    """It knows nothing of the earlier worker but that jobs name it, and that there is no pod."""
    with job_scene(plane, admin, namespace, tmp_path, workers=2) as scene:
        make_pods_run(scene, 2)
        scene.hold("count")
        uid = scene.apply()["metadata"]["uid"]
        scene.until("the second stage runs", lambda: scene.starts()["count-0"])
        scene.kill_operator()
        kept, victim = scene.workers
        lost = identity(victim)
        replace_disk(victim)
        began = time.monotonic()
        scene.operator.start()
        scene.until("the old worker is declared gone", lambda: lost in gone(kept))
        assert gone(kept) == {lost}
        scene.release("count")
        scene.wait_phase("Succeeded")
        assert time.monotonic() - began < LOSS_SECONDS, "nobody waited for what is gone"
        scene.check_counts(uid)
        events = [e for e in scene.listed("events") if e["reason"] == "WorkersLost"]
        assert [lost in event["message"] for event in events] == [True]


def test_the_only_worker_comes_back_empty(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    with job_scene(plane, admin, namespace, tmp_path) as scene:
        scene.hold("count")
        uid = scene.apply()["metadata"]["uid"]
        scene.until("the second stage runs", lambda: scene.starts()["count-1"])
        replace_disk(scene.workers[0])
        scene.release("count")
        scene.wait_phase("Succeeded")
        starts = scene.starts()
        assert [starts[f"split-{index}"] for index in range(MAPS)] == [2] * MAPS
        scene.check_counts(uid)
