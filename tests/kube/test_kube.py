"""The operator's calls, on a real API server: what they do, and what goes wrong."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from administrator import Administrator
from control_plane import ADMIN_TOKEN, OPERATOR_TOKEN, ControlPlane
from specs import cluster

from crossdock_operator import kube as kube_module
from crossdock_operator.errors import (
    ApiUnavailable,
    Expired,
    NotAllowed,
    Refused,
    Stale,
    Throttled,
    Vanished,
)
from crossdock_operator.kinds import EVENT, LEASE, POD, SHUFFLE_CLUSTER, Kind
from crossdock_operator.kube import Kube
from harness import WAIT_SECONDS

CONFIG_MAP = Kind(name="ConfigMap", plural="configmaps")
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"


def config_map(namespace: str, name: str = "a", **data: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}, "data": data}


async def test_an_object_lives_and_dies(kube: Kube, namespace: str) -> None:
    assert await kube.get(CONFIG_MAP, namespace, "a") is None
    made = await kube.create(CONFIG_MAP, config_map(namespace, x="1"))
    assert await kube.get(CONFIG_MAP, namespace, "a") == made
    replaced = await kube.replace(CONFIG_MAP, {**made, "data": {"y": "2"}})
    assert replaced["data"] == {"y": "2"}
    step = {"op": "replace", "path": "/data/y", "value": "3"}
    assert (await kube.patch(CONFIG_MAP, namespace, "a", [step]))["data"] == {"y": "3"}
    assert await kube.delete(CONFIG_MAP, namespace, "a")
    assert not await kube.delete(CONFIG_MAP, namespace, "a")


async def test_apply_owns_its_fields_only(kube: Kube, namespace: str) -> None:
    await kube.apply(CONFIG_MAP, config_map(namespace, mine="1"), manager="ours")
    await kube.apply(CONFIG_MAP, config_map(namespace, theirs="2"), manager="others")
    applied = await kube.apply(CONFIG_MAP, config_map(namespace, also="3"), manager="ours")
    assert applied["data"] == {"theirs": "2", "also": "3"}, "what we no longer say goes"
    with pytest.raises(Stale, match="conflict"):
        await kube.apply(CONFIG_MAP, config_map(namespace, theirs="4"), manager="ours", force=False)
    forced = await kube.apply(CONFIG_MAP, config_map(namespace, theirs="4"), manager="ours")
    assert forced["data"]["theirs"] == "4"


async def test_a_dry_run_changes_nothing(kube: Kube, namespace: str) -> None:
    await kube.apply(CONFIG_MAP, config_map(namespace, x="1"), manager="ours", dry_run=True)
    assert await kube.get(CONFIG_MAP, namespace, "a") is None


async def test_pages(kube: Kube, namespace: str) -> None:
    for n in range(7):
        body = config_map(namespace, f"n{n}")
        body["metadata"]["labels"] = {"even": str(n % 2 == 0)}
        await kube.create(CONFIG_MAP, body)
    found = [o async for o in kube.every(CONFIG_MAP, namespace, labels="even=True", page=2)]
    assert [o["metadata"]["name"] for o in found] == ["n0", "n2", "n4", "n6"]


async def test_a_page_that_is_gone(kube: Kube, plane: ControlPlane, namespace: str) -> None:
    """A list that takes longer than etcd keeps its past ends with `Expired`, not short."""
    for n in range(3):  # of events, since the API server keeps no past of them by itself
        metadata = {"namespace": namespace, "name": f"n{n}"}
        about = {"namespace": namespace, "name": "a", "kind": "ConfigMap"}
        last = await kube.create(EVENT, {"metadata": metadata, "involvedObject": about})
    pages = kube.every(EVENT, namespace, page=1)
    assert (await anext(pages))["metadata"]["name"] == "n0"
    last = await kube.replace(EVENT, {**last, "message": "later"})
    await asyncio.to_thread(_compact, plane, last["metadata"]["resourceVersion"])
    with pytest.raises(Expired):
        _ = [o async for o in pages]


def _compact(plane: ControlPlane, revision: str) -> None:
    body = json.dumps({"revision": revision}).encode()
    request = urllib.request.Request(f"{plane.etcd_url}/v3/kv/compaction", data=body)
    with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as response:
        assert response.status == 200


async def test_somebody_was_faster(kube: Kube, namespace: str) -> None:
    made = await kube.create(CONFIG_MAP, config_map(namespace))
    with pytest.raises(Stale, match="already exists"):
        await kube.create(CONFIG_MAP, config_map(namespace))
    await kube.replace(CONFIG_MAP, {**made, "data": {"x": "1"}})
    with pytest.raises(Stale, match="modified"):
        await kube.replace(CONFIG_MAP, {**made, "data": {"x": "2"}})
    version = made["metadata"]["resourceVersion"]
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    with pytest.raises(Refused):
        await kube.patch(CONFIG_MAP, namespace, "a", [test])
    with pytest.raises(Stale):
        await kube.delete(CONFIG_MAP, namespace, "a", uid="another")
    with pytest.raises(Stale):
        await kube.delete(CONFIG_MAP, namespace, "a", version=version)
    assert await kube.get(CONFIG_MAP, namespace, "a") is not None


async def test_status_and_scale(kube: Kube, admin: Administrator, namespace: str) -> None:
    uid = admin.create(namespace, "shuffleclusters", cluster())["metadata"]["uid"]
    where = SHUFFLE_CLUSTER, namespace, "main"
    await kube.write_status(*where, {"phase": "Ready", "summary": "1"}, uid=uid)
    await kube.write_status(*where, {"phase": "Pending"}, uid=uid)
    await kube.scale(SHUFFLE_CLUSTER, namespace, "main", 5, manager="test")
    found = await kube.get(SHUFFLE_CLUSTER, namespace, "main")
    assert found is not None
    assert found["status"] == {"phase": "Pending"}, "the whole status is written"
    assert found["spec"]["workers"]["replicas"] == 5
    with pytest.raises(Vanished):
        await kube.write_status(*where, {"phase": "Ready"}, uid="of-an-earlier-one")
    with pytest.raises(Refused):
        await kube.write_status(*where, {"phase": 5}, uid=uid)
    assert await kube.get(*where) == found


async def test_what_is_not_valid(kube: Kube, namespace: str) -> None:
    body = cluster()
    body["metadata"]["namespace"] = namespace
    body["spec"]["workers"] = {"replicas": -1}
    with pytest.raises(Refused, match="greater than or equal to 0"):
        await kube.apply(SHUFFLE_CLUSTER, body, manager="ours")


async def test_what_is_not_there(kube: Kube) -> None:
    with pytest.raises(Vanished):
        await kube.create(CONFIG_MAP, config_map("no-such-namespace"))
    with pytest.raises(Vanished):
        await kube.write_status(SHUFFLE_CLUSTER, "default", "none", {}, uid="any")


@pytest.mark.usefixtures("_controllers")
async def test_a_namespace_that_goes_away(kube: Kube, admin: Administrator, namespace: str) -> None:
    held = config_map(namespace)
    held["metadata"]["finalizers"] = ["tests.crossdock.dev/hold"]
    await kube.create(CONFIG_MAP, held)
    admin.ask("DELETE", f"/api/v1/namespaces/{namespace}")
    with pytest.raises(Vanished, match="terminat"):
        await kube.create(CONFIG_MAP, config_map(namespace, "b"))
    step = {"op": "remove", "path": "/metadata/finalizers"}
    await kube.patch(CONFIG_MAP, namespace, "a", [step])


@pytest.mark.usefixtures("_controllers")
async def test_eviction_asks_the_budget(kube: Kube, admin: Administrator, namespace: str) -> None:
    admin.await_service_account(namespace)
    metadata = {"name": "a", "namespace": namespace, "labels": {"app": "a"}}
    container = {"name": "a", "image": "a"}
    made = await kube.create(POD, {"metadata": metadata, "spec": {"containers": [container]}})
    running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await kube.write_status(POD, namespace, "a", running, uid=made["metadata"]["uid"])
    budget = {
        "metadata": {"name": "a", "namespace": namespace},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}},
    }
    admin.ask("POST", f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets", budget)
    before = time.monotonic()
    assert not await kube.evict(namespace, "a")
    assert await kube.get(POD, namespace, "a") is not None
    assert time.monotonic() - before < 10, "a budget holds back no other call"
    admin.ask("DELETE", f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/a")
    assert await kube.evict(namespace, "a")


async def test_what_we_may_not(plane: ControlPlane, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(plane.kubeconfig.read_text().replace(ADMIN_TOKEN, "wrong"))
    async with await Kube.connect(path) as stranger:
        with pytest.raises(NotAllowed):
            await stranger.get(LEASE, "default", "a")


async def test_a_busy_server_holds_back_all_calls(
    plane: ControlPlane, admin: Administrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A priority level without any share refuses whatever is matched with it."""
    limited = {"nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0}
    level = {
        "metadata": {"name": "none"},
        "spec": {"type": "Limited", "limited": {**limited, "limitResponse": {"type": "Reject"}}},
    }
    rule = {
        "subjects": [{"kind": "User", "user": {"name": "operator"}}],
        "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
             "namespaces": ["*"]}
        ],
    }  # fmt: skip
    schema = {
        "metadata": {"name": "none"},
        "spec": {
            "priorityLevelConfiguration": {"name": "none"},
            "matchingPrecedence": 2,
            "rules": [rule],
        },
    }
    admin.ask("POST", f"{FLOW}/prioritylevelconfigurations", level)
    admin.ask("POST", f"{FLOW}/flowschemas", schema)
    path = tmp_path / "kubeconfig"
    path.write_text(plane.kubeconfig.read_text().replace(ADMIN_TOKEN, OPERATOR_TOKEN))
    async with await Kube.connect(path) as kube:
        try:
            with monkeypatch.context() as patch:
                patch.setattr(kube_module, "PATIENCE_SECONDS", 0.0)
                before = await _until_throttled(kube)
            with pytest.raises(NotAllowed):
                await kube.get(CONFIG_MAP, "default", "a")
            assert time.monotonic() - before >= 1, "the other call waits as long as it was told"
            sent = kube.calls
            answers = await _many(kube)
            assert {type(a) for a in answers} == {NotAllowed}, "tried again until it had time"
            assert kube.calls >= sent + len(answers)
        finally:
            admin.ask("DELETE", f"{FLOW}/flowschemas/none")
            admin.ask("DELETE", f"{FLOW}/prioritylevelconfigurations/none")


