"""Tasks are apart: nothing in a task's environment or mounts opens another job's objects."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from administrator import OURS, Administrator, Object
from control_plane import ControlPlane
from specs import STORE
from staged_jobs import JobScene, condition, job_scene

from crossdock.errors import Forbidden
from harness import WorkerProcess, connect_all

pytestmark = pytest.mark.usefixtures("_controllers")
CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "the-key-id", "AWS_SECRET_ACCESS_KEY": "the-secret-key"}


@pytest.fixture
def scene(
    plane: ControlPlane, admin: Administrator, namespace: str, tmp_path: Path
) -> Iterator[JobScene]:
    options = {"store": STORE.as_uri(), "eager-quiet-seconds": 0.1}
    with job_scene(plane, admin, namespace, tmp_path, worker_options=options) as found:
        secret = {"metadata": {"name": "s3"}, "stringData": CREDENTIALS}
        admin.ask("POST", f"/api/v1/namespaces/{namespace}/secrets", secret)
        cluster = f"{OURS}/namespaces/{namespace}/shuffleclusters/main"
        store = {"credentialsSecretRef": {"name": "s3"}}
        admin.merge(cluster, {"spec": {"store": store}})
        yield found


def pods_of(scene: JobScene, name: str) -> list[Object]:
    """Return the pods of a job's last stage."""
    labels = {"crossdock.dev/job": name, "crossdock.dev/stage": "count"}
    return [pod for pod in scene.pods() if labels.items() <= pod["metadata"]["labels"].items()]


def materials(scene: JobScene, pod: Object) -> Iterator[tuple[str, str]]:
    """Yield all that a pod's containers find: where it comes from, and the text."""
    spec = pod["spec"]
    containers = [*spec["containers"], *spec.get("initContainers", ())]
    for container in containers:
        assert not container.get("envFrom"), "whole Secrets as an environment"
        for variable in container.get("env", ()):
            source = variable.get("valueFrom") or {"value": variable["value"]}
            assert source.keys() <= {"value", "fieldRef"}, f"{variable['name']} is of {source}"
            yield f"env {variable['name']}", variable.get("value", "")
        for mount in container.get("volumeMounts", ()):
            assert not mount.get("subPath"), "what is mounted so is not renewed"
    for volume in spec.get("volumes", ()):
        sources = [volume, *volume.get("projected", {}).get("sources", ())]
        for source in sources:
            for kind, plural in (("secret", "secrets"), ("configMap", "configmaps")):
                if kind in source:
                    name = source[kind].get("secretName") or source[kind].get("name")
                    yield from contents(scene, plural, name)
        known = {"name", "secret", "configMap", "projected", "emptyDir"}
        assert volume.keys() <= known, f"{volume} may hold anything"


def contents(scene: JobScene, plural: str, name: str) -> Iterator[tuple[str, str]]:
    path = f"/api/v1/namespaces/{scene.namespace}/{plural}/{name}"
    found = scene.admin.ask("GET", path)
    encoded = found.get("data" if plural == "secrets" else "binaryData", {})
    for key, data in encoded.items():
        yield f"{plural}/{name}/{key}", base64.b64decode(data).decode(errors="replace")
    if plural == "configmaps":
        for key, text in found.get("data", {}).items():
            yield f"{plural}/{name}/{key}", text


def tokens_in(text: str) -> list[str]:
    return [word for word in text.split() if word.startswith("ey") and word.count(".") == 2]


