"""`kubectl crossdock`: what it shows with whose rights, on a real API server."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from administrator import OURS, Administrator
from control_plane import ADMIN_TOKEN, ControlPlane
from node import Node, objects
from persons import PLUGIN, Person, account, allow
from specs import cluster, job, stage

from crossdock.errors import ConfigError
from crossdock_operator.errors import Vanished
from crossdock_operator.kinds import SHUFFLE_JOB, Kind
from crossdock_operator.kube import Kube
from crossdock_operator.kubectl.access import explained
from crossdock_operator.kubectl.logs import LOOK_SECONDS
from harness import WAIT_SECONDS, eventually

AUDITED = {
    "lastAuditTime": "2026-01-01T00:00:00Z", "storeBytes": 3 << 20, "workerBytes": 1 << 30,
    "orphans": 2, "orphanBytes": 2048,
}  # fmt: skip


class Shown:
    """A namespace with a cluster and a job, and an administrator who looks at it."""

    def __init__(self, admin: Administrator, namespace: str, person: Person) -> None:
        self.admin = admin
        self.namespace = namespace
        self.person = person

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.person.run(*arguments, "-n", self.namespace)

    def say(self, plural: str, name: str, **status: Any) -> None:
        path = f"{OURS}/namespaces/{self.namespace}/{plural}/{name}/status"
        self.admin.merge(path, {"status": status})

    def stages(self, done: int) -> list[dict[str, object]]:
        return [{"name": "words", "phase": "Running", "tasks": 7, "done": done, "attempts": 9}]


@pytest.fixture
def shown(plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path) -> Shown:
    storage = {"volumeClaim": {"size": "4Gi"}}
    admin.create(namespace, "shuffleclusters", cluster(workers={"storage": storage}))
    admin.create(namespace, "shufflejobs", job(clusterRef={"name": "main"}, stages=[stage()]))
    return Shown(admin, namespace, Person(plane, ADMIN_TOKEN, tmp_path))


def test_status_says_what_is_wrong_and_what_to_do(shown: Shown) -> None:
    quiet = shown.run("status")
    assert quiet.returncode == 0, quiet.stderr
    assert "main" in quiet.stdout
    said = {
        "type": "StoreReachable", "status": "False", "reason": "Denied", "message": "no DELETE",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    workers = {"replicas": 2, "ready": 1, "updated": 2}
    shown.say("shuffleclusters", "main", phase="Degraded", summary="1/2", workers=workers,
              storage=AUDITED, conditions=[said])  # fmt: skip
    failed = {**said, "type": "Failed", "status": "True", "reason": "TaskFailed"}
    shown.say("shufflejobs", "wordcount", phase="Failed", conditions=[failed])
    found = shown.run("status")
    assert found.returncode == 1
    row = next(line for line in found.stdout.splitlines() if "Degraded" in line)
    assert "1/2" in row
    assert "12%" in row, "1 GiB of two volumes of 4 GiB"
    assert "2 of 2.0 KiB" in row
    assert "StoreReachable: Denied: no DELETE" in found.stdout
    assert "give these rights to the credentials" in found.stdout
    assert f"kubectl crossdock logs wordcount -n {shown.namespace}" in found.stdout
    parsed = json.loads(shown.run("status", "-o", "json").stdout)
    assert parsed["clusters"][0]["disk_bytes"] == 8 << 30
    assert [f["reason"] for f in parsed["findings"]] == ["Denied", "TaskFailed"]


def test_jobs_of_one_namespace_or_all(shown: Shown) -> None:
    other = shown.admin.new_namespace()
    shown.admin.create(other, "shufflejobs", job("elsewhere"))
    shown.say("shufflejobs", "wordcount", phase="Running", progress="0/1", stages=shown.stages(3))
    found = shown.run("jobs").stdout
    assert "words 3/7 (9 tries)" in found
    assert "elsewhere" not in found
    rows = json.loads(shown.person.run("jobs", "-A", "-o", "json").stdout)["jobs"]
    assert {(shown.namespace, "wordcount"), (other, "elsewhere")} <= {
        (row["namespace"], row["name"]) for row in rows
    }
    empty = shown.person.run("jobs", "-n", shown.admin.new_namespace())
    assert empty.returncode == 0
    assert "-A looks everywhere" in empty.stdout


def test_jobs_are_shown_again_when_they_change(shown: Shown) -> None:
    command = shown.person.start("jobs", "--watch", "-o", "json", "-n", shown.namespace)
    try:
        assert command.stdout is not None
        assert objects(command.stdout.readline())[0]["jobs"]
        shown.say("shufflejobs", "wordcount", phase="Running", stages=shown.stages(5))
        line = command.stdout.readline()
        (row,) = json.loads(line)["jobs"]
        assert row["stages"][0]["done"] == 5
        path = f"{OURS}/namespaces/{shown.namespace}/shufflejobs/wordcount"
        shown.admin.ask("DELETE", path)
        assert json.loads(command.stdout.readline())["jobs"] == []
    finally:
        command.kill()
        command.communicate()


@pytest.fixture
def node(admin: Administrator, namespace: str, tmp_path: Path) -> Iterator[Node]:
    with Node(admin, tmp_path / "node", f"node-{namespace}") as found:
        yield found


def labels(stage_name: str) -> dict[str, str]:
    return {"crossdock.dev/job": "wordcount", "crossdock.dev/stage": stage_name}


@pytest.mark.usefixtures("_controllers")
def test_logs_of_a_stage_the_newest_first(shown: Shown, node: Node) -> None:
    shown.admin.await_service_account(shown.namespace)
    nothing = shown.run("logs", "wordcount")
    assert nothing.returncode == 2
    assert "no pod of the job is there" in nothing.stderr
    unknown = shown.run("logs", "nobody")
    assert "there is no ShuffleJob 'nobody'" in unknown.stderr
    index = {"batch.kubernetes.io/job-completion-index": "4"}
    for n, name in enumerate(("words", "words", "count")):
        node.run(shown.namespace, f"pod-{n}", labels(name), annotations=index)
        node.write(f"pod-{n}", f"first of {n}", f"last of {n}")
    found = shown.run("logs", "wordcount", "words", "--tail", "1").stdout.splitlines()
    assert found == [
        "==> pod-1 (stage words, task 4, Running)", "last of 1",
        "==> pod-0 (stage words, task 4, Running)", "last of 0",
    ]  # fmt: skip
    assert "first of 2" in shown.run("logs", "wordcount").stdout


@pytest.mark.usefixtures("_controllers")
def test_logs_are_followed_over_pods_that_come_until_the_job_ends(shown: Shown, node: Node) -> None:
    shown.admin.await_service_account(shown.namespace)
    node.run(shown.namespace, "early", labels("words"))
    node.write("early", "one")
    command = shown.person.start("logs", "wordcount", "-f", "-n", shown.namespace)
    try:
        assert command.stdout is not None
        assert command.stdout.readline() == "early | one\n"
        node.write("early", "two")
        assert command.stdout.readline() == "early | two\n"
        node.run(shown.namespace, "late", labels("count"))
        node.write("late", "three")
        assert command.stdout.readline() == "late | three\n"
        shown.say("shufflejobs", "wordcount", phase="Succeeded")
        node.end("early")
        node.end("late")
        assert command.wait(WAIT_SECONDS) == 0
    finally:
        command.kill()
        command.communicate()


@pytest.mark.usefixtures("_controllers")
def test_pods_that_are_there_for_a_moment_are_followed_too(shown: Shown, node: Node) -> None:
    """Tasks that take a second: their pods go when their stage is recorded."""
    shown.admin.await_service_account(shown.namespace)
    pods = f"/api/v1/namespaces/{shown.namespace}/pods"
    command = shown.person.start("logs", "wordcount", "-f", "-n", shown.namespace)
    waits = []
    try:
        assert command.stdout is not None
        for n in range(5):
            node.run(shown.namespace, f"brief-{n}", labels("words"))
            node.write(f"brief-{n}", "it ran")
            began = time.monotonic()
            assert command.stdout.readline() == f"brief-{n} | it ran\n"
            waits.append(time.monotonic() - began)
            node.end(f"brief-{n}")
            shown.admin.ask("DELETE", f"{pods}/brief-{n}?gracePeriodSeconds=0")
        # Each comes just after the one before was seen: a look would find it a whole pause later.
        assert min(waits[1:]) < LOOK_SECONDS / 2, "a look for each finds others too late"
    finally:
        command.kill()
        command.communicate()


def test_a_right_that_lacks_is_named(plane: ControlPlane, shown: Shown, tmp_path: Path) -> None:
    person = Person(plane, account(shown.admin, shown.namespace, "somebody"), tmp_path)
    refused = person.run("jobs", "-n", shown.namespace)
    assert refused.returncode == 1
    right = "the right to list shufflejobs (API group crossdock.dev) in the namespace"
    assert f"{right} {shown.namespace}" in refused.stderr
    allow(shown.admin, shown.namespace, "somebody", "shufflejobs")
    allowed = eventually(lambda: _if_done(person.run("jobs", "-n", shown.namespace)))
    assert "wordcount" in allowed.stdout
    everywhere = person.run("jobs", "-A")
    assert "in all namespaces" in everywhere.stderr
    stranger = Person(plane, "no-such-token", tmp_path).run("jobs")
    assert "the credentials are not taken" in stranger.stderr


def _if_done(
    found: "subprocess.CompletedProcess[str]",
) -> "subprocess.CompletedProcess[str] | None":
    return found if found.returncode == 0 else None


async def test_without_our_crds_it_says_so(kube: Kube) -> None:
    unknown = Kind(name="Nothing", plural="nothings", group="nobody.example.com")
    with pytest.raises(Vanished) as told:
        await anext(kube.every(unknown))
    with (
        pytest.raises(ConfigError, match="CRDs are not installed"),
        explained("list", SHUFFLE_JOB, ""),
    ):
        raise told.value


def test_without_credentials_it_says_where_they_are_looked_for(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"}
    environment["HOME"] = str(tmp_path)
    nowhere = subprocess.run(
        [PLUGIN, "status"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert nowhere.returncode == 2
    assert "there is no kubeconfig" in nowhere.stderr
    unknown = subprocess.run(
        [PLUGIN, "status", "--kubeconfig", str(tmp_path / "none")],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert unknown.returncode == 2
    assert "does not read as a kubeconfig" in unknown.stderr
