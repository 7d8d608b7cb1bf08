"""Keys in memory that sign by a scheme, certificates of a CA around them, and the openssl command to judge."""

from __future__ import annotations

import datetime as dt
import functools
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hsmsign.model.algorithms import Family, Scheme
from hsmsign.pki.capturing import hash_of, padding_of

_CURVES: dict[Scheme, ec.EllipticCurve] = {
    Scheme.ECDSA_P256_SHA256: ec.SECP256R1(),
    Scheme.ECDSA_P384_SHA384: ec.SECP384R1(),
    Scheme.ECDSA_P521_SHA512: ec.SECP521R1(),
}


@functools.cache
def private_key(scheme: Scheme, name: str = "") -> Any:
    """A key for a scheme; the same one each time for the same name."""
    if scheme.family is Family.EC:
        return ec.generate_private_key(_CURVES[scheme])
    if scheme.family is Family.RSA:
        return _rsa(name)
    return ed25519.Ed25519PrivateKey.generate()


@functools.cache
def _rsa(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def signature(key: Any, scheme: Scheme, message: bytes) -> bytes:
    """The message, signed."""
    used = hash_of(scheme)
    if used is None:
        return bytes(key.sign(message))
    if scheme.family is Family.EC:
        return bytes(key.sign(message, ec.ECDSA(used)))
    return bytes(key.sign(message, padding_of(scheme), used))


@dataclass(frozen=True)
class TestCa:
    """A CA of one level, for an afternoon."""

    __test__ = False

    key: Any
    scheme: Scheme
    certificate: x509.Certificate

    @classmethod
    def make(cls, scheme: Scheme = Scheme.ECDSA_P256_SHA256, name: str = "CN=Root,O=Example") -> TestCa:
        """One that is new."""
        subject = x509.Name.from_rfc4514_string(name)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        key = private_key(scheme, name)
        certificate = _certificate(
            (subject, key, scheme), subject, key, [(x509.BasicConstraints(True, None), True), (usage, True)]
        )
        return cls(key, scheme, certificate)

    @property
    def name(self) -> x509.Name:
        """Its subject."""
        return self.certificate.subject

    def issue(self, key: Any, *extensions: x509.ExtensionType, subject: str = "CN=leaf") -> x509.Certificate:
        """A certificate that is valid now."""
        name = x509.Name.from_rfc4514_string(subject)
        listed = [(one, False) for one in extensions]
        return _certificate((self.name, self.key, self.scheme), name, key, listed)


def _certificate(
    issuer: tuple[x509.Name, Any, Scheme],
    subject: x509.Name,
    key: Any,
    extensions: list[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    name, signer, scheme = issuer
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().issuer_name(name).subject_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=30))
    identifiers: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False),
    ]
    for value, critical in identifiers + extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(signer, hash_of(scheme), rsa_padding=padding_of(scheme))


def write_pem(path: Path, *things: x509.Certificate | x509.CertificateRevocationList) -> Path:
    """Write them one behind the other, for the openssl command."""
    path.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in things))
    return path


def openssl(*arguments: str | Path) -> tuple[int, str]:
    """Run the command: its exit code and what it said."""
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
