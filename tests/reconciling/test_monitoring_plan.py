"""What Prometheus is told of a cluster's workers fits what they are."""

import base64
import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdock_operator.api.cluster import (
    Monitoring,
    Security,
    ServiceMonitor,
    ShuffleClusterSpec,
    Store,
    Tls,
    TlsMode,
    Workers,
)
from crossdock_operator.api.common import SecretReference
from crossdock_operator.kinds import NETWORK_POLICY, SERVICE, Object
from crossdock_operator.plan import monitoring
from crossdock_operator.plan.cluster import Given, objects
from crossdock_operator.plan.trust import server_names
from crossdock_operator.records import Cluster, Key

GIVEN = Given(worker_image="example.com/crossdock:1", namespace="crossdock-system")
TLS = [
    Tls(),
    Tls(mode=TlsMode.SECRET, secret_ref=SecretReference(name="theirs")),
    Tls(mode=TlsMode.DISABLED),
]


def cluster(
    *, tls: Tls | None = None, processes: int = 1, wanted: Monitoring | None = None
) -> Cluster:
    spec = ShuffleClusterSpec(
        store=Store(url="s3://b/p"),
        workers=Workers(processes=processes),
        security=Security(tls=tls or Tls()),
        monitoring=wanted or Monitoring(service_monitor=ServiceMonitor()),
    )
    key = Key("data", "main")
    return Cluster(key=key, uid="u-1", generation=1, deleting=False, spec=spec, status={})


def monitor(of: Cluster) -> Object:
    found = monitoring.service_monitor(of)
    assert found is not None
    return found


@given(st.integers(1, 8), st.sampled_from(TLS))
def test_every_worker_process_is_scraped_once(processes: int, tls: Tls) -> None:
    of = cluster(processes=processes, tls=tls)
    found = monitor(of)
    selector = found["spec"]["selector"]["matchLabels"].items()
    services = [body for kind, body in objects(of, GIVEN) if kind == SERVICE]
    (service,) = [each for each in services if selector <= each["metadata"]["labels"].items()]
    ports = [port["name"] for port in service["spec"]["ports"]]
    assert [endpoint["port"] for endpoint in found["spec"]["endpoints"]] == ports
    assert len(set(ports)) == processes


@pytest.mark.parametrize("tls", TLS)
def test_the_certificate_is_checked_by_a_name_that_it_has(tls: Tls) -> None:
    of = cluster(tls=tls)
    (endpoint,) = monitor(of)["spec"]["endpoints"]
    if tls.mode is TlsMode.DISABLED:
        assert endpoint["scheme"] == "http"
        assert "tlsConfig" not in endpoint
        return
    assert endpoint["scheme"] == "https"
    name = endpoint["tlsConfig"]["serverName"]
    assert any(fnmatch.fnmatch(name, each) for each in server_names(of))
    secret = endpoint["tlsConfig"]["ca"]["secret"]
    assert secret == {"name": "theirs" if tls.secret_ref else "main-tls", "key": "ca.crt"}


def test_the_secret_is_what_the_service_monitor_names_and_goes_with_it() -> None:
    of = cluster()
    (endpoint,) = monitor(of)["spec"]["endpoints"]
    secret = monitoring.token_secret(of, "text", monitor_uid="m-1", made_of="k", now=0.0)
    key = endpoint["authorization"]["credentials"]
    assert key["name"] == secret["metadata"]["name"]
    assert base64.b64decode(secret["data"][key["key"]]) == b"text"
    assert monitoring.monitor_of(secret) == "m-1"
    assert monitoring.monitor_of({"metadata": {}}) is None


def test_labels_choose_it_and_cannot_hide_it() -> None:
    labels = {"release": "prometheus", "app.kubernetes.io/managed-by": "other"}
    wanted = Monitoring(service_monitor=ServiceMonitor(labels=labels, interval_seconds=5))
    found = monitor(cluster(wanted=wanted))
    assert found["metadata"]["labels"]["release"] == "prometheus"
    assert found["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "crossdock-operator"
    assert found["spec"]["endpoints"][0]["interval"] == "5s"
    assert monitoring.service_monitor(cluster(wanted=Monitoring())) is None


def test_scrapers_of_other_namespaces_are_let_in_where_it_is_said() -> None:
    labels = {"kubernetes.io/metadata.name": "monitoring"}

    def peers(wanted: Monitoring) -> list[Object]:
        made = objects(cluster(wanted=wanted), GIVEN)
        (policy,) = [body for kind, body in made if kind == NETWORK_POLICY]
        found: list[Object] = policy["spec"]["ingress"][0]["from"]
        return found

    added = [each for each in peers(Monitoring(scraper_namespaces=labels))
             if each not in peers(Monitoring())]  # fmt: skip
    assert added == [{"namespaceSelector": {"matchLabels": labels}}]