def claims(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def objects(worker: WorkerProcess, uid: str, token: str) -> tuple[int, list[str]]:
    """Ask for what a job's shuffle `split` has in the store."""
    answer = worker.request("GET", f"/v1/jobs/{uid}/shuffles/split/0/objects", token=token)
    if answer.status != 200:
        return answer.status, []
    return answer.status, [key for key, _, _ in answer.json()["objects"]]


def is_persisted(worker: WorkerProcess, uid: str) -> bool:
    """Whether nothing of a job is on the disk alone; what its status says may be a while old."""
    (held,) = (job["store"] for job in worker.get_json("/v1/jobs")["jobs"] if job["uid"] == uid)
    return bool(held["stored_bytes"]) and not held["only_here_bytes"]


def test_a_task_opens_its_own_job_alone(scene: JobScene) -> None:
    uids = {}
    for name in ("mine", "theirs"):
        scene.hold("count")
        body = scene.apply(name, persistence="Eager")
        uids[name] = body["metadata"]["uid"]
        scene.until("tasks of the last stage run", lambda name=name: len(pods_of(scene, name)) >= 2)
        scene.wait(lambda s: condition(s, "DataDurable").get("reason") == "Persisted", name)
    (worker,) = scene.workers
    mine, theirs = uids["mine"], uids["theirs"]
    for uid in (mine, theirs):
        scene.until("all to be in the store", lambda uid=uid: is_persisted(worker, uid))
    keys = {uid: objects(worker, uid, worker.admin_token())[1] for uid in (mine, theirs)}
    assert keys[mine], "else there is nothing to open"
    assert keys[theirs]

    pods = pods_of(scene, "mine")
    found = [each for pod in pods for each in materials(scene, pod)]
    secret = [text for _, text in found if any(word in text for word in CREDENTIALS.values())]
    assert not secret, "a task has the store's credentials"
    assert {where for where, _ in found if where.startswith("secrets/")} == {
        f"secrets/mine-connection/{key}" for key in ("endpoints", "job", "token")
    }
    assert not [where for where, text in found if where.startswith("env") and tokens_in(text)]
    tokens = {token for _, text in found for token in tokens_in(text)}
    for token in tokens:
        assert claims(token)["sub"] == mine
        assert set(claims(token)["rights"]) == {"read", "write"}
    (token,) = tokens

    check_what_it_opens(worker, mine, theirs, token, keys)
    # All of it is read without a credential, after the worker has lost its own copy.
    with connect_all([worker], token=token) as client, client.job(mine) as handle:
        shuffle = handle.shuffle("split", partitions=3)
        assert shuffle.view(shuffle.complete_attempts()).bytes.sum() > 0
    with (
        connect_all([worker], token=token) as client,
        pytest.raises(Forbidden),
    ):
        client.job(theirs)
    scene.release("count")
    for name in uids:
        scene.wait_phase("Succeeded", name)


def check_what_it_opens(
    worker: WorkerProcess, mine: str, theirs: str, token: str, keys: dict[str, list[str]]
) -> None:
    path = f"/v1/jobs/{theirs}/shuffles/split/0"
    assert objects(worker, mine, token) == (200, keys[mine])
    for method, target in (
        ("GET", f"{path}/objects"),
        ("GET", f"{path}/objects/{keys[theirs][0]}"),
        ("POST", f"{path}/blocks"),
        ("POST", f"{path}/frames/list"),
        ("POST", f"{path}/views"),
        ("GET", f"{path}/seal"),
        ("GET", f"/v1/jobs/{theirs}"),
        ("PUT", f"/v1/jobs/{theirs}"),
        ("GET", "/v1/jobs"),
    ):
        status = worker.request(method, target, token=token, body=b"").status
        assert status == 403, f"{method} {target}"
    # Keys are of one shuffle: none leads out of it.
    shuffle = f"/v1/jobs/{mine}/shuffles/split/0/objects"
    for way in (f"../../../../{theirs}", f"%2e%2e/%2e%2e/%2e%2e/{theirs}", f"/{theirs}"):
        target = f"{shuffle}/{way}/{keys[theirs][0]}"
        headers = {"Range": "bytes=0-9"}
        assert worker.request("GET", target, token=token, headers=headers).status >= 400, target


def test_a_token_is_renewed_where_it_is_mounted(scene: JobScene) -> None:
    scene.hold("split")
    uid = scene.apply("mine")["metadata"]["uid"]
    scene.until("tasks run", lambda: scene.starts()["split-0"])
    before = dict(contents(scene, "secrets", "mine-connection"))
    secret = f"/api/v1/namespaces/{scene.namespace}/secrets/mine-connection"
    due = {"metadata": {"annotations": {"crossdock.dev/renew-at": "0"}}}
    where = "secrets/mine-connection/token"

    def renewed() -> str:
        scene.admin.merge(secret, due)  # again: a token made in the same second is the same
        token = dict(contents(scene, "secrets", "mine-connection"))[where]
        return token if token != before[where] else ""

    after = scene.until("another token", renewed)
    assert claims(after)["exp"] > claims(before[where])["exp"]
    (worker,) = scene.workers
    for token in (before[where], after):
        assert worker.request("GET", f"/v1/jobs/{uid}", token=token).status == 200
    scene.release("split")
    scene.wait_phase("Succeeded", "mine")
