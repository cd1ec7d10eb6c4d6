"""Workers go in the middle of a job, in every way that Kubernetes has: the job stays right."""

import json
import signal
from collections.abc import Callable, Iterator

import pytest
from killing import exit_code, kill, lose
from kube_client import NAMESPACE, Failed, get, kubectl, name_of
from words import Words, tried_again, until_ready, workers

from harness import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("installed")]

WORKER = "default-worker-0"
KILLED = 128 + signal.SIGKILL


@pytest.fixture(autouse=True)
def _two_workers(installed: None) -> Iterator[None]:
    until_ready(2)
    yield
    kubectl("scale", "shufflecluster/default", "--replicas=2")
    until_ready(2)


@pytest.mark.parametrize("reached", [Words.until_half_mapped, Words.until_mapped])
def test_a_worker_drains_and_goes(reached: Callable[[Words], None]) -> None:
    words = Words("drained")
    reached(words)
    assert words.held_by(WORKER)
    gone = get("pod", WORKER)["metadata"]["uid"]
    kubectl("delete", "pod", WORKER, "--wait=false")
    words.open("draw")
    words.open("count")
    until_ready(2, besides=[gone])
    assert tried_again(words.finish()) == 0, "what it had was read from elsewhere"


@pytest.mark.parametrize("reached", [Words.until_half_mapped, Words.until_mapped])
def test_a_worker_is_killed_and_starts_again_on_its_disk(reached: Callable[[Words], None]) -> None:
    words = Words("killed")
    reached(words)
    assert words.held_by(WORKER)
    kill(WORKER)
    words.open("draw")
    words.open("count")
    eventually(lambda: _restarts(WORKER) > 0, seconds=60, what="its end")
    assert exit_code(WORKER) == KILLED
    until_ready(2)
    again = tried_again(words.finish())
    assert again == 0 or reached is not Words.until_mapped, "what was acked is there again"


@pytest.mark.parametrize("reached", [Words.until_half_mapped, Words.until_mapped])
def test_a_worker_is_lost_with_its_disk(reached: Callable[[Words], None]) -> None:
    words = Words("lost")
    reached(words)
    assert words.held_by(WORKER)
    gone = get("pod", WORKER)["metadata"]["uid"]
    lose(WORKER)
    words.open("draw")
    words.open("count")
    until_ready(2, besides=[gone])
    assert tried_again(words.finish()) > 0, "maps whose frames were lost run again"


def test_each_worker_is_evicted_one_at_a_time() -> None:
    words = Words("evicted")
    words.until_half_mapped()
    assert all(words.held_by(name_of(pod)) for pod in workers())
    gone = [pod["metadata"]["uid"] for pod in workers()]
    _evict("default-worker-1")
    eventually(lambda: not _is_ready("default-worker-1"), seconds=60, what="it to go")
    with pytest.raises(Failed, match="disruption budget"):
        _evict(WORKER)
    eventually(lambda: _evicted(WORKER), seconds=240, what="the budget to let it go", pause=1)
    until_ready(2, besides=gone)
    words.finish()


def test_workers_are_upgraded_one_by_one() -> None:
    words = Words("upgraded")
    words.until_half_mapped()
    gone = [pod["metadata"]["uid"] for pod in workers()]
    template = {"metadata": {"annotations": {"example.com/version": "2"}}}
    patch = {"spec": {"workers": {"podTemplate": template}}}
    kubectl("patch", "shufflecluster", "default", "--type=merge", f"--patch={json.dumps(patch)}")
    eventually(lambda: gone[0] not in _uids() or gone[1] not in _uids(), seconds=120, what="a step")
    words.until_mapped()
    until_ready(2, besides=gone)
    words.finish()


def test_workers_are_scaled_from_three_to_one_and_back() -> None:
    kubectl("scale", "shufflecluster/default", "--replicas=3")
    until_ready(3)
    words = Words("scaled")
    words.until_half_mapped()
    assert all(words.held_by(name_of(pod)) for pod in workers())
    kubectl("scale", "shufflecluster/default", "--replicas=1")
    until_ready(1)
    words.until_mapped()
    kubectl("scale", "shufflecluster/default", "--replicas=3")
    until_ready(3)
    words.finish()


def _restarts(name: str) -> int:
    (status,) = get("pod", name)["status"]["containerStatuses"]
    return int(status["restartCount"])


def _uids() -> list[str]:
    return [pod["metadata"]["uid"] for pod in workers()]


def _is_ready(name: str) -> bool:
    return any(
        name_of(pod) == name and "deletionTimestamp" not in pod["metadata"] for pod in workers()
    )


def _evict(name: str) -> None:
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": NAMESPACE},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
    kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(eviction))


def _evicted(name: str) -> bool:
    try:
        _evict(name)
    except Failed as failed:
        if "disruption budget" not in str(failed):
            raise
        return False
    return True
