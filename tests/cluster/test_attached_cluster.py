"""An engine's executors go from 4 to 0 to 6 and to 0 again, as its driver says."""

import itertools

import pytest
from examples_here import objects
from kube_client import apply, get, kubectl, pods
from objects import Object
from watching import watched
from words import in_the_bucket, on_disks, until_ready, wait

from harness import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("installed")]

EXECUTORS = "app=engine-executor"


def test_executors_are_scaled_to_none_between_stages() -> None:
    until_ready(2)
    made = objects("attached/engine.yaml")
    for each in made:
        each["metadata"].setdefault("labels", {})["app"] = "engine"
    for _ in range(2):  # all again, under the same names
        _runs_once(made)


def _runs_once(made: list[Object]) -> None:
    with watched("deployments", "app=engine") as watch:
        apply(*made)
        kubectl("wait", "job/driver", "--for=condition=Complete", "--timeout=240s", seconds=250)
        said = kubectl("logs", "job/driver")
        eventually(lambda: not pods(EXECUTORS), seconds=60, what="executors to go", pause=0.5)
    assert "as it should be: True" in said
    wanted = [deployment["spec"]["replicas"] for _, deployment in watch.events]
    assert wanted[-1] == 0
    assert _peaks(wanted)[-2:] == [4, 6], wanted
    there = [deployment["status"].get("replicas", 0) for _, deployment in watch.events]
    assert _peaks(there)[-2:] == [4, 6], there

    wait("shufflejob/engine", "Succeeded")
    uid = get("shufflejob", "engine")["metadata"]["uid"]
    kubectl("delete", "shufflejob/engine", "job/driver", "deployment/executors", "service/driver",
            "--timeout=120s", seconds=130)  # fmt: skip
    assert on_disks(uid) == ""
    assert in_the_bucket() == ""


def _peaks(replicas: list[int]) -> list[int]:
    """Return the most that there were between any two times of none."""
    runs = itertools.groupby(replicas, key=bool)
    return [max(run) for are_some, run in runs if are_some]
