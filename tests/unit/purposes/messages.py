"""What keys with a purpose are asked to sign, in the tests: one of everything, and the keys."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from hsmsign.model.algorithms import Scheme
from hsmsign.model.errors import PurposeError
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.purposes import Signer, check

NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
ROOT = x509.Name.from_rfc4514_string("CN=Root,O=Example")
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
CA = Purpose(PurposeKind.CA, "CN=Root,O=Example")
ALL = [Purpose(kind) for kind in PurposeKind if kind not in (PurposeKind.ANY, PurposeKind.CA)] + [CA]


def spki(key: Any) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def signs(purpose: Purpose | PurposeKind, message: bytes, scheme: Scheme = Scheme.ECDSA_P256_SHA256) -> str:
    """Nothing where a key with this purpose signs the message; else why not."""
    given = purpose if isinstance(purpose, Purpose) else Purpose(purpose)
    try:
        check(Signer("keys/k/versions/1", given.check(), scheme, spki(KEY)), message)
    except PurposeError as error:
        return error.message
    return ""


def tbs(
    *extensions: x509.ExtensionType,
    issuer: x509.Name = ROOT,
    subject: str | x509.Name = "CN=leaf",
    key: Any = OTHER,
    days: int = 90,
    critical: tuple[type, ...] = (x509.BasicConstraints, x509.NameConstraints),
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(x509.Name.from_rfc4514_string(subject) if isinstance(subject, str) else subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=days))
    )
    for one in extensions:
        builder = builder.add_extension(one, critical=isinstance(one, critical))
    return builder.sign(KEY, hashes.SHA256()).tbs_certificate_bytes


def san(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


def crl(name: x509.Name = ROOT) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(NOW).next_update(NOW)
    return builder.sign(KEY, hashes.SHA256()).tbs_certlist_bytes


def csr(key: Any, name: x509.Name = ROOT) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key, hashes.SHA256()).tbs_certrequest_bytes


def answer(key: Any, encoding: ocsp.OCSPResponderEncoding, name: x509.Name = ROOT) -> bytes:
    builder = x509.CertificateBuilder().issuer_name(name).subject_name(name).public_key(key.public_key())
    responder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW).sign(key, hashes.SHA256())
    status = ocsp.OCSPCertStatus.GOOD
    made = ocsp.OCSPResponseBuilder().add_response(responder, responder, hashes.SHA1(), status, NOW, NOW, None, None)
    return made.responder_id(encoding, responder).sign(key, hashes.SHA256()).tbs_response_bytes


def verify_content(side: str, size: int = 32) -> bytes:
    """RFC 8446, section 4.4.3."""
    return b" " * 64 + f"TLS 1.3, {side} CertificateVerify".encode() + b"\0" + os.urandom(size)


def key_exchange(params: str = "03001d20" + "41" * 32) -> bytes:
    """RFC 8422, section 5.4, after both randoms."""
    return os.urandom(64) + bytes.fromhex(params)


def handshake(*kinds: int) -> bytes:
    return b"".join(bytes([kind]) + (40).to_bytes(3) + os.urandom(40) for kind in kinds)


def b64(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def token(payload: Any, header: Any = None) -> bytes:
    return f"{b64({'alg': 'ES256', 'typ': 'JWT'} if header is None else header)}.{b64(payload)}".encode()


DNS, URI, MAIL = x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name
IP = x509.IPAddress
PERMITTED = Purpose(
    PurposeKind.CA,
    CA.issuer,
    path_length=1,
    permitted_names=("dns:example.org", "ip:10.0.0.0/8", "email:example.org", "uri:.corp"),
)
JWT = Purpose(PurposeKind.JWT, jwt_issuers=("https://a", "https://b"), jwt_audiences=("x", "y"))
