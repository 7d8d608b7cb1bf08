"""A first set of certificates for mutual TLS: a CA of the daemon's own, a server, one client.

Only for the way between callers and daemon; these are the only private keys that hsmsign ever holds in files.
"""

from __future__ import annotations

import datetime as dt
import getpass
import ipaddress
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CA_DAYS, _LEAF_DAYS = 3650, 825


def make(folder: Path, host: str) -> None:
    """Write ca.pem and ca-key.pem, server.pem and server-key.pem, client.pem and client-key.pem."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("hsmsign bootstrap CA")
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _write(folder, "ca", ca, ca_key)
    for name, san, purpose in (
        ("server", _server_names(host), ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", [x509.UniformResourceIdentifier(client_id())], ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(f"hsmsign {name}"), ca_name, key.public_key(), _LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(san), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        _write(folder, name, certificate, key)


def client_id() -> str:
    """The SPIFFE ID of the client certificate: whoever sets the daemon up."""
    return f"spiffe://hsmsign/client/{_user()}"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _user() -> str:
    try:
        return "".join(c for c in getpass.getuser().lower() if c.isalnum() or c in "-_.") or "local"
    except OSError:  # no such user in the user database: a container
        return "local"


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(**wanted: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})


def _server_names(host: str) -> list[x509.GeneralName]:
    """What a caller may call this daemon: where it listens, and by what name this machine goes."""
    found = {"localhost", "127.0.0.1", "::1", socket.gethostname().lower(), host.lower()}
    names: list[x509.GeneralName] = []
    for name in sorted(found - {"", "0.0.0.0", "::"}):  # noqa: S104 - left out, not listened on
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            names.append(x509.DNSName(name))
    return names


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for path, content in (
        (folder / f"{name}.pem", certificate.public_bytes(Encoding.PEM)),
        (folder / f"{name}-key.pem", plain),
    ):
        path.touch(mode=0o600)
        path.write_bytes(content)
