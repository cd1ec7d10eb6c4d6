"""Certificates for tests of TLS."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """A certificate authority and a certificate of 127.0.0.1 that it signed."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def make(cls, directory: Path, name: str, *, addresses: bool = True) -> "Authority":
        """Make one, and a certificate for `localhost`, and with `addresses` for 127.0.0.1 too."""
        now = dt.datetime.now(dt.UTC)

        def builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
                .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - dt.timedelta(hours=1))
                .not_valid_after(now + dt.timedelta(days=1))
            )

        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca = (
            builder(name, ca_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False
            )
            .sign(ca_key, hashes.SHA256())
        )
        names: list[x509.GeneralName] = [x509.DNSName("localhost")]
        if addresses:
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        cert = (
            builder("worker", key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        made = cls(*(directory / f"{name}-{part}.pem" for part in ("ca", "cert", "key")))
        made.ca.write_bytes(ca.public_bytes(pem))
        made.cert.write_bytes(cert.public_bytes(pem))
        made.key.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return made

    def options(self) -> dict[str, object]:
        return {"tls_cert": self.cert, "tls_key": self.key, "tls_ca": self.ca}
