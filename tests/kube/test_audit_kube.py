"""`crossdock audit --kube`: the jobs that live are those of a real API server."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from administrator import OURS, Administrator
from control_plane import ADMIN_TOKEN, OPERATOR_TOKEN, ControlPlane
from roles import grant
from specs import cluster, job

from crossdock.store.layout import ShuffleLayout
from crossdock.store.opening import open_store
from crossdock.views import ShuffleKey
from crossdock_operator.errors import Expired
from crossdock_operator.kinds import SHUFFLE_JOB
from crossdock_operator.kube import Kube
from crossdock_operator.living import uids_of
from harness import eventually

COMMAND = Path(sys.executable).with_name("crossdock")


class Audit:
    """Audits of one cluster's store."""

    def __init__(self, plane: ControlPlane, directory: Path, cluster_uid: str) -> None:
        self._plane = plane
        self._directory = directory
        self._cluster = cluster_uid
        self._store = open_store(directory.as_uri())

    def put(self, uid: str) -> None:
        """Write something of a job."""
        layout = ShuffleLayout.of(self._cluster, ShuffleKey(uid, "words", 0))
        self._store.put(layout.segment("run", 0), b"data")
        time.sleep(0.02)  # the coarse clock of files

    def jobs(self) -> set[str]:
        """Return the uids of jobs that have something in the store."""
        return {info.key.split("/")[1] for info in self._store.list("")}

    def run(
        self, *more: str, token: str = ADMIN_TOKEN, server: str = "", cluster_uid: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run it with the credentials of a token."""
        text = self._plane.kubeconfig.read_text().replace(ADMIN_TOKEN, token)
        path = self._directory.parent / "kubeconfig-audit"
        path.write_text(text.replace(self._plane.url, server or self._plane.url))
        assert yaml.safe_load(path.read_text())
        given = ["--store", self._directory.as_uri(), "--cluster", cluster_uid or self._cluster]
        return subprocess.run(
            [COMMAND, "audit", *given, "--kube", "--grace-seconds", "0", *more],
            env={**os.environ, "KUBECONFIG": str(path)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def audit(plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path) -> Audit:
    made = admin.create(namespace, "shuffleclusters", cluster("default"))
    directory = tmp_path / "store"
    directory.mkdir()
    return Audit(plane, directory, made["metadata"]["uid"])


def created(admin: Administrator, namespace: str, **metadata: Any) -> str:
    body = job()
    body["metadata"].update(metadata)
    return str(admin.create(namespace, "shufflejobs", body)["metadata"]["uid"])


def test_jobs_live_until_kubernetes_has_them_no_more(
    audit: Audit, admin: Administrator, namespace: str
) -> None:
    living_uid = created(admin, namespace, name="living")
    going = created(admin, namespace, name="going", finalizers=["example.com/held"])
    elsewhere = created(admin, admin.new_namespace(), name="elsewhere")
    for uid in (living_uid, going, elsewhere, "gone"):
        audit.put(uid)
    path = f"{OURS}/namespaces/{namespace}/shufflejobs/going"
    admin.ask("DELETE", path)
    found = audit.run("--json")
    assert found.returncode == 1, found.stderr
    assert [each["job"] for each in json.loads(found.stdout)["jobs"]] == ["gone"]
    refused = audit.run("--delete")
    assert refused.returncode == 2
    assert "only the workers know the jobs of processes" in " ".join(refused.stderr.split())
    assert audit.run("--delete", "--no-process-jobs").returncode == 0
    assert audit.jobs() == {living_uid, going, elsewhere}
    admin.merge(path, {"metadata": {"finalizers": []}})
    eventually(lambda: admin.get(path) is None)
    assert audit.run("--delete", "--no-process-jobs").returncode == 0
    assert audit.jobs() == {living_uid, elsewhere}


def test_what_cannot_be_listed_is_not_taken_for_empty(
    audit: Audit, admin: Administrator, namespace: str
) -> None:
    audit.put("gone")
    grant(admin, namespace)  # in this namespace alone
    refused = audit.run("--delete", "--no-process-jobs", token=OPERATOR_TOKEN)
    assert refused.returncode == 2
    assert "list shuffleclusters of all namespaces" in refused.stderr
    another = audit.run(
        "--delete", "--no-process-jobs", cluster_uid="0b5c0f4e-0000-4000-8000-000000000000"
    )
    assert another.returncode == 2
    assert "is this the right context?" in another.stderr
    away = audit.run("--delete", "--no-process-jobs", server="https://127.0.0.1:9")
    assert away.returncode == 2
    assert "is the API server up" in away.stderr
    assert audit.jobs() == {"gone"}


@pytest.mark.parametrize("lucky", [3, 9])
async def test_a_list_that_is_cut_short_is_begun_anew(
    kube: Kube, monkeypatch: pytest.MonkeyPatch, lucky: int
) -> None:
    tries = 0

    async def every(*_: object) -> AsyncIterator[dict[str, Any]]:
        nonlocal tries
        tries += 1
        yield {"metadata": {"uid": f"job-{tries}"}}
        if tries < lucky:
            raise Expired("too old")

    monkeypatch.setattr(kube, "every", every)
    if lucky == 3:
        assert await uids_of(kube, SHUFFLE_JOB) == {"job-3"}
    else:
        with pytest.raises(Expired):
            await uids_of(kube, SHUFFLE_JOB)
