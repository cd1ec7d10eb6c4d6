"""`releaseShuffles: WhenConsumed`: shuffles that nobody needs any more go before the job's end."""

import shutil
from pathlib import Path

import pytest
from administrator import Administrator
from control_plane import ControlPlane
from specs import STORE, Spec
from staged_jobs import MAPS, JobScene, job_scene

pytestmark = pytest.mark.usefixtures("_controllers")
CONSUMED = {"releaseShuffles": "WhenConsumed"}


def three_stages(scene: JobScene) -> list[Spec]:
    split, count = scene.stages()
    sort = {"parallelism": 1, "inputs": [{"stage": "count"}], "output": count["output"]}
    return [split, count, scene.stage("sort", **sort)]


def released(scene: JobScene, uid: str) -> dict[str, int]:
    worker = scene.workers[0]
    answer = worker.request("GET", f"/v1/jobs/{uid}", token=worker.admin_token())
    found: dict[str, int] = answer.json()["released"]
    return found


def test_what_is_consumed_goes_when_what_came_of_it_is_safe(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    store = {"store": STORE.as_uri()}
    with job_scene(plane, admin, namespace, tmp_path, workers=2, worker_options=store) as scene:
        scene.hold("sort")
        uid = scene.apply(stages=three_stages(scene), lifecycle=CONSUMED)["metadata"]["uid"]
        scene.until("a shuffle is released", lambda: scene.events()["ShuffleReleased"])
        assert released(scene, uid) == {"split": 1}
        lost = scene.workers[1]
        lost.kill9()
        shutil.rmtree(lost.data_dir)
        lost.start()
        scene.release("sort")
        scene.wait_phase("Succeeded")
        assert sum(scene.starts().values()) == MAPS + 3, "nothing had to run again"
        assert scene.events()["ShuffleReleased"] == 1
        scene.check_counts(uid, "sort")


def test_without_a_store_everything_stays(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    with job_scene(plane, admin, namespace, tmp_path) as scene:
        scene.hold("sort")
        uid = scene.apply(stages=three_stages(scene), lifecycle=CONSUMED)["metadata"]["uid"]
        scene.until("that is told", lambda: scene.events()["ShufflesKept"])
        assert not released(scene, uid)
        scene.release("sort")
        scene.wait_phase("Succeeded")
        assert (scene.events()["ShufflesKept"], scene.events()["ShuffleReleased"]) == (1, 0)
