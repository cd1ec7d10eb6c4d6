"""The chart's hooks, run by Helm itself with the rights that the chart gives them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import specs
from administrator import OURS, Administrator, Object, Refused
from control_plane import ControlPlane, control_plane
from helm_releases import Helm

from crossdock_operator.plan.names import FINALIZER
from harness import SHARED_PROCESSES, eventually

CLUSTERS: Final = "shuffleclusters"
JOBS: Final = "shufflejobs"
CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
STORE: Final[Object] = {"store": {"url": "s3://bucket/prefix"}}
DEFAULT: Final = {"defaultCluster": {"enabled": True, "spec": STORE}}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server without our CRDs."""
    with control_plane(tmp_path_factory.mktemp("bare")) as found:
        SHARED_PROCESSES.update(found.pids)
        yield found


@pytest.fixture
def world(bare: ControlPlane) -> Iterator[Administrator]:
    """Administers that; all that is ours is gone at the end."""
    admin = Administrator(bare)
    yield admin
    _let_all_go(admin)
    for crd in admin.ask("GET", CRDS)["items"]:
        admin.remove_crd(crd["metadata"]["name"])
    for plural in ("clusterroles", "clusterrolebindings"):
        where = f"/apis/rbac.authorization.k8s.io/v1/{plural}"
        admin.ask("DELETE", f"{where}?labelSelector=app.kubernetes.io/part-of%3Dcrossdock")


@pytest.fixture
def helm(bare: ControlPlane, world: Administrator, tmp_path: Path) -> Iterator[Helm]:
    found = Helm(bare, world, world.new_namespace(), tmp_path)
    yield found
    found.close()


def test_what_is_in_use_keeps_the_release_from_going_until_it_is_gone(
    helm: Helm, world: Administrator
) -> None:
    helm("install", values=DEFAULT).succeeded()
    own = _path(CLUSTERS, helm.namespace, "default")
    assert world.ask("GET", own)["spec"]["store"]["url"] == "s3://bucket/prefix"
    elsewhere = world.new_namespace()
    _job(world, elsewhere)

    said = helm("uninstall").failed()
    assert f"in use: ShuffleJob {elsewhere}/words" in said
    assert world.ask("GET", own)["metadata"].get("deletionTimestamp") is None
    assert world.get(
        f"/apis/apps/v1/namespaces/{helm.namespace}/deployments/rel-crossdock-operator"
    )

    _let_all_go(world)
    _hold(world, CLUSTERS, helm.namespace, "default")
    leaving = helm("uninstall")
    leaving.until_hook_says("waiting: it is not gone yet")
    _let_go(world, own)
    assert "nothing needs the operator" in leaving.succeeded()


def test_a_release_whose_uninstall_was_refused_goes_on_as_the_hint_says(
    helm: Helm, world: Administrator
) -> None:
    helm("install").succeeded()
    _job(world, helm.namespace)
    assert "`helm rollback RELEASE REVISION`" in " ".join(helm("uninstall").failed().split())
    assert helm.status() == "uninstalling"
    leave = {"uninstall": {"whenInUse": "Leave"}}
    assert "has no deployed releases" in helm("upgrade", values=leave).failed()
    helm("rollback", "1").succeeded()
    assert helm.status() == "deployed"
    helm("upgrade", values=leave).succeeded()
    assert "left as it is" in helm("uninstall").succeeded()
    assert world.get(_path(JOBS, helm.namespace, "words"))


def test_without_hooks_all_is_left_as_it_is(helm: Helm, world: Administrator) -> None:
    helm("install").succeeded()
    _job(world, helm.namespace)
    helm("uninstall").failed()
    helm("uninstall", "--no-hooks").succeeded()
    assert world.get(_path(JOBS, helm.namespace, "words"))


def test_wait_waits_for_all_of_it_and_no_longer_than_it_is_told(
    helm: Helm, world: Administrator
) -> None:
    wait = {"whenInUse": "Wait"}
    helm("install", values={**DEFAULT, "uninstall": wait}).succeeded()
    _job(world, helm.namespace)
    _hold(world, CLUSTERS, helm.namespace, "default")
    leaving = helm("uninstall")
    leaving.until_hook_says(f"waiting: ShuffleJob {helm.namespace}/words")
    _let_go(world, _path(JOBS, helm.namespace, "words"), delete=True)
    leaving.until_hook_says("waiting: it is not gone yet")
    _let_go(world, _path(CLUSTERS, helm.namespace, "default"))
    leaving.succeeded()


def test_all_that_is_waited_for_has_one_deadline(helm: Helm, world: Administrator) -> None:
    values = {**DEFAULT, "uninstall": {"whenInUse": "Wait", "timeoutSeconds": 1}}
    helm("install", values=values).succeeded()
    _job(world, helm.namespace)
    _hold(world, CLUSTERS, helm.namespace, "default")
    for _ in range(10):
        leaving = helm("uninstall")
        if leaving.hook_says("waiting: ShuffleJob"):
            _let_go(world, _path(JOBS, helm.namespace, "words"), delete=True)
        said = leaving.failed()
        if "ShuffleCluster default" in said:
            break
        # Its first look came later than that second, or its next one before we had let go.
        if world.get(_path(JOBS, helm.namespace, "words")) is None:
            _job(world, helm.namespace)
    assert "ShuffleCluster default: it is not gone yet" in said
    assert "waiting: it is not gone yet" not in said, "its time was over when its turn came"


