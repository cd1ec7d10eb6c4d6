"""`helm test`, and a job that loses a worker and its operator; `helm uninstall` refuses then."""

import pytest
from killing import lose
from kube_client import NAMESPACE, Failed, get, helm, kubectl, name_of, pods, ready
from words import Words

from harness import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

OPERATORS = "app.kubernetes.io/component=operator"


def test_a_job_that_loses_a_worker_and_its_operator_is_right_and_leaves_nothing(
    installed: None,
) -> None:
    helm("test", "crossdock", "--timeout=240s")

    words = Words("words")
    words.until_half_mapped()
    with pytest.raises(Failed):
        helm("uninstall", "crossdock", "--timeout=120s")
    assert f"ShuffleJob {NAMESPACE}/words" in kubectl("logs", "job/crossdock-leave")
    worker = get("pod", "default-worker-0")["metadata"]["uid"]
    assert words.held_by("default-worker-0")
    lose("default-worker-0")
    _kill_the_leader()
    eventually(lambda: _is_another_pod("default-worker-0", worker), seconds=180, what="its like")
    words.finish()
    assert "shufflejobs.crossdock.dev" in kubectl("get", "crds", "--output=name")


def _kill_the_leader() -> None:
    holder = get("lease", "crossdock-operator")["spec"]["holderIdentity"]
    (leader,) = [name for name in map(name_of, pods(OPERATORS)) if holder.startswith(f"{name}-")]
    lose(leader)


def _is_another_pod(name: str, uid: str) -> bool:
    try:
        pod = get("pod", name)
    except Failed:
        return False
    return bool(pod["metadata"]["uid"] != uid) and ready(pod)
