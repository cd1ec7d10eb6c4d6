"""All but workers goes in the middle of a job: operator, store, tasks, namespace, release."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from killing import kill, lose
from kube_client import NAMESPACE, apply, get, helm, kubectl, name_of, pods, ready, shell
from objects import BUCKET, CHART, NEXT_IMAGE, RESTRICTED, STAGE, guest_job, values
from tally import BALLAST_BYTES
from words import STORE, Words, in_the_bucket, on_disks, tried_again, until_ready, wait, workers

from harness import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("installed")]

OPERATORS = "app.kubernetes.io/component=operator"
GUEST = f"{NAMESPACE}-guest"
KILLS = 4


@pytest.fixture(autouse=True)
def _all_are_there(installed: None) -> Iterator[None]:
    until_ready(2)
    yield
    kubectl("rollout", "status", "deployment/crossdock-operator", "--timeout=120s")


def test_operators_are_killed_again_and_again() -> None:
    words = Words("unled")
    for killed in range(KILLS):
        if killed == KILLS // 2:
            words.until_half_mapped()
            words.open("draw")
        lose(*map(name_of, pods(OPERATORS)))
        eventually(_one_operator, seconds=120, what="an operator", pause=0.5)
    words.finish()


def test_an_operator_is_killed_while_a_job_is_deleted() -> None:
    words = Words("undeleted", persistence="Eager")
    words.until_mapped()
    kubectl("delete", "shufflejob", words.name, "--wait=false")
    lose(*map(name_of, pods(OPERATORS)))
    words.delete()


def test_the_store_goes_while_it_is_written_to_and_comes_back() -> None:
    words = Words("stored", persistence="Eager")
    words.until_half_mapped()
    eventually(in_the_bucket, seconds=60, what="something in the bucket", pause=0.5)
    assert not _all_is_stored()
    with _no_store():
        words.open("draw", by=words.running("draw")[0])
        eventually(lambda: _waits_for_the_store(words), seconds=120, what="the job to say so")
        assert not words.running("draw"), "maps need no store"
    eventually(_all_is_stored, seconds=120, what="what came meanwhile to be stored", pause=0.5)
    words.until_mapped()
    words.finish()


def test_the_store_goes_while_it_is_read_from_and_comes_back() -> None:
    """What a lost worker had is in the store alone; who reads it waits for the store."""
    words = Words("fetched", persistence="Eager")
    words.until_mapped()
    counting = words.running("count")
    eventually(_all_is_stored, seconds=60, what="all to be persisted", pause=0.5)
    gone = {pod["metadata"]["uid"] for pod in workers()}
    with _no_store():
        lose(*map(name_of, workers()))
        words.open("count", by=counting[0])
        eventually(lambda: _are_others(gone), seconds=120, what="other workers", pause=0.5)
    assert tried_again(words.finish()) == 0, "no map ran again: all was in the store"


def test_task_pods_are_deleted() -> None:
    words = Words("tasks")
    words.until_half_mapped()
    for stage in ("draw", "count"):
        kubectl("delete", "pods", *words.running(stage), "--wait=false")
        if stage == "draw":
            words.until_mapped()
    words.finish()


@pytest.mark.parametrize("end", [lambda *pods: [*map(kill, pods)], lose], ids=["killed", "lost"])
def test_task_pods_are_killed(end: Callable[..., object]) -> None:
    words = Words("tasks")
    words.until_half_mapped()
    for stage in ("draw", "count"):
        end(*words.running(stage))
        if stage == "draw":
            words.until_mapped()
    stages = words.finish()["stages"]
    assert all(stage["attempts"] > stage["tasks"] for stage in stages), stages


def test_a_namespace_is_deleted() -> None:
    apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": GUEST, "labels": RESTRICTED}}
    )
    chosen = {"mode": "Selector", "selector": {"kubernetes.io/metadata.name": GUEST}}
    allow = {"spec": {"allowedNamespaces": chosen}}
    kubectl("patch", "shufflecluster", "default", "--type=merge", f"--patch={json.dumps(allow)}")
    apply(guest_job(GUEST), namespace=GUEST)
    staying = f"crossdock.dev/job=guest,{STAGE}=stay"
    eventually(
        lambda: any(p["status"].get("phase") == "Running" for p in pods(staying, namespace=GUEST)),
        seconds=120,
        what="a task in the other namespace",
        pause=0.5,
    )
    uid = get("shufflejob", "guest", namespace=GUEST)["metadata"]["uid"]
    assert on_disks(uid) != ""
    eventually(in_the_bucket, seconds=60, what="something in the bucket", pause=0.5)
    kubectl("delete", "namespace", GUEST, "--timeout=180s", seconds=190)
    assert on_disks(uid) == ""
    assert in_the_bucket() == ""


def test_the_chart_is_upgraded(tmp_path: Path) -> None:
    """Operators are replaced, and workers roll to another image, each after it has drained."""
    words = Words("released")
    words.until_half_mapped()
    before = {pod["metadata"]["uid"] for pod in pods(OPERATORS)}
    rolled = {pod["metadata"]["uid"] for pod in workers()}
    changed = values() | {"workerImage": NEXT_IMAGE}
    changed["operator"] |= {"logLevel": "debug", "podAnnotations": {"example.com/version": "2"}}
    chosen = tmp_path / "values.yaml"
    chosen.write_text(json.dumps(changed))
    helm("upgrade", "crossdock", str(CHART), f"--values={chosen}", "--wait", "--timeout=240s")
    words.until_mapped()
    until_ready(2, besides=rolled)
    wait("shufflecluster/default", "Ready")
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in pods(OPERATORS))
    assert {pod["spec"]["containers"][0]["image"] for pod in workers()} == {NEXT_IMAGE}
    assert tried_again(words.finish()) == 0, "no frame was lost"


def _one_operator() -> bool:
    return any(ready(pod) for pod in pods(OPERATORS))


@contextmanager
def _no_store() -> Iterator[None]:
    """Have no S3 server meanwhile; its disk stays."""
    kubectl("scale", "statefulset", "s3", "--replicas=0")
    kubectl("wait", "pod", STORE, "--for=delete", "--timeout=60s")
    try:
        yield
    finally:
        kubectl("scale", "statefulset", "s3", "--replicas=1")
        kubectl("rollout", "status", "statefulset/s3", "--timeout=120s")


def _waits_for_the_store(words: Words) -> bool:
    """Tell whether a job's status says that the store is not to be reached."""
    found = {each["type"]: each for each in words.status["conditions"]}
    return "Could not connect" in found["Running"]["message"]


def _all_is_stored() -> bool:
    """Tell whether the bucket has as much as the maps' ballast, which nobody can compress."""
    return int(shell(STORE, f"du -sb /s3/{BUCKET} | cut -f1")) >= BALLAST_BYTES


def _are_others(gone: set[str]) -> bool:
    found = workers()
    return len(found) == len(gone) and gone.isdisjoint(pod["metadata"]["uid"] for pod in found)
