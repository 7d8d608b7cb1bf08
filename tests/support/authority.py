"""A CA for the certificates of callers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A CA for an afternoon."""

    def __init__(self, name: str = "ca") -> None:
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._make(name, self.key, [], ca=True)

    def adopt(self, certificate: bytes, key: bytes) -> None:
        """Be a CA that is there already, PEM."""
        self.certificate = x509.load_pem_x509_certificates(certificate)[0]
        self.issuer = self.certificate.subject
        private = serialization.load_pem_private_key(key, None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        self.key = private

    def issue(
        self,
        *names: x509.GeneralName,
        subject: str = "leaf",
        lasts: dt.timedelta = dt.timedelta(hours=1),
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> tuple[bytes, bytes]:
        """A key and its certificate, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._make(subject, key, list(names), ca=False, lasts=lasts, extensions=extensions)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem, certificate.public_bytes(serialization.Encoding.PEM)

    def certify(self, key: Any, *names: x509.GeneralName, subject: str = "leaf") -> bytes:
        """A certificate, PEM, for a key that is elsewhere."""
        return self._make(subject, key, list(names), ca=False).public_bytes(serialization.Encoding.PEM)

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def crl(self, *revoked: bytes, lasts: dt.timedelta = dt.timedelta(hours=1)) -> bytes:
        """A CRL with these certificates (PEM) on it."""
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - dt.timedelta(hours=2))
            .next_update(now + lasts)
        )
        for pem in revoked:
            serial = x509.load_pem_x509_certificate(pem).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _make(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName],
        *,
        ca: bool,
        lasts: dt.timedelta = dt.timedelta(hours=1),
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []))
            .issuer_name(self.issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())
