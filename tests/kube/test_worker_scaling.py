"""The number of workers of a cluster follows their use, on a real control plane."""

from pathlib import Path

import pytest
from administrator import OURS, Administrator, Object
from control_plane import ControlPlane
from staged_jobs import JobScene, condition, job_scene

from harness import connect_all

pytestmark = pytest.mark.usefixtures("_controllers")
MIB = 2**20


def test_up_by_use_and_down_one_by_one(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    """Two workers are real; pods beyond them never come, and nothing goes while they do not."""
    scaling = {"maxReplicas": 4, "targetDiskPercent": 20, "scaleDownAfterSeconds": 1}
    with job_scene(
        plane, admin, namespace, tmp_path,
        workers=2,
        worker_options={"disk_capacity_bytes": 4 * MIB},
        cluster_workers={"replicas": 1, "autoscaling": {"minReplicas": 2, **scaling}},
    ) as scene:  # fmt: skip
        found = wait_replicas(scene, 2)
        assert condition(found["status"], "Autoscaled")["reason"] == "IntoBounds"
        with connect_all(scene.workers) as client, client.job("load", owner="runner") as job:
            shuffle = job.shuffle("rows", partitions=8)
            with shuffle.writer(map_id=0) as writer:
                for partition in range(8):
                    writer.write(partition, bytes(3 * MIB // 8))
            found = wait_replicas(scene, 4)
            job.end()
        said = condition(found["status"], "Autoscaled")
        assert said["reason"] == "ScaledUp"
        assert said["message"].startswith("from 2 to 4 pods: disk 3")
        scale = scene.admin.ask("GET", f"{cluster_path(scene)}/scale")
        assert scale["spec"]["replicas"] == 4
        managers = {
            entry["manager"]: entry["fieldsV1"]["f:spec"]
            for entry in scene.admin.ask("GET", cluster_path(scene))["metadata"]["managedFields"]
            if entry.get("subresource") == "scale"
        }
        only_replicas = {"f:workers": {"f:replicas": {}}}
        assert managers == {"crossdock-operator-autoscaler": only_replicas}
        # By hand, and on from there: with the operator killed meanwhile.
        scene.kill_operator()
        scaling |= {"minReplicas": 1}
        patch = {"spec": {"workers": {"replicas": 2, "autoscaling": scaling}}}
        scene.admin.merge(cluster_path(scene), patch)
        scene.operator.start()
        make_ready(scene, 2)
        found = wait_replicas(scene, 1)
        said = condition(found["status"], "Autoscaled")
        assert said["message"].startswith("from 2 to 1 pods: disk 0% (target 20%)")
        reasons = [
            event["reason"]
            for event in scene.listed("events")
            if event["involvedObject"]["kind"] == "ShuffleCluster"
        ]
        assert sorted(reasons) == ["IntoBounds", "ScaledDown", "ScaledUp"]


def cluster_path(scene: JobScene) -> str:
    return f"{OURS}/namespaces/{scene.namespace}/shuffleclusters/main"


def wait_replicas(scene: JobScene, count: int) -> Object:
    """Wait until so many are wanted, and the StatefulSet and the status know it."""
    workers = f"/apis/apps/v1/namespaces/{scene.namespace}/statefulsets/main-worker"

    def probe() -> bool:
        spec = (scene.admin.get(workers) or {}).get("spec", {})
        cluster = scene.admin.ask("GET", cluster_path(scene))
        said = condition(cluster.get("status", {}), "Autoscaled")
        return spec.get("replicas") == count == cluster["spec"]["workers"][
            "replicas"
        ] and f"to {count} pods" in said.get("message", "")

    scene.until(f"{count} workers", probe)
    return scene.admin.ask("GET", cluster_path(scene))


def make_ready(scene: JobScene, count: int) -> None:
    """Play the kubelet: say of so many worker pods that they are ready."""
    for n in range(count):
        path = f"/api/v1/namespaces/{scene.namespace}/pods/main-worker-{n}"
        scene.until(f"worker {n}", lambda path=path: scene.admin.get(path))
        conditions = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "conditions": conditions}
        scene.admin.merge(f"{path}/status", {"status": status})
