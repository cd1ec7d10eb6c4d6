"""What the operator says of a cluster's store, and the Secrets that it makes for workers."""

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from administrator import Administrator
from control_plane import ControlPlane
from ending_scene import Scene, Site, condition, scenes
from faults import FaultyProxy, refuse
from roles import grant
from servers import ENVIRONMENT, S3Server, running, s3_options

from crossdock.store.api import Verb
from crossdock.store.layout import ShuffleLayout, new_run
from crossdock.store.opening import open_store
from crossdock.views import ShuffleKey
from crossdock.wire import tokens

pytestmark = pytest.mark.usefixtures("_controllers")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running("versitygw", tmp_path_factory.mktemp("versitygw")) as found:
        yield found


@pytest.fixture
def scene(admin: Administrator, server: S3Server) -> Iterator[Scene]:
    with scenes(admin, server) as found:
        grant(admin, found.home)
        yield found


@pytest.fixture
def site(scene: Scene, plane: ControlPlane, tmp_path: Path, namespace: str) -> Site:
    grant(scene.admin, namespace)
    found = scene.site(namespace, workers=1)
    scene.start(plane, tmp_path, [namespace], found)
    return found


def test_the_store_is_probed_and_audited(scene: Scene, site: Site) -> None:
    with FaultyProxy(scene.server.endpoint) as proxy:
        fault = proxy.fail(Verb.DELETE, refuse(403, "AccessDenied"), times=100_000)
        site.create(endpoint=proxy.endpoint, audit={"graceSeconds": 60, "intervalSeconds": 60})
        live = site.make_job("live")
        site.fill(live)
        found = scene.wait(
            site.namespace,
            "shuffleclusters",
            "main",
            lambda o: condition(o, "StoreReachable").get("reason") == "Denied",
        )
        assert "delete objects" in condition(found, "StoreReachable")["message"]
        assert fault.hits
        orphan = put_orphan(scene, site)
        kept = scene.in_store(live)
        proxy.heal()
        scene.operator.kill9_for_another(
            scene.admin
        )  # it audits again when it begins, if it is time
        status = {"storage": {"lastAuditTime": "2026-01-01T00:00:00Z"}}
        path = scene.path(site.namespace, "shuffleclusters", "main")
        scene.admin.merge(f"{path}/status", {"status": status})
        scene.operator.start()
        found = scene.wait(
            site.namespace,
            "shuffleclusters",
            "main",
            lambda o: (
                condition(o, "StorageClean").get("reason") == "Audited"
                and o["status"]["storage"].get("deletedOrphans")
            ),
        )
        storage = found["status"]["storage"]
        assert (storage["deletedOrphans"], storage["orphans"]) == (1, 0)
        assert storage["storeBytes"] > 0
        assert storage["workerBytes"] > 0
        assert not scene.in_store(orphan)
        assert scene.in_store(live) == kept
        reachable = condition(found, "StoreReachable")
        assert reachable["status"] == "True"


