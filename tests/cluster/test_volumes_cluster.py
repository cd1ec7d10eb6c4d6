"""Workers on volumes of their own, made by hand on the node: what they hold outlives their pods."""

from collections.abc import Iterator

import pytest
from kube_client import Object, apply, get, kubectl, name_of, shell
from objects import VOLUMES, local_claim, named, store, workers
from words import DISK, Words, in_the_bucket, on_disks, tried_again, until_ready, wait

from harness import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("installed")]

NAME = "lasting"


@pytest.fixture(autouse=True)
def _nothing_stays(installed: None) -> Iterator[None]:
    yield
    kubectl("delete", "shufflecluster", NAME, "--ignore-not-found", "--wait=false")


def test_frames_on_volumes_outlive_pods_and_go_with_their_job_and_cluster() -> None:
    claim = {"size": "1Gi"} | {
        key: value for key, value in local_claim().items() if key == "storageClassName"
    }
    spec = {"workers": workers(storage={"volumeClaim": claim}), "store": store()}
    apply(named("crossdock.dev/v1alpha1", "ShuffleCluster", NAME, spec=spec))
    wait(f"shufflecluster/{NAME}", "Ready")
    assert [each["status"]["phase"] for each in _claims()] == ["Bound", "Bound"]

    words = Words("lasting-words", clusterRef={"name": NAME})
    words.until_mapped()
    gone = [each["metadata"]["uid"] for each in _pods()]
    assert on_disks(words.uid, NAME)
    kubectl("delete", "pods", *map(name_of, _pods()), "--grace-period=0", "--force")
    until_ready(2, NAME, besides=gone)
    assert on_disks(words.uid, NAME), "its files are there again"
    assert tried_again(words.finish()) == 0, "no map ran again"

    directories = [shell(name_of(pod), f"find {DISK}/jobs -mindepth 1") for pod in _pods()]
    assert "".join(directories) == ""
    kubectl("delete", "shufflecluster", NAME, "--timeout=180s", seconds=190)
    eventually(lambda: not _claims(), seconds=60, what="claims to go", pause=0.5)
    assert in_the_bucket() == ""
    if VOLUMES is not None:
        left = [path for path in VOLUMES.glob("local-*/**/jobs/*") if path.exists()]
        assert left == []


def _pods() -> list[Object]:
    return list(get("pods", labels=f"app.kubernetes.io/instance={NAME}"))


def _claims() -> list[Object]:
    return list(get("persistentvolumeclaims", labels=f"app.kubernetes.io/instance={NAME}"))