def test_a_cluster_that_is_refused_fails_the_install(helm: Helm) -> None:
    wrong = {"defaultCluster": {"enabled": True, "spec": {**STORE, "workers": {"replicas": -1}}}}
    assert "spec.workers.replicas" in helm("install", values=wrong).failed()


def test_without_crds_nothing_is_in_use(helm: Helm, world: Administrator) -> None:
    helm("install", values=DEFAULT).succeeded()
    _let_all_go(world)
    for crd in (JOBS, CLUSTERS):
        world.remove_crd(f"{crd}.crossdock.dev")
    assert "nothing needs the operator" in helm("uninstall").succeeded()


def test_crds_that_are_not_kept_go_once_nothing_is_in_use(helm: Helm, world: Administrator) -> None:
    helm("install", values={"crds": {"keep": False}}).succeeded()
    _job(world, helm.namespace)
    helm("uninstall").failed()
    assert world.get(_path(JOBS, helm.namespace, "words"))
    _let_all_go(world)
    helm("uninstall").succeeded()
    eventually(lambda: not world.ask("GET", CRDS)["items"], what="no CRDs")


def test_with_namespaces_the_hooks_look_there_and_only_there(
    helm: Helm, world: Administrator
) -> None:
    watched, other = world.new_namespace(), world.new_namespace()
    helm("install", values={"operator": {"watchNamespaces": [watched]}}).succeeded()
    _job(world, other)
    _job(world, watched)
    said = helm("uninstall").failed()
    assert f"ShuffleJob {watched}/words" in said
    assert other not in said
    _let_go(world, _path(JOBS, watched, "words"), delete=True)
    helm("uninstall").succeeded()


@pytest.mark.parametrize("fewer", [{"watchNamespaces": ["blue"]}, {"replicas": 0}])
def test_an_upgrade_that_leaves_out_what_is_in_use_is_refused(
    helm: Helm, world: Administrator, fewer: Object
) -> None:
    _namespace(world, "blue")
    helm("install").succeeded()
    _job(world, helm.namespace)
    said = helm("upgrade", values={"operator": fewer}).failed()
    assert f"in use: ShuffleJob {helm.namespace}/words" in said
    leave = {"whenInUse": "Leave"}
    helm("upgrade", values={"operator": fewer, "uninstall": leave}).succeeded()


def test_an_upgrade_asks_of_what_it_leaves_out_alone(helm: Helm, world: Administrator) -> None:
    kept, left = world.new_namespace(), world.new_namespace()
    helm("install", values={"operator": {"watchNamespaces": [kept, left]}}).succeeded()
    _job(world, kept)
    assert not helm("upgrade", values={"operator": {"watchNamespaces": [left, kept]}}).succeeded()
    said = helm("upgrade", values={"operator": {"watchNamespaces": [kept]}}).succeeded()
    assert "nothing that is left out needs the operator" in said
    said = helm("upgrade", values={"operator": {"watchNamespaces": [left]}}).failed()
    assert f"in use: ShuffleJob {kept}/words" in said


def test_a_namespace_that_is_gone_can_be_left_out(helm: Helm, world: Administrator) -> None:
    kept, gone = world.new_namespace(), world.new_namespace()
    helm("install", values={"operator": {"watchNamespaces": [kept, gone]}}).succeeded()
    _end_namespace(world, gone)
    helm("upgrade", values={"operator": {"watchNamespaces": [kept]}}).succeeded()
    helm("uninstall").succeeded()


def _job(admin: Administrator, namespace: str) -> None:
    admin.create(namespace, JOBS, specs.job("words"))
    _hold(admin, JOBS, namespace, "words")


def _hold(admin: Administrator, plural: str, namespace: str, name: str) -> None:
    """Play the operator: an object has something in a store."""
    admin.merge(_path(plural, namespace, name), {"metadata": {"finalizers": [FINALIZER]}})


def _let_go(admin: Administrator, path: str, *, delete: bool = False) -> None:
    if delete:
        admin.ask("DELETE", path)
    admin.merge(path, {"metadata": {"finalizers": None}})


def _let_all_go(admin: Administrator) -> None:
    for plural in (JOBS, CLUSTERS):
        found = eventually(partial(_listed, admin, plural), what="their list")
        for each in found["items"]:
            metadata = each["metadata"]
            path = _path(plural, metadata["namespace"], metadata["name"])
            try:
                _let_go(admin, path)
                if plural == JOBS:
                    admin.ask("DELETE", path)
            except Refused as refused:
                if refused.status != 404:
                    raise


def _listed(admin: Administrator, plural: str) -> Object | None:
    """Return all there are; None: the API server does not know yet."""
    try:
        return admin.get(f"{OURS}/{plural}") or {"items": []}
    except Refused as refused:
        if refused.status == 429:  # "storage is (re)initializing"
            return None
        raise


def _namespace(admin: Administrator, name: str) -> None:
    if admin.get(f"/api/v1/namespaces/{name}") is None:
        admin.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})


def _end_namespace(admin: Administrator, name: str) -> None:
    """Play the controller that is not here: what is in a namespace goes with it."""
    path = f"/api/v1/namespaces/{name}"
    admin.ask("DELETE", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{name}/rolebindings")
    admin.ask("DELETE", path)
    found = admin.ask("GET", path)
    admin.ask("PUT", f"{path}/finalize", {**found, "spec": {}})
    assert admin.get(path) is None


def _path(plural: str, namespace: str, name: str) -> str:
    return f"{OURS}/namespaces/{namespace}/{plural}/{name}"
