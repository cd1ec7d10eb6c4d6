"""From `helm install` to `helm uninstall`, with a job that loses a worker and its operator."""

import json
from pathlib import Path

import pytest
from kube_client import NAMESPACE, Failed, apply, get, helm, kubectl, pods, shell
from objects import BUCKET, CHART, job, values
from tally import MAPS, expected

from harness import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

OPERATORS = "app.kubernetes.io/component=operator"
TASKS = "crossdock.dev/job=words"


def test_install_run_lose_end_uninstall(place: None, tmp_path: Path) -> None:
    _install(tmp_path)
    helm("test", "crossdock", "--timeout=240s")

    apply(job("words"))
    eventually(_half_of_the_maps_are_done, seconds=120, what="the maps to be under way")
    with pytest.raises(Failed):
        helm("uninstall", "crossdock", "--timeout=120s")
    assert f"ShuffleJob {NAMESPACE}/words" in kubectl("logs", "job/crossdock-leave")
    worker = get("pod", "default-worker-0")["metadata"]["uid"]
    kubectl("delete", "pod", "default-worker-0", "--wait=false")
    _kill_the_leader()
    eventually(lambda: _is_another_pod("default-worker-0", worker), seconds=180, what="its like")
    shell("s3", "touch /data/go")

    _wait("shufflejob/words", "Succeeded")
    assert _counted() == expected()
    assert not pods(TASKS), "a job that is done has no executors"
    kubectl("delete", "shufflejob", "words", "--timeout=120s", seconds=130)
    assert _in_the_bucket() == ""

    helm("uninstall", "crossdock", "--timeout=240s")
    eventually(lambda: [p["metadata"]["name"] for p in get("pods")] == ["s3"], seconds=120,
               what="all pods to go")  # fmt: skip
    assert _in_the_bucket() == ""
    assert "shufflejobs.crossdock.dev" in kubectl("get", "crds", "--output=name")
    assert get("shuffleclusters") == []


def _install(directory: Path) -> None:
    chosen = directory / "values.yaml"
    chosen.write_text(json.dumps(values()))
    helm("install", "crossdock", str(CHART), f"--values={chosen}", "--wait", "--timeout=240s")
    _wait("shufflecluster/default", "Ready")


def _wait(for_what: str, phase: str) -> None:
    until = f"--for=jsonpath={{.status.phase}}={phase}"
    kubectl("wait", for_what, until, "--timeout=240s", seconds=250)


def _half_of_the_maps_are_done() -> bool:
    made = get("pods", labels=TASKS)
    ended = [pod for pod in made if pod["status"].get("phase") == "Succeeded"]
    return len(made) == MAPS and len(ended) == MAPS // 2


def _kill_the_leader() -> None:
    holder = get("lease", "crossdock-operator")["spec"]["holderIdentity"]
    (leader,) = [
        pod["metadata"]["name"]
        for pod in pods(OPERATORS)
        if holder.startswith(f"{pod['metadata']['name']}-")
    ]
    kubectl("delete", "pod", leader, "--grace-period=0", "--force")


def _is_another_pod(name: str, uid: str) -> bool:
    try:
        pod = get("pod", name)
    except Failed:
        return False
    statuses = pod["status"].get("containerStatuses", ())
    return pod["metadata"]["uid"] != uid and all(each["ready"] for each in statuses)


def _counted() -> dict[str, int]:
    parts = shell("s3", "cat /data/words/*.json").replace("}{", "}\n{").splitlines()
    found: dict[str, int] = {}
    for part in parts:
        counts = json.loads(part)
        assert not found.keys() & counts.keys(), "a word was counted by two tasks"
        found |= counts
    return found


def _in_the_bucket() -> str:
    """Return every file of the S3 server: objects, parts of uploads, and uploads without parts."""
    return shell("s3", f"find /s3/{BUCKET} -type f; find /s3 -path '*/multipart/*/*'").strip()
