"""The number of workers of a cluster follows their use, on a real control plane."""

from pathlib import Path

import pytest
from administrator import OURS, Administrator, Object
from control_plane import ControlPlane
from specs import cluster
from staged_jobs import JobScene, condition, job_scene

from crossdock_operator.jobs.workers import Workers
from crossdock_operator.kube import Kube
from crossdock_operator.plan.contest import CONTESTED_TIMES
from crossdock_operator.records import Key, cluster_of
from crossdock_operator.scaling.polls import Heard, Polls
from crossdock_operator.scaling.workers import WorkerScaler
from crossdock_operator.store import Store
from harness import WorkerProcess, connect_all

MIB = 2**20


@pytest.mark.usefixtures("_controllers")
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
        scene.kill_operator()  # it shall not see a part of it
        with connect_all(scene.workers) as client, client.job("load", owner="runner") as job:
            shuffle = job.shuffle("rows", partitions=8)
            with shuffle.writer(map_id=0) as writer:
                for partition in range(8):
                    writer.write(partition, bytes(3 * MIB // 8))
            scene.operator.start()
            found = wait_replicas(scene, 4)
            # Nor shall one that is killed and made again see what is about to go.
            job.end()
        for worker in scene.workers:
            scene.until("its disk to be empty", lambda w=worker: not used(w))
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
        for pod in ("main-worker-0", "main-worker-1"):
            admin.make_ready(namespace, pod)
        found = wait_replicas(scene, 1)
        said = condition(found["status"], "Autoscaled")
        assert said["message"].startswith("from 2 to 1 pods: disk 0% (target 20%)")
        # An event is told after the number is written.
        scene.until("all to be told", lambda: len(reasons(scene)) >= 3)
        assert sorted(reasons(scene)) == ["IntoBounds", "ScaledDown", "ScaledUp"]


def reasons(scene: JobScene) -> list[str]:
    """Return those of the cluster's events."""
    return [
        event["reason"]
        for event in scene.listed("events")
        if event["involvedObject"]["kind"] == "ShuffleCluster"
    ]


def used(worker: WorkerProcess) -> float:
    return float(worker.get_json("/v1/workers")["self"]["disk_used"])


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


class Silent(Polls):
    """No worker answers."""

    def load(self, cluster: Key) -> Heard | None:
        assert cluster.name == "main"
        return None


@pytest.mark.parametrize("theirs", [1, 9])
async def test_the_bounds_are_not_fought_for(
    kube: Kube, admin: Administrator, namespace: str, theirs: int
) -> None:
    """Somebody applies a number out of them again and again."""
    path = f"{OURS}/namespaces/{namespace}/shuffleclusters/main"
    scaling = {"minReplicas": 2, "maxReplicas": 4}
    admin.create(namespace, "shuffleclusters", cluster(workers={"autoscaling": scaling}))
    scaler = WorkerScaler(kube, Silent(Workers(kube, {}), Store(), lambda *_: None))
    found = []
    for _ in range(CONTESTED_TIMES + 2):
        body = admin.merge(path, {"spec": {"workers": {"replicas": theirs}}})
        answer = await scaler.advance(cluster_of(body), {})
        assert answer is not None
        said = {"type": answer.type, "status": answer.status, "reason": answer.reason}
        admin.merge(f"{path}/status", {"status": {"conditions": [{**said, **TIME}]}})
        found.append((answer.reason, admin.ask("GET", path)["spec"]["workers"]["replicas"]))
    bound = min(max(theirs, 2), 4)
    assert found == [("IntoBounds", bound)] * CONTESTED_TIMES + [("Contested", theirs)] * 2
    events = admin.ask("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    assert [each["type"] for each in events if each["reason"] == "Contested"] == ["Warning"]


TIME = {"lastTransitionTime": "2026-01-01T00:00:00Z", "message": ""}
