"""Prometheus reads the metrics of a cluster's workers, where its kinds are there."""

import base64
from collections.abc import Callable

import pytest
from administrator import Object
from scenes import Scene, condition

from crossdock.errors import Unauthenticated
from crossdock.wire import tokens
from crossdock.wire.tokens import Right

WANTED = {"serviceMonitor": {"intervalSeconds": 15, "labels": {"release": "prometheus"}}}


def test_without_the_kind_it_is_told(scene: Scene) -> None:
    scene.create(monitoring={"serviceMonitor": {}})
    status = scene.wait_status(has_monitored("False"))
    assert condition(status, "Monitored")["reason"] == "KindNotThere"
    assert (
        "install the CRDs of the Prometheus operator" in condition(status, "Monitored")["message"]
    )
    assert scene.get("secrets", "main-metrics") is None, "no token that nobody needs"
    scene.wait("statefulsets", "main-worker")
    scene.change(monitoring={"serviceMonitor": None})
    scene.wait_status(lambda s: s and not has_monitored()(s))


@pytest.mark.usefixtures("_service_monitors")
def test_from_the_spec_to_a_token_that_opens_metrics_alone(scene: Scene) -> None:
    scene.create(monitoring=WANTED)
    scene.wait_status(has_monitored("True"))
    monitor = scene.wait("servicemonitors", "main-worker")
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["scheme"], endpoint["interval"]) == (
        "worker",
        "https",
        "15s",
    )
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert scene.get("secrets", endpoint["tlsConfig"]["ca"]["secret"]["name"])
    credentials = endpoint["authorization"]["credentials"]
    secret = scene.wait("secrets", credentials["name"])
    assert secret["metadata"]["ownerReferences"][0]["uid"] == monitor["metadata"]["uid"]
    first = token_of(secret, credentials["key"])
    keys = tokens.parse_keys(decoded(scene.wait("secrets", "main-key"), "keys"))
    rights = {each for each in Right if tokens.verify(keys, first).may(each)}
    assert rights == {Right.METRICS}

    due = {"crossdock.dev/renew-at": "1"}
    scene.admin.merge(scene.path("secrets", "main-metrics"), {"metadata": {"annotations": due}})
    scene.wait("secrets", "main-metrics", lambda o: o["metadata"]["annotations"] != due)
    scene.admin.ask("DELETE", scene.path("secrets", "main-metrics"))
    again = scene.wait("secrets", "main-metrics")
    assert tokens.verify(keys, token_of(again)).may(Right.METRICS)

    scene.admin.ask("DELETE", scene.path("secrets", "main-key"))

    def of_new_keys(secret: Object) -> bool:
        made = scene.get("secrets", "main-key")
        now = [] if made is None else tokens.parse_keys(decoded(made, "keys"))
        return bool(now) and now != keys and verifies(now, token_of(secret))

    scene.wait("secrets", "main-metrics", of_new_keys)

    scene.change(monitoring={"serviceMonitor": None})
    scene.wait_status(lambda s: not has_monitored()(s))
    assert scene.get("servicemonitors", "main-worker") is None


@pytest.mark.usefixtures("_service_monitors")
def test_a_secret_of_somebody_else_is_left_alone(scene: Scene) -> None:
    path = f"/api/v1/namespaces/{scene.namespace}/secrets"
    theirs = {"metadata": {"name": "main-metrics"}, "data": {"token": "dGhlaXJz"}}
    scene.admin.ask("POST", path, theirs)
    scene.create(monitoring=WANTED)
    said = condition(scene.wait_status(has_monitored("False")), "Monitored")
    assert said["reason"] == "Refused"
    assert "main-metrics is there already" in said["message"]
    assert scene.wait("secrets", "main-metrics")["data"] == theirs["data"]


def verifies(keys: list[bytes], token: str) -> bool:
    try:
        return tokens.verify(keys, token).may(Right.METRICS)
    except Unauthenticated:
        return False


def has_monitored(status: str = "") -> Callable[[Object], bool]:
    def holds(found: Object) -> bool:
        answers = [c["status"] for c in found.get("conditions", ()) if c["type"] == "Monitored"]
        return answers == [status] if status else bool(answers)

    return holds


def token_of(secret: Object, key: str = "token") -> str:
    return decoded(secret, key)


def decoded(secret: Object, key: str) -> str:
    return base64.b64decode(secret["data"][key]).decode()
