"""Pods are restricted, and no secret is where people and log collectors look."""

import base64
from collections.abc import Iterator
from typing import Final

import pytest
from kube_client import Failed, apply, crossdock, get, kubectl, name_of, pods
from objects import IMAGE
from words import STORE, Words, until_ready

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("installed")]

OPEN: Final = {"ca.crt", "tls.crt", "endpoints", "job", "AWS_ACCESS_KEY_ID", "release", "url"}
"""Of Secrets, what is no secret."""
KINDS: Final = (
    "pods,jobs,deployments,statefulsets,configmaps,services,events,leases,endpointslices,"
    "poddisruptionbudgets,networkpolicies,shuffleclusters,shufflejobs,persistentvolumeclaims"
)
SHORTEST: Final = 12
"""Of a line that is looked for: `-----END` is no secret."""


def test_a_pod_that_may_do_more_is_refused() -> None:
    container = {"name": "root", "image": IMAGE, "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}}
    with pytest.raises(Failed, match="violates PodSecurity"):
        apply({**pod, "spec": {"containers": [container]}})


def test_no_secret_is_in_logs_environments_arguments_and_objects() -> None:
    until_ready(2)
    words = Words("secret", persistence="Eager")
    words.until_half_mapped()
    secrets = _secrets()
    crossdock("audit", "--now")  # a process of the operator's looks through the store for it
    assert any(name.endswith("-connection/token") for name in secrets), list(secrets)
    assert any(name.endswith("-key/keys") for name in secrets), list(secrets)
    places = dict(_places())
    words.until_mapped()
    places |= {f"{name}, later": text for name, text in _places()}
    secrets |= _secrets()
    found = [
        f"{secret} is in {place}"
        for secret, lines in secrets.items()
        for place, text in places.items()
        for line in lines
        if line in text
    ]
    words.finish()
    assert not found, found
    assert len(places) > 20, list(places)


def _secrets() -> dict[str, list[str]]:
    """Return, by Secret and key, the lines that must be nowhere else."""
    found = {}
    for secret in get("secrets"):
        if secret["type"].startswith("helm.sh/"):
            continue
        for key, value in secret.get("data", {}).items():
            text = base64.b64decode(value).decode()
            lines = [line.strip() for line in text.splitlines()]
            kept = [line for line in lines if len(line) >= SHORTEST and "-----" not in line]
            if key not in OPEN and kept:
                found[f"{name_of(secret)}/{key}"] = [*kept, value]
    return found


def _places() -> Iterator[tuple[str, str]]:
    """Yield where people look, and what is to be seen there."""
    yield "objects", kubectl("get", KINDS, "--output=json")
    for pod in get("pods"):
        name = name_of(pod)
        if name == STORE:
            continue  # an S3 server of the test's own
        yield f"log of {name}", kubectl("logs", name, "--all-containers", "--tail=-1")
    for pod in pods(""):
        name = name_of(pod)
        if name == STORE or pod["status"].get("phase") != "Running":
            continue
        look = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'"
        yield f"environment of {name}", kubectl("exec", name, "--", "sh", "-c", look)
