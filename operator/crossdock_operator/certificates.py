"""Makes authorities and certificates. Imported only where one is made: its library takes 8 MB."""

import datetime as dt
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from crossdock_operator.plan.trust import AUTHORITY_SECONDS, CERTIFICATE_SECONDS, Authority

_BACK = dt.timedelta(minutes=10)
"""Clocks of machines differ."""


def make_authority(name: str, now: float) -> Authority:
    """Return a new authority.

    Args:
        name: for people.
        now: seconds since 1970.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    usage = _usage(signs_certificates=True)
    begun = _builder(name, name, key.public_key(), now, AUTHORITY_SECONDS)
    cert = (
        begun.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(_pem(cert), _key_pem(key), now)


def make_certificate(
    authority: Authority, server_names: Sequence[str], now: float
) -> tuple[str, str]:
    """Return a certificate that is good for these names and 127.0.0.1, and its key, in PEM."""
    signer = x509.load_pem_x509_certificate(authority.cert.encode())
    signing = serialization.load_pem_private_key(authority.key.encode(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey), "we made it"
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in server_names]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    issuer = signer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    begun = _builder("crossdock worker", str(issuer), key.public_key(), now, CERTIFICATE_SECONDS)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    of_signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    cert = (
        begun.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(of_signer, critical=False)
        .sign(signing, hashes.SHA256())
    )
    return _pem(cert), _key_pem(key)


def _builder(
    subject: str, issuer: str, key: ec.EllipticCurvePublicKey, now: float, seconds: float
) -> x509.CertificateBuilder:
    begin = dt.datetime.fromtimestamp(now, dt.UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])

    return (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _BACK)
        .not_valid_after(begin + dt.timedelta(seconds=seconds))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