async def _until_throttled(kube: Kube) -> float:
    """Return when the server, which needs a moment for that, has taken in that it is busy.

    Returns:
        A time, of the monotonic clock, before it said so.
    """
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            before = time.monotonic()
            if Throttled in {type(answer) for answer in await _many(kube)}:
                return before


async def _many(kube: Kube) -> list[object]:
    """Ask many things at once: a level without a share still lets one request through."""
    calls = (kube.get(LEASE, "default", "a") for _ in range(12))
    return list(await asyncio.gather(*calls, return_exceptions=True))


async def test_a_server_that_is_down(plane: ControlPlane, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    port = plane.url.rpartition(":")[2]
    path.write_text(plane.kubeconfig.read_text().replace(f":{port}", ":1"))
    async with await Kube.connect(path) as nobody:
        with pytest.raises(ApiUnavailable, match="is the API server up"):
            await nobody.get(LEASE, "default", "a")


async def test_who_may_not_write_any_more_sends_nothing(kube: Kube, namespace: str) -> None:
    def refuse() -> None:
        raise Stopped

    body = {"metadata": {"namespace": namespace, "name": "a"}}
    await kube.create(CONFIG_MAP, body)
    kube.before_write = refuse
    sent = kube.calls
    for call in (
        kube.create(CONFIG_MAP, body),
        kube.apply(CONFIG_MAP, body, manager="me"),
        kube.patch(CONFIG_MAP, namespace, "a", []),
        kube.delete(CONFIG_MAP, namespace, "a"),
        kube.evict(namespace, "a"),
    ):
        with pytest.raises(Stopped):
            await call
    assert kube.calls == sent
    assert await kube.get(CONFIG_MAP, namespace, "a") is not None


class Stopped(Exception):
    pass


def test_typed_models_are_not_loaded() -> None:
    """They would take 110 MB. Three small ones of metadata are kopf's."""
    code = (
        "import sys, crossdock_operator.run\n"
        "print(*[m for m in sys.modules if m.startswith(('kubernetes.client.models.', "
        "'kubernetes.aio.client.models.', 'kubernetes.aio.client.api.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = {name.rpartition(".")[2] for name in done.stdout.split()}
    assert names <= {"v1_object_meta", "v1_owner_reference", "v1_managed_fields_entry"}
