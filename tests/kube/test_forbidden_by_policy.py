"""What a policy or a quota forbids is said, the rest is done, and it is tried again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from administrator import OURS, Administrator, Object, Refused
from control_plane import ControlPlane
from scenes import Scene
from specs import job
from staged_jobs import condition, job_scene

from harness import eventually

pytestmark = pytest.mark.usefixtures("_controllers")
_ROOT: Final = "/apis/admissionregistration.k8s.io/v1"
_WORDS: Final = "the platform team says no"


@contextmanager
def forbidden(admin: Administrator, namespace: str, what: str) -> Iterator[Callable[[], None]]:
    """Have a policy forbid to create some objects of a namespace.

    Args:
        admin: makes the policy.
        namespace: where it is in force.
        what: what is forbidden, in CEL.

    Yields:
        what takes it away.
    """
    rules = [
        {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [kind]}
        for group, kind in (("apps", "statefulsets"), ("batch", "jobs"), ("", "secrets"))
    ]
    allowed = f"!(object.metadata.name == 'probe' || {what})"
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": rules,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        },
        "validations": [{"expression": allowed, "message": _WORDS, "reason": "Forbidden"}],
    }
    binding = {"policyName": namespace, "validationActions": ["Deny"]}
    metadata = {"metadata": {"name": namespace}}
    kinds = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")

    def take_away() -> None:
        for kind in reversed(kinds):
            if admin.get(f"{_ROOT}/{kind}/{namespace}") is not None:
                admin.ask("DELETE", f"{_ROOT}/{kind}/{namespace}")

    def in_force() -> bool:
        path = f"/api/v1/namespaces/{namespace}/secrets?dryRun=All"
        try:
            admin.ask("POST", path, {"metadata": {"name": "probe"}})
        except Refused as error:
            return error.status == 403
        return False

    try:
        for kind, spec in zip(kinds, (policy, binding), strict=True):
            admin.ask("POST", f"{_ROOT}/{kind}", {**metadata, "spec": spec})
        eventually(in_force, seconds=30, what="the policy")
        yield take_away
    finally:
        take_away()


def test_what_a_policy_forbids_is_said_and_done_once_it_is_allowed(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    what = "object.metadata.name == 'main-worker' || object.metadata.name.endsWith('-connection')"
    what += " || object.kind == 'Job'"
    alone = {"replicas": 1}
    with (
        forbidden(admin, namespace, what) as allow,
        job_scene(plane, admin, namespace, tmp_path, cluster_workers=alone) as jobs,
    ):
        scene = Scene(admin, namespace, jobs.operator)
        attached = job("engine", clusterRef={"name": "main"})
        admin.ask("POST", f"{OURS}/namespaces/{namespace}/shufflejobs", attached)
        jobs.apply("words")
        status = scene.wait_status(lambda s: _WORDS in said(s, "Progressing"))
        assert condition(status, "Progressing")["reason"] == "Refused"
        assert status["phase"] == "Degraded"
        for name in ("main", "main-worker"):
            scene.wait("services", name)
        status = jobs.wait(lambda s: _WORDS in said(s, "Ready"), "engine")
        assert status["phase"] == "Waiting"
        status = jobs.wait(lambda s: _WORDS in said(s, "Accepted"), "words")
        assert status["phase"] == "Pending"
        allow()
        scene.make_ready(1)
        scene.wait_status(lambda s: s["phase"] == "Ready")
        jobs.wait_phase("Ready", "engine")
        jobs.wait_phase("Succeeded", "words")


def test_stages_wait_for_a_policy_that_forbids_their_jobs(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> None:
    """As a quota does that takes effect after the job was accepted."""
    with (
        forbidden(admin, namespace, "(object.kind == 'Job' && !request.dryRun)") as allow,
        job_scene(plane, admin, namespace, tmp_path) as jobs,
    ):
        jobs.apply()
        status = jobs.wait(lambda s: _WORDS in said(s, "Running"))
        assert status["phase"] == "Running"
        allow()
        jobs.wait_phase("Succeeded")


def test_why_a_worker_does_not_start_is_said(scene: Scene) -> None:
    scene.create(workers={"replicas": 1})
    scene.wait("pods", "main-worker-0")
    message = "Back-off pulling image"
    container = {
        "name": "worker",
        "image": "none",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": message}},
    }
    path = f"{scene.path('pods', 'main-worker-0')}/status"
    scene.admin.merge(path, {"status": {"phase": "Pending", "containerStatuses": [container]}})
    text = f"main-worker-0: ImagePullBackOff: {message}"
    scene.wait_status(lambda s: text in said(s, "Degraded"))
    scene.admin.merge(path, {"status": {"containerStatuses": None}})
    scene.make_ready(1)
    status = scene.wait_status(lambda s: s["phase"] == "Ready")
    assert text not in str(status)


def said(status: Object, kind: str) -> str:
    """Return the message of a condition."""
    return str(condition(status, kind).get("message", ""))
