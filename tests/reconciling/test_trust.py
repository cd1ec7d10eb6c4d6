"""An authority of a cluster's own: who signs when, and certificates that a client takes."""

import datetime as dt
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509

from crossdock_operator.api.cluster import ShuffleClusterSpec, Store
from crossdock_operator.certificates import make_authority, make_certificate
from crossdock_operator.plan import trust
from crossdock_operator.records import Cluster, Key

DAY = 86_400.0
NOW = dt.datetime.now(dt.UTC).timestamp()
MAIN = Cluster(
    key=Key("data", "main"),
    uid="u",
    generation=1,
    deleting=False,
    spec=ShuffleClusterSpec(store=Store(url="s3://bucket/prefix")),
    status={},
)


def test_a_successor_signs_when_everybody_has_it() -> None:
    old = trust.Authority("old", "", NOW)
    late = NOW + trust.AUTHORITY_SECONDS - trust.REPLACE_SECONDS
    assert trust.needs_authority([], NOW)
    assert not trust.needs_authority([old], late - 1)
    assert trust.needs_authority([old], late)
    both = [old, trust.Authority("new", "", late)]
    assert not trust.needs_authority(both, late)
    assert [each.cert for each in trust.trusted(both, late)] == ["new", "old"]
    assert trust.signer(both, late).cert == "old"
    assert trust.signer(both, late + trust.SPREAD_SECONDS).cert == "new"
    assert trust.signer([old], NOW).cert == "old", "the first one has nobody to wait for"
    end = NOW + trust.AUTHORITY_SECONDS
    assert [each.cert for each in trust.trusted(both, end)] == ["new"]


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("main-worker-0.main-worker.data.svc", True),
        ("main-worker-17.main-worker.data.svc.cluster.local", True),
        ("main.data.svc", True),
        ("localhost", True),
        ("main-worker-0.main-worker.other.svc", False),
        ("other.data.svc", False),
    ],
)
def test_a_client_takes_it_for_the_workers_names_only(
    tmp_path: Path, name: str, *, good: bool
) -> None:
    authority = make_authority("crossdock data/main", NOW)
    cert, key = make_certificate(authority, trust.server_names(MAIN), NOW)
    (tmp_path / "tls.crt").write_text(cert)
    (tmp_path / "tls.key").write_text(key)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client = ssl.create_default_context(cadata=authority.cert)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if good:
            client.wrap_socket(ours, server_hostname=name).close()
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                client.wrap_socket(ours, server_hostname=name)
    finally:
        ours.close()
        thread.join()


def test_a_certificate_is_replaced_while_it_is_good() -> None:
    authority = make_authority("crossdock data/main", NOW)
    cert, _ = make_certificate(authority, trust.server_names(MAIN), NOW)
    found = x509.load_pem_x509_certificate(cert.encode())
    end = found.not_valid_after_utc.timestamp()
    assert end - trust.renew_at(NOW) == pytest.approx(30 * DAY, abs=1)
