"""Workers are replaced one by one, each drains before it goes, and no acked frame is lost."""

import base64
import shutil
from pathlib import Path

import pytest
from administrator import OURS, Administrator, Object
from control_plane import ControlPlane
from specs import STORE, job
from staged_jobs import JobScene, job_scene

from harness import connect_all

pytestmark = pytest.mark.usefixtures("_controllers")
HOLD = "tests.crossdock.dev/hold"
MAPS, PARTITIONS = 6, 4


def test_an_upgrade_drains_one_worker_after_the_other(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    """Disks are emptyDirs: what a pod has goes with it."""
    options = {"store": STORE.as_uri(), "drain-grace-seconds": 60}
    with job_scene(
        plane, admin, namespace, tmp_path, workers=2, worker_options=options,
        cluster_workers={"replicas": 2, "image": "example.com/crossdock:1"},
    ) as scene:  # fmt: skip
        for n in range(2):
            admin.make_ready(namespace, f"main-worker-{n}")
        wait_status(scene, phase="Ready")
        uid, token = engine(scene)
        write(scene, uid, token)
        for n in range(2):
            hold(scene, n)
        newer = {"spec": {"workers": {"image": "example.com/crossdock:2"}}}
        admin.merge(f"{OURS}/namespaces/{namespace}/shuffleclusters/main", newer)
        for n in (1, 0):
            scene.until(f"pod {n} is to go", lambda n=n: is_leaving(scene, n))
            assert not is_leaving(scene, 1 - n), "one at a time"
            wait_status(scene, draining=1)
            replace(scene, n)
        wait_status(scene, phase="Ready", updated=2, draining=0)
        check(scene, uid, token)


def engine(scene: JobScene) -> tuple[str, str]:
    """Make a job without stages; return its uid and token."""
    body = job("engine", clusterRef={"name": "main"})
    uid = scene.admin.create(scene.namespace, "shufflejobs", body)["metadata"]["uid"]
    scene.wait_phase("Ready", "engine")
    path = f"/api/v1/namespaces/{scene.namespace}/secrets/engine-connection"
    return uid, base64.b64decode(scene.admin.ask("GET", path)["data"]["token"]).decode()


def write(scene: JobScene, uid: str, token: str) -> None:
    """Write some maps to each of the workers alone."""
    for n in range(MAPS):
        worker = scene.workers[n % len(scene.workers)]
        with connect_all([worker], token=token) as client, client.job(uid) as handle:
            shuffle = handle.shuffle("exchange", partitions=PARTITIONS)
            with shuffle.writer(map_id=n) as writer:
                for partition in range(PARTITIONS):
                    writer.write(partition, f"{n}/{partition}".encode(), rows=1)


def check(scene: JobScene, uid: str, token: str) -> None:
    """Every block of every map is there."""
    with connect_all(scene.workers, token=token) as client, client.job(uid) as handle:
        shuffle = handle.shuffle("exchange", partitions=PARTITIONS)
        view = shuffle.view(shuffle.complete_attempts())
        found = {bytes(block.data).decode() for block in view.read(range(PARTITIONS))}
    assert found == {f"{n}/{partition}" for n in range(MAPS) for partition in range(PARTITIONS)}


def pod_path(scene: JobScene, n: int) -> str:
    return f"/api/v1/namespaces/{scene.namespace}/pods/main-worker-{n}"


def hold(scene: JobScene, n: int) -> None:
    """Have a pod stay until its worker has ended, as a kubelet does."""
    scene.admin.merge(pod_path(scene, n), {"metadata": {"finalizers": [HOLD]}})


def is_leaving(scene: JobScene, n: int) -> bool:
    pod = scene.admin.get(pod_path(scene, n))
    return pod is not None and "deletionTimestamp" in pod["metadata"]


def replace(scene: JobScene, n: int) -> None:
    """Play the kubelet: end a pod's worker, then start the next one on an empty disk."""
    worker, path = scene.workers[n], pod_path(scene, n)
    before = scene.admin.ask("GET", path)["metadata"]["uid"]
    assert worker.terminate(60) == 0
    shutil.rmtree(worker.data_dir)
    scene.admin.merge(path, {"metadata": {"finalizers": []}})

    def is_new() -> bool:
        pod: Object | None = scene.admin.get(path)
        return pod is not None and pod["metadata"]["uid"] != before

    scene.until(f"another pod {n}", is_new)
    worker.start()
    scene.admin.make_ready(scene.namespace, f"main-worker-{n}")


def wait_status(scene: JobScene, phase: str = "", **workers: int) -> None:
    """Wait until the cluster's status says so."""
    path = f"{OURS}/namespaces/{scene.namespace}/shuffleclusters/main"

    def probe() -> bool:
        status: Object = scene.admin.ask("GET", path).get("status") or {}
        counts = status.get("workers") or {}
        return phase in {"", status.get("phase")} and workers.items() <= counts.items()

    scene.until(f"{phase} {workers}", probe)
