"""One namespace with an S3 server and volumes, and one installed chart, for all of a session."""

import json
from collections.abc import Iterator
from typing import Final

import pytest
from kube_client import NAMESPACE, Failed, apply, get, helm, kubectl, name_of, report
from objects import CHART, RESTRICTED, VOLUMES, results, s3_server, static_volumes, tasks, values
from words import in_the_bucket, staged_files, wait

from harness import eventually

_NAMESPACED: Final = (
    "pods,services,secrets,configmaps,serviceaccounts,persistentvolumeclaims,jobs,deployments,"
    "statefulsets,controllerrevisions,poddisruptionbudgets,networkpolicies,roles,rolebindings,leases"
)
_OF_CLUSTER: Final = "clusterroles,clusterrolebindings,persistentvolumes,priorityclasses"


@pytest.fixture(scope="session")
def _place() -> Iterator[None]:
    metadata = {"name": NAMESPACE, "labels": RESTRICTED}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    volumes = static_volumes()
    try:
        apply(*volumes, *s3_server(), *results(), tasks())
        kubectl("rollout", "status", "statefulset/s3", "--timeout=120s")
        yield
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", seconds=130)
        for each in volumes:
            kubectl("delete", each["kind"], name_of(each), "--wait=false")


@pytest.fixture
def place(_place: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """A namespace for a test. When the test failed it is told about, and its jobs are ended."""
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed > failed_before:
        try:
            print(report())
            kubectl("delete", "shufflejobs", "--all", "--timeout=100s")
        except Failed as failed:
            print(failed)


@pytest.fixture(scope="session")
def _installed(_place: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    chosen = tmp_path_factory.mktemp("chart") / "values.yaml"
    chosen.write_text(json.dumps(values()))
    before = _things()
    helm("install", "crossdock", str(CHART), f"--values={chosen}", "--wait", "--timeout=240s")
    wait("shufflecluster/default", "Ready")
    yield
    helm("uninstall", "crossdock", "--timeout=240s")

    def nothing_is_left() -> bool:
        left = _things() - before
        print("still there:", sorted(left))
        return not left

    eventually(nothing_is_left, seconds=120, what="all to go", pause=1)
    assert in_the_bucket() == ""
    assert staged_files() == ""
    assert get("shuffleclusters") == []
    if VOLUMES is not None:
        results = {path.name for path in VOLUMES.glob("results/*")}
        assert results <= {"gates"}, "tests take their results away"
        assert list(VOLUMES.glob("results/*/*")) == []
        assert list(VOLUMES.glob("local-*/**/jobs/*")) == []


def _things() -> set[str]:
    """Return all that an installed chart or its operator may have made, but for the CRDs."""
    return {*kubectl("get", _NAMESPACED, "--output=name").split(),
            *kubectl("get", _OF_CLUSTER, "--output=name").split()}  # fmt: skip


@pytest.fixture
def installed(_installed: None, place: None) -> None:
    """The chart, with a cluster of two workers."""