def put_orphan(scene: Scene, site: Site) -> str:
    """Put an object of a job that is gone into the store, an hour old; return its uid."""
    uid = "00000000-0000-4000-8000-00000000dead"
    layout = ShuffleLayout.of(site.uid, ShuffleKey(uid, "words", 0))
    key = layout.segment(new_run("0123456789abcdef"), 0)
    credentials = {"AWS_ACCESS_KEY_ID": "crossdock", "AWS_SECRET_ACCESS_KEY": "crossdock-secret"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in credentials.items():
            patch.setenv(name, value)
        store = open_store(scene.store, s3_options(scene.server))
        store.put(key, b"left over")
        store.close()
    (left,) = scene.in_store(uid)
    assert scene.server.data is not None
    before = time.time() - 3600
    os.utime(scene.server.data / left, (before, before))
    return uid


def test_workers_are_spoken_to_by_tls_of_an_own_authority(scene: Scene, site: Site) -> None:
    # By the name that a pod has, which is not in DNS: the API server tells its address.
    port = site.urls[0].rpartition(":")[2]
    site.urls = [f"https://main-worker-0.main-worker.{site.namespace}.svc:{port}"]
    scene.restart(site)
    site.create(security={})
    authority = scene.wait(site.namespace, "secrets", "main-ca")
    certificate = scene.wait(site.namespace, "secrets", "main-tls")
    mounted = scene.wait(site.namespace, "statefulsets", "main-worker")["spec"]["template"]["spec"]
    names = {volume.get("secret", {}).get("secretName") for volume in mounted["volumes"]}
    assert "main-tls" in names
    assert "main-ca" not in names, "who signs is with the operator alone"
    assert set(certificate["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    uid = site.make_job("wordcount")
    site.fill(uid)
    scene.delete(site.namespace, "shufflejobs", "wordcount")
    scene.wait_gone(site.namespace, "shufflejobs", "wordcount")
    assert not site.left_on_disks(uid), "the operator was let in, and checked whom it meets"
    assert not scene.in_store(uid)
    # When it is time the certificate is another one, of the same authority.
    annotations = {"metadata": {"annotations": {"crossdock.dev/renew-at": "1"}}}
    scene.admin.merge(scene.path(site.namespace, "secrets", "main-tls"), annotations)
    renewed = scene.wait(
        site.namespace, "secrets", "main-tls", lambda o: o["data"] != certificate["data"]
    )
    assert renewed["data"]["ca.crt"] == certificate["data"]["ca.crt"]
    assert scene.get(site.namespace, "secrets", "main-ca") == authority


def test_signing_keys_are_rotated(scene: Scene, site: Site) -> None:
    site.create(security={"tls": {"mode": "Disabled"}, "keyRotationDays": 1})
    path = scene.path(site.namespace, "secrets", "main-key")

    def pretend(*roles: tuple[str, float]) -> None:
        """Have the keys' roles be older than they are."""
        note = json.dumps([list(each) for each in roles])
        found = {"crossdock.dev/key-roles": note, "crossdock.dev/renew-at": "1"}
        scene.admin.merge(path, {"metadata": {"annotations": found}})

    def keys(count: int) -> list[bytes]:
        body = scene.wait(
            site.namespace,
            "secrets",
            "main-key",
            lambda o: (
                float(o["metadata"]["annotations"]["crossdock.dev/renew-at"]) > time.time()
                and len(parsed(o)) == count
            ),
        )
        return parsed(body)

    (first,) = keys(1)
    day = 86_400.0
    pretend(("signs", time.time() - 2 * day))
    assert keys(2)[0] == first, "nobody signs with a key that some may not have"
    second = keys(2)[1]
    pretend(("signs", time.time() - 2 * day), ("waits", time.time() - 3600))
    assert keys(2) == [second, first], "tokens of the old one are good for a while"
    pretend(("signs", time.time()), ("retired", time.time() - 30 * day))
    assert keys(1) == [second]


def parsed(body: dict[str, dict[str, str]]) -> list[bytes]:
    return tokens.parse_keys(base64.b64decode(body["data"]["keys"]).decode())


def test_jobs_wait_for_what_their_end_takes(scene: Scene, site: Site) -> None:
    """Without a Secret it is the operator's own account that has to open the store."""
    store = {
        "url": scene.store,
        "endpoint": scene.server.endpoint,
        "pathStyle": True,
        "region": scene.server.region,
        "credentialsSecretRef": {"name": "missing"},
    }
    body = {"spec": {"store": store}, "metadata": {"name": "main"},
            "apiVersion": "crossdock.dev/v1alpha1", "kind": "ShuffleCluster"}  # fmt: skip
    scene.admin.create(site.namespace, "shuffleclusters", body)
    job = {"spec": {"clusterRef": {"name": "main"}}, "metadata": {"name": "wordcount"},
           "apiVersion": "crossdock.dev/v1alpha1", "kind": "ShuffleJob"}  # fmt: skip
    scene.admin.create(site.namespace, "shufflejobs", job)
    found = scene.wait(
        site.namespace,
        "shufflejobs",
        "wordcount",
        lambda o: (
            condition(o, "Accepted").get("reason") == "StoreNotReady"
            and "missing" in condition(o, "Accepted")["message"]
        ),
    )
    assert not found["metadata"].get("finalizers"), "nothing of it is anywhere"
    without = {**store, "credentialsSecretRef": None}
    path = scene.path(site.namespace, "shuffleclusters", "main")
    scene.admin.merge(path, {"spec": {"store": without}})
    scene.wait(
        site.namespace,
        "shufflejobs",
        "wordcount",
        lambda o: "own account" in condition(o, "Accepted").get("message", ""),
    )
    scene.delete(site.namespace, "shufflejobs", "wordcount")
    scene.wait_gone(site.namespace, "shufflejobs", "wordcount")
    scene.delete(site.namespace, "shuffleclusters", "main")
    scene.wait_gone(site.namespace, "shuffleclusters", "main")


def test_a_cluster_without_a_secret_is_cleaned_up_by_the_operators_account(
    scene: Scene, plane: ControlPlane, tmp_path: Path, namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    grant(scene.admin, namespace)
    site = scene.site(namespace, workers=1)
    scene.start(plane, tmp_path, [namespace], site)
    site.create(own_account=True)
    uid = site.make_job("wordcount")
    site.fill(uid)
    assert scene.in_store(uid)
    scene.delete(namespace, "shufflejobs", "wordcount")
    scene.wait_gone(namespace, "shufflejobs", "wordcount")
    assert not scene.in_store(uid)


def test_copies_that_nobody_needs_go(scene: Scene, site: Site) -> None:
    """Of a cluster that was let go by force, after its last job."""
    site.create()
    site.make_job("wordcount")
    stray = "00000000-0000-4000-8000-00000000beef"
    secret = {
        "metadata": {
            "name": f"crossdock-access-{stray}",
            "labels": {"crossdock.dev/cluster-uid": stray},
            "annotations": {"crossdock.dev/copy-of": f"{site.namespace}/main"},
        }
    }
    scene.admin.ask("POST", f"/api/v1/namespaces/{scene.home}/secrets", secret)
    assert scene.operator is not None
    scene.operator.kill9_for_another(scene.admin)  # it looks when it begins to lead
    scene.operator.start()
    scene.wait_gone(scene.home, "secrets", f"crossdock-access-{stray}")
    assert scene.copies() == [f"crossdock-access-{site.uid}"]
