"""A namespace with an S3 server and a volume for results; what is left of it goes at the end."""

from collections.abc import Iterator

import pytest
from kube_client import NAMESPACE, Failed, apply, kubectl, report
from objects import results, s3_server, tasks


@pytest.fixture(scope="module")
def _place() -> Iterator[None]:
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": NAMESPACE, "labels": restricted}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        apply(*s3_server(), *results(), tasks())
        kubectl("wait", "--for=condition=Ready", "pod/s3", "--timeout=120s")
        yield
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        kubectl("delete", "pv", f"{NAMESPACE}-results", "--ignore-not-found", "--wait=false")


@pytest.fixture
def place(_place: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """A namespace for a test, which tells about it when the test failed."""
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed > failed_before:
        try:
            print(report())
        except Failed as failed:
            print(failed)
