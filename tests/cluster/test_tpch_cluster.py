"""A query of TPC-H in stages: no executor between them, and the result that DuckDB computes."""

import pytest
from examples_here import objects
from kube_client import apply, get, kubectl, shell
from objects import STAGE
from watching import watched
from words import STORE, in_the_bucket, on_disks, staged_files, until_ready, wait

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), pytest.mark.usefixtures("installed")]

NAME = "tpch-q5"
VERIFY = "tpch-q5-verify"


def test_a_query_gives_what_duckdb_gives_and_holds_no_executor_between_stages() -> None:
    until_ready(2)
    shell(STORE, f"rm -rf /data/{NAME}")
    (job,) = objects("on-kubernetes/tpch-q5.yaml")
    assert job["metadata"]["name"] == NAME
    job["spec"]["persistence"] = "Eager"  # so that something comes into the bucket
    with watched("pods", f"crossdock.dev/job={NAME}") as watch:
        apply(job)
        wait(f"shufflejob/{NAME}", "Succeeded", seconds=600)
    stages = {stage["name"]: stage for stage in job["spec"]["stages"]}
    for name, stage in stages.items():
        before = {each["stage"] for each in stage.get("inputs", ())}
        still = set().union(*(watch.names({STAGE: each}) for each in before))
        births = watch.at_birth({STAGE: name})
        assert births, f"stage {name} had no pods"
        # The first pod of a stage: a later one may come while others of its own stage run.
        assert not births[0] & still, f"{name} began while pods of {before} were there"
    status = get("shufflejob", NAME)["status"]
    assert {stage["name"]: stage["phase"] for stage in status["stages"]} == dict.fromkeys(
        stages, "Done"
    )
    assert _verified()
    assert staged_files() == ""
    uid = get("shufflejob", NAME)["metadata"]["uid"]
    kubectl("delete", "shufflejob", NAME, "--timeout=240s", seconds=250)
    assert in_the_bucket() == ""
    assert on_disks(uid) == ""
    shell(STORE, f"rm -rf /data/{NAME}")


def _verified() -> bool:
    apply(*objects(f"on-kubernetes/{VERIFY}.yaml"))
    try:
        until = "--for=jsonpath={.status.phase}=Succeeded"
        kubectl("wait", f"pod/{VERIFY}", until, "--timeout=240s", seconds=250)
        return "verified: the 5 rows of q5" in kubectl("logs", VERIFY)
    finally:
        print(kubectl("logs", VERIFY))
        kubectl("delete", "pod", VERIFY, "--wait=false")
