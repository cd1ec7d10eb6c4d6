"""Why worker pods are not ready, in one line."""

from typing import Any

import pytest

from crossdock_operator.plan.troubles import summary, trouble_of


def pod(name: str = "main-worker-0", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": status}


def waiting(reason: str, message: str = "", **last: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": "worker", "state": state, "lastState": last}


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available",
}


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}, None),
        ({"phase": "Pending"}, None),
        ({"containerStatuses": [waiting("ImagePullBackOff", "Back-off pulling image x")]},
         "main-worker-0: ImagePullBackOff: Back-off pulling image x"),
        ({"containerStatuses": [waiting("CrashLoopBackOff", "back-off 5m0s", terminated={
            "reason": "Error", "exitCode": 2, "message": "no such option\n"})]},
         "main-worker-0: CrashLoopBackOff: Error, exit code 2: no such option"),
        ({"containerStatuses": [waiting("CrashLoopBackOff", "back-off 5m0s")]},
         "main-worker-0: CrashLoopBackOff: back-off 5m0s"),
        ({"initContainerStatuses": [waiting("ErrImagePull")],
          "containerStatuses": [waiting("PodInitializing")]},
         "main-worker-0: ErrImagePull"),
        ({"containerStatuses": [waiting("ContainerCreating")]},
         ("main-worker-0: ContainerCreating: if it stays so, "
          "`kubectl describe pod main-worker-0` tells why")),
        ({"conditions": [UNSCHEDULABLE]}, "main-worker-0: Unschedulable: 0/3 nodes are available"),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on resource: memory"},
         "main-worker-0: Evicted: low on resource: memory"),
    ],
)  # fmt: skip
def test_what_a_pod_waits_for(status: dict[str, Any], text: str | None) -> None:
    found = trouble_of(pod(**status))
    assert (None if found is None else found.text) == text


def test_the_first_pod_is_told_of_and_one_that_starts_last() -> None:
    def of(name: str, reason: str) -> dict[str, Any]:
        return pod(name, containerStatuses=[waiting(reason)])

    pods = [
        of("main-worker-0", "ContainerCreating"),
        of("main-worker-10", "ErrImagePull"),
        of("main-worker-9", "CrashLoopBackOff"),
    ]
    troubles = [found for each in pods if (found := trouble_of(each)) is not None]
    said = summary(troubles, pods=3, wanted=3, owner="main-worker")
    assert said == "main-worker-9: CrashLoopBackOff"
    said = summary(troubles[:1], pods=1, wanted=1, owner="main-worker")
    assert said.startswith("main-worker-0: ContainerCreating")


def test_pods_that_nobody_can_make() -> None:
    said = summary([], pods=0, wanted=2, owner="main-worker")
    assert said.startswith("0 of 2 pods are there")
    assert "kubectl describe statefulset main-worker" in said
    assert summary([], pods=2, wanted=2, owner="main-worker") == ""


def test_a_long_message_is_cut() -> None:
    ended = {"reason": "Error", "exitCode": 1, "message": "x" * 4000 + " the cause"}
    container = waiting("CrashLoopBackOff", terminated=ended)
    found = trouble_of(pod(containerStatuses=[container]))
    assert found is not None
    assert len(found.text) < 500
    assert found.text.endswith(" the cause"), "of a log the end says most"
