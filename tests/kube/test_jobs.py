"""ShuffleJobs with stages, run by an operator on a real control plane with real tasks."""

import base64
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from administrator import OURS, Administrator
from control_plane import ControlPlane
from specs import job
from staged_jobs import MAPS, WORDS, JobScene, condition, job_scene

from harness import connect_all

pytestmark = pytest.mark.usefixtures("_controllers")


@pytest.fixture
def scene(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> Iterator[JobScene]:
    with job_scene(plane, admin, namespace, tmp_path) as found:
        yield found


def test_a_staged_job_from_apply_to_complete(scene: JobScene) -> None:
    uid = scene.apply()["metadata"]["uid"]
    status = scene.wait_phase("Succeeded")
    assert condition(status, "Complete")["status"] == "True"
    assert condition(status, "Failed")["status"] == "False"
    assert status["progress"] == "2/2"
    rows = {row["name"]: row for row in status["stages"]}
    assert (rows["split"]["tasks"], rows["split"]["done"]) == (MAPS, MAPS)
    assert (rows["count"]["phase"], rows["count"]["attempts"]) == ("Done", 2)
    assert rows["count"]["bytes"] > 0
    assert status["connectionSecret"] == "words-connection"
    assert sum(scene.starts().values()) == MAPS + 2
    scene.check_counts(uid)
    scene.until("no Job is left", lambda: not scene.jobs())
    scene.wait(lambda s: condition(s, "Running").get("reason") == "Ended")
    assert scene.events() == {"Accepted": 1, "StageRuns": 2, "StageDone": 2, "Complete": 1}


def test_a_task_that_fails_is_tried_again(scene: JobScene) -> None:
    scene.fail("split-1", times=2)
    uid = scene.apply()["metadata"]["uid"]
    status = scene.wait_phase("Succeeded")
    assert scene.starts() == {"split-0": 1, "split-1": 3, "split-2": 1, "count-0": 1, "count-1": 1}
    assert {r["name"]: r["attempts"] for r in status["stages"]} == {"split": MAPS + 2, "count": 2}
    assert scene.events()["TaskFailed"] == 2
    scene.check_counts(uid)


def test_a_task_that_fails_too_often_fails_the_job(scene: JobScene) -> None:
    scene.fail("split-1", times=9)
    scene.hold("split-2")
    stages = scene.stages()
    stages[0]["retries"] = 1
    scene.apply(stages=stages)
    status = scene.wait_phase("Failed")
    failed = condition(status, "Failed")
    assert failed["reason"] == "TaskFailed"
    for part in ("task 1 of stage split failed 2 times", "exit code 1", "told to fail in try 2"):
        assert part in failed["message"]
    assert condition(status, "Complete")["status"] == "False"
    assert {row["name"]: row["phase"] for row in status["stages"]}["split"] == "Failed"
    scene.until("tasks that still ran are ended", lambda: not scene.kubelet.running())
    phases = Counter(pod["status"]["phase"] for pod in scene.pods())
    assert phases["Failed"] >= 2, "pods that failed stay, to be looked at"
    scene.admin.merge(scene.path(), {"spec": {"lifecycle": {"ttlSecondsAfterFailure": 1}}})
    scene.until("it is deleted in the end", lambda: scene.get() is None)
    scene.until("and its Jobs with it", lambda: not scene.jobs() and not scene.pods())


def test_suspended_and_resumed(scene: JobScene) -> None:
    scene.hold("split-0")
    uid = scene.apply(activeDeadlineSeconds=3600)["metadata"]["uid"]
    scene.wait(lambda s: s.get("stages", [{}])[0].get("done") == 2, what="two tasks to be done")
    scene.admin.merge(scene.path(), {"spec": {"suspend": True}})
    status = scene.wait_phase("Suspended")
    assert condition(status, "Running")["reason"] == "Suspended"
    scene.until("no task runs", lambda: not scene.kubelet.running())
    scene.release("split-0")
    scene.admin.merge(scene.path(), {"spec": {"suspend": False}})
    scene.wait_phase("Succeeded")
    assert scene.starts() == {"split-0": 2, "split-1": 1, "split-2": 1, "count-0": 1, "count-1": 1}
    scene.check_counts(uid)


def test_a_job_that_takes_too_long(scene: JobScene) -> None:
    scene.hold("split")
    scene.apply(activeDeadlineSeconds=3600)
    scene.wait_phase("Running")
    scene.admin.merge(scene.path(), {"spec": {"activeDeadlineSeconds": 2}})
    status = scene.wait_phase("Failed")
    assert condition(status, "Failed")["reason"] == "DeadlineExceeded"
    assert condition(status, "Failed")["message"] == "not done within 2 s"
    assert condition(status, "Accepted")["reason"] == "Accepted", "it may be changed"
    scene.until("no task runs", lambda: not scene.kubelet.running())


@pytest.mark.parametrize(
    "seed", [*range(2), *(pytest.param(n, marks=pytest.mark.soak) for n in range(2, 24))]
)
def test_an_operator_that_is_killed(scene: JobScene, seed: int) -> None:
    """At any moment: tasks go on meanwhile, and none runs twice."""
    moments = random.Random(seed)
    scene.say("pace", "1.5")
    uid = scene.apply()["metadata"]["uid"]
    for _ in range(3):
        time.sleep(moments.uniform(0, 4))  # the moment is the point of the test
        scene.kill_operator()
        time.sleep(moments.uniform(0, 2))
        scene.operator.start()
    scene.wait_phase("Succeeded")
    starts = scene.starts()
    assert (sum(starts.values()), max(starts.values())) == (MAPS + 2, 1), f"seed {seed}: {starts}"
    scene.check_counts(uid)
    scene.until("no Job is left", lambda: not scene.jobs())
    assert scene.events() == {"Accepted": 1, "StageRuns": 2, "StageDone": 2, "Complete": 1}


def test_lost_maps_run_again_alone(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    maps = 8
    with job_scene(plane, admin, namespace, tmp_path, workers=2) as scene:
        scene.say("alone-split")
        scene.hold("count")
        stages = scene.stages()
        stages[0] |= {"parallelism": maps, "output": {"shuffle": {"partitions": maps}}}
        uid = scene.apply(stages=stages)["metadata"]["uid"]
        scene.until("the second stage runs", lambda: scene.starts()["count-0"])
        held = maps_by_worker(scene, uid, maps)
        worker, lost = min(held.items(), key=lambda pair: len(pair[1]) or maps)
        assert 0 < len(lost) < maps, "each worker has some; else begin again"
        victim = next(w for w in scene.workers if w.url == worker)
        victim.kill9()
        shutil.rmtree(victim.data_dir)
        victim.start()
        scene.release("count")
        scene.wait_phase("Succeeded")
        starts = scene.starts()
        again = {name for name, n in starts.items() if name.startswith("split") and n > 1}
        assert again == {f"split-{index}" for index in lost}
        assert max(starts.values()) == 2
        assert scene.events()["OutputLost"] == 1
        scene.check_counts(uid)


def maps_by_worker(scene: JobScene, uid: str, maps: int) -> dict[str, set[int]]:
    with connect_all(scene.workers) as client, client.job(uid) as handle:
        held, away, _ = handle.shuffle("split", partitions=maps).held(None)
        assert not away
        urls = {info.id: info.url for info in client.members().reachable.values()}
        return {urls[id_]: set(frames["map"].tolist()) for id_, frames in held.items()}


def test_files_in_and_out(scene: JobScene, tmp_path: Path) -> None:
    """Only pods see the data's volume: they list what is read, and publish what is written."""
    data = tmp_path / "data"
    data.mkdir()
    for n in range(3):
        (data / f"{n}.txt").write_text("x")
    stages = scene.stages(output={"files": "result"})
    stages[0] |= {"inputs": [{"files": "*.txt"}], "parallelism": 3}
    scene.apply(stages=stages, dataRoot=str(data))
    scene.wait_phase("Succeeded")
    parts = [part.read_text() for part in sorted((data / "result").glob("part-*"))]
    lines = sorted("".join(parts).splitlines())
    assert lines == sorted(f"{word} {n}" for word, n in Counter(WORDS).items())
    assert (data / "result" / "_SUCCESS").exists()
    assert {p.name for p in data.iterdir()} == {"0.txt", "1.txt", "2.txt", "result"}


def test_what_cannot_be_accepted_is_told(scene: JobScene) -> None:
    def refused(name: str, reason: str, message: str, **spec: Any) -> None:
        scene.apply(name, **spec)
        status = scene.wait(lambda s: condition(s, "Accepted").get("reason") == reason, name)
        assert message in condition(status, "Accepted")["message"]
        assert status["phase"] == "Pending"

    most = {"spec": {"jobs": {"mostQuota": "1Gi"}}}
    cluster = f"{OURS}/namespaces/{scene.namespace}/shuffleclusters/main"
    scene.admin.merge(cluster, most)
    refused("none", "ClusterNotFound", "the job waits", clusterRef={"name": "other"})
    refused("quota", "QuotaTooLarge", "quota is 2Gi, and the cluster's", quota="2Gi")
    wrong = scene.stages(inputs=[{"stage": "spilt"}])
    refused("stages", "InvalidStages", "spec.stages[1].inputs[0].stage: names spilt", stages=wrong)
    relative = scene.stages(output={"files": "out"})
    refused("root", "InvalidStages", "spec.dataRoot: is no absolute path", stages=relative)
    pods = scene.stages()
    pods[0]["podTemplate"]["spec"]["containers"][0]["imagePullPolicy"] = "Whenever"
    refused("pods", "InvalidPodTemplate", "podTemplate of stage split", stages=pods)
    assert not scene.jobs()


def test_an_attached_job_gets_a_connection(scene: JobScene) -> None:
    body = job("engine", clusterRef={"name": "main"})
    uid = scene.admin.create(scene.namespace, "shufflejobs", body)["metadata"]["uid"]
    status = scene.wait_phase("Ready", "engine")
    secret = scene.admin.ask(
        "GET", f"/api/v1/namespaces/{scene.namespace}/secrets/{status['connectionSecret']}"
    )
    data = {name: base64.b64decode(text).decode() for name, text in secret["data"].items()}
    assert data["job"] == uid
    assert data["endpoints"] == f"http://main.{scene.namespace}.svc:7070"
    worker = scene.workers[0]
    path = f"/v1/jobs/{uid}"
    described = worker.request("GET", path, token=data["token"]).json()
    assert described["record"]["owner"] == "cluster"
    assert described["record"]["tenant"] == scene.namespace
    assert worker.request("GET", "/v1/jobs/other", token=data["token"]).status == 403
    assert worker.request("DELETE", path, token=data["token"]).status == 403, "it ends nothing"


def test_the_connection_goes_before_the_job(scene: JobScene) -> None:
    """Pods of the next job of the name must not begin with it."""
    scene.admin.create(scene.namespace, "shufflejobs", job("engine", clusterRef={"name": "main"}))
    secret = scene.wait_phase("Ready", "engine")["connectionSecret"]
    secrets = f"/api/v1/namespaces/{scene.namespace}/secrets"
    bystander = {"metadata": {"name": "engine-connection-of-mine"}}
    scene.admin.ask("POST", secrets, bystander)
    mine = "tests.crossdock.dev/look"  # so that no garbage collector comes before us
    path = scene.path("engine")
    scene.admin.ask(
        "PATCH",
        path,
        [{"op": "add", "path": "/metadata/finalizers/-", "value": mine}],
        content_type="application/json-patch+json",
    )
    scene.admin.ask("DELETE", path)
    scene.until(
        "the operator to let it go",
        lambda: scene.admin.ask("GET", path)["metadata"]["finalizers"] == [mine],
    )
    left = [each["metadata"]["name"] for each in scene.listed("secrets")]
    assert secret not in left
    assert "engine-connection-of-mine" in left
    scene.admin.merge(path, {"metadata": {"finalizers": None}})


def test_who_took_a_job_up_meanwhile_goes_on_with_it(scene: JobScene) -> None:
    """An operator that finds the state of a job changed lets go of it, and looks again."""
    scene.hold("split-0")
    uid = scene.apply()["metadata"]["uid"]
    scene.wait(lambda s: s.get("stages", [{}])[0].get("done") == 2, what="two tasks to be done")
    (state,) = (m for m in scene.listed("configmaps") if "-state-" in m["metadata"]["name"])
    path = f"/api/v1/namespaces/{scene.namespace}/configmaps/{state['metadata']['name']}"
    scene.admin.merge(path, {"metadata": {"annotations": {"other": "was here"}}})
    scene.release("split-0")
    scene.wait_phase("Succeeded")
    assert set(scene.starts().values()) == {1}
    scene.check_counts(uid)


def test_a_job_waits_for_workers_that_are_away(scene: JobScene) -> None:
    (worker,) = scene.workers
    worker.kill9()
    uid = scene.apply()["metadata"]["uid"]
    status = scene.wait(lambda s: "refused" in condition(s, "Ready").get("message", ""))
    assert status["phase"] == "Waiting"
    assert condition(status, "Accepted")["status"] == "True"
    worker.start()
    scene.wait_phase("Succeeded")
    scene.check_counts(uid)
