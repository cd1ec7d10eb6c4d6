"""The operator while the API server refuses, forgets or is away: the end is the same."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from administrator import Administrator
from api_proxy import ApiProxy
from control_plane import ControlPlane, control_plane
from operators import running_operator
from roles import grant
from scenes import SECONDS, Scene

from harness import eventually

CHILDREN = (("services", "main"), ("services", "main-worker"), ("serviceaccounts", "main-worker"),
            ("networkpolicies", "main-worker"), ("poddisruptionbudgets", "main-worker"),
            ("statefulsets", "main-worker"), ("secrets", "main-key"))  # fmt: skip


@pytest.fixture
def proxy(plane: ControlPlane) -> Iterator[ApiProxy]:
    with ApiProxy(plane) as found:
        yield found


@pytest.fixture
def far(
    _controllers: None,
    plane: ControlPlane,
    admin: Administrator,
    namespace: str,
    proxy: ApiProxy,
    tmp_path: Path,
) -> Iterator[Scene]:
    """An operator behind the proxy."""
    grant(admin, namespace)
    with running_operator(plane, tmp_path, namespace, server=proxy.url) as operator:
        yield Scene(admin, namespace, operator)


def test_what_was_deleted_while_a_watch_was_cut_is_made_again(far: Scene, proxy: ApiProxy) -> None:
    """A watch that is too old begins with a list, which does not tell what went."""
    far.create()
    for plural, name in CHILDREN:
        far.wait(plural, name)
    far.wait_status(lambda s: s.get("phase") == "Pending")
    proxy.silence("services")
    far.admin.ask("DELETE", far.path("services", "main"))
    assert far.get("services", "main") is None
    proxy.expire()
    far.wait("services", "main")
    eventually(
        lambda: far.operator.metric("crossdock_operator_missed_events_total", kind="Service") >= 1,
        what="the metric of it",
    )


def test_a_cluster_that_went_while_a_watch_was_cut(far: Scene, proxy: ApiProxy) -> None:
    far.create()
    far.wait("statefulsets", "main-worker")
    far.wait_status(lambda s: s.get("phase") == "Pending")
    proxy.silence("shuffleclusters")
    far.admin.ask("DELETE", far.path("shuffleclusters", "main"))
    proxy.expire()
    eventually(
        lambda: far.operator.metric("crossdock_operator_objects", kind="ShuffleCluster") == 0,
        seconds=SECONDS,
        what="it to be forgotten",
    )


@pytest.mark.parametrize("seed", range(2))
def test_a_server_that_refuses_now_and_then(far: Scene, proxy: ApiProxy, seed: int) -> None:
    """409, 429, 500 and 503, to calls of all kinds."""
    faults = random.Random(seed)
    resources = ("shuffleclusters/status", "services", "secrets", "statefulsets", "networkpolicies")
    refusals = [
        proxy.refuse(
            lambda call, r=resource, v=verb: (call.resource, call.verb) == (r, v),
            faults.choice((429, 500, 503) if verb in {"list", "watch"} else (409, 429, 500)),
            times=faults.randint(1, 2),
        )
        for resource in resources
        for verb in ("create", "patch", "list", "watch")
    ]
    far.create(workers={"replicas": 2})
    for plural, name in CHILDREN:
        far.wait(plural, name)
    far.change(workers={"replicas": 3})
    far.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 3)
    far.wait_status(lambda s: s.get("summary") == "0/3")
    assert sum(r.hits for r in refusals) >= 8, f"seed {seed}: hardly anything was refused"


def test_an_api_server_that_is_away_for_longer_than_the_lease(tmp_path: Path) -> None:
    """The leader ends, since another may lead; the one that waited goes on afterwards."""
    with control_plane(tmp_path) as plane:
        admin = Administrator(plane)
        admin.install_crds()
        namespace = admin.new_namespace()
        grant(admin, namespace)
        directories = [tmp_path / "first", tmp_path / "second"]
        for directory in directories:
            directory.mkdir()
        with running_operator(plane, directories[0], namespace) as first:
            scene = Scene(admin, namespace, first)
            scene.create(workers={"replicas": 2})
            scene.wait("statefulsets", "main-worker")
            with running_operator(plane, directories[1], namespace) as second:
                eventually(lambda: second.fetch("/readyz")[0] == 200, seconds=SECONDS)
                plane.api_server.kill()
                eventually(lambda: first.ended() is not None, seconds=SECONDS, what="its end")
                assert first.ended() == 1
                assert "was not renewed in time" in first.log()
                assert second.fetch("/healthz")[0] == 200, "to start it anew would not help"
                plane.start_api_server()
                scene.change(workers={"replicas": 4})
                scene.operator = second
                scene.wait("statefulsets", "main-worker", lambda o: o["spec"]["replicas"] == 4)
                assert [e["transitions"] for e in second.events("leads")] == [2]


def test_an_operator_that_starts_before_the_api_server(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        admin = Administrator(plane)
        admin.install_crds()
        namespace = admin.new_namespace()
        grant(admin, namespace)
        plane.api_server.kill()
        with running_operator(plane, tmp_path, namespace) as operator:
            eventually(
                lambda: operator.events("the API server does not let us in"),
                seconds=SECONDS,
                what="it to notice",
            )
            plane.start_api_server()
            scene = Scene(admin, namespace, operator)
            scene.create()
            scene.wait("statefulsets", "main-worker")
