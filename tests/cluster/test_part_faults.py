"""All but workers goes in the middle of a job: operator, store, tasks, namespace, release."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_client import NAMESPACE, Failed, apply, get, helm, kubectl, pods, ready
from objects import CHART, RESTRICTED, STAGE, guest_job, values
from words import STORE, Words, in_the_bucket, on_disks, until_ready, wait

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
        kubectl("delete", "pods", f"--selector={OPERATORS}", "--grace-period=0", "--force")
        eventually(_one_operator, seconds=120, what="an operator", pause=0.5)
    words.finish()


def test_an_operator_is_killed_while_a_job_is_deleted() -> None:
    words = Words("undeleted", persistence="Eager")
    words.until_mapped()
    kubectl("delete", "shufflejob", words.name, "--wait=false")
    kubectl("delete", "pods", f"--selector={OPERATORS}", "--grace-period=0", "--force")
    words.delete()


def test_the_store_is_started_anew() -> None:
    words = Words("stored", persistence="Eager")
    words.until_half_mapped()
    eventually(in_the_bucket, seconds=60, what="something in the bucket", pause=0.5)
    _restart_the_store()
    words.until_mapped()
    _restart_the_store()
    words.finish()


@pytest.mark.parametrize("how", [(), ("--grace-period=0", "--force")], ids=["ended", "killed"])
def test_task_pods_are_deleted(how: tuple[str, ...]) -> None:
    words = Words("tasks")
    words.until_half_mapped()
    for stage in ("draw", "count"):
        selector = f"--selector={words.pods},{STAGE}={stage}"
        running = "--field-selector=status.phase=Running"
        kubectl("delete", "pods", selector, running, "--wait=false", *how)
        if stage == "draw":
            words.until_mapped()
    words.finish()


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
    kubectl("delete", "namespace", GUEST, "--timeout=180s", seconds=190)
    assert on_disks(uid) == ""
    assert in_the_bucket() == ""


def test_the_chart_is_upgraded(tmp_path: Path) -> None:
    words = Words("released")
    words.until_half_mapped()
    before = {pod["metadata"]["uid"] for pod in pods(OPERATORS)}
    changed = values()
    changed["operator"] |= {"logLevel": "debug", "podAnnotations": {"example.com/version": "2"}}
    chosen = tmp_path / "values.yaml"
    chosen.write_text(json.dumps(changed))
    helm("upgrade", "crossdock", str(CHART), f"--values={chosen}", "--wait", "--timeout=240s")
    wait("shufflecluster/default", "Ready")
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in pods(OPERATORS))
    words.finish()


def _one_operator() -> bool:
    return any(ready(pod) for pod in pods(OPERATORS))


def _restart_the_store() -> None:
    gone = get("pod", STORE)["metadata"]["uid"]
    kubectl("delete", "pod", STORE, "--wait=false")
    eventually(lambda: _is_another(gone), seconds=120, what="the store", pause=0.5)


def _is_another(gone: str) -> bool:
    try:
        pod = get("pod", STORE)
    except Failed:
        return False
    return bool(pod["metadata"]["uid"] != gone) and ready(pod)
