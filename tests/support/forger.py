"""A hostile daemon without a TPM: it makes attestations with keys in memory. No real part can be made to lie so."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsign.model.attestation import FORMAT, Attestation, canonical, encode, qualifying_data

FIXED = 1 << 1 | 1 << 4 | 1 << 5
WITH_AUTH, RESTRICTED, DECRYPT, SIGN = 1 << 6, 1 << 16, 1 << 17, 1 << 18

Private, Public = ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey


def sized(data: bytes) -> bytes:
    """TPM2B."""
    return len(data).to_bytes(2, "big") + data


def public_area(
    key: ec.EllipticCurvePrivateKey, attributes: int, policy: bytes = b"", *, cipher: bool = False
) -> bytes:
    """TPMT_PUBLIC of a P-256 key."""
    numbers = key.public_key().public_numbers()
    point = sized(numbers.x.to_bytes(32, "big")) + sized(numbers.y.to_bytes(32, "big"))
    symmetric = b"\x00\x06\x00\x80\x00\x43" if cipher else b"\x00\x10"
    head = b"\x00\x23\x00\x0b" + attributes.to_bytes(4, "big") + sized(policy)
    return head + symmetric + b"\x00\x10" + b"\x00\x03" + b"\x00\x10" + point


def name_of(public: bytes) -> bytes:
    """Its Name."""
    return b"\x00\x0b" + hashlib.sha256(public).digest()


class Forger:
    """A CA of TPM makers that a verifier trusts, an endorsement key with a certificate of it, and lies.

    Every lie is one attribute: change it, then `forge()`.
    """

    def __init__(self) -> None:
        self.ca_key, self.ek, self.ak, self.key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
        self.ca_name = x509.Name.from_rfc4514_string("CN=TPM maker")
        self.root = self.certificate(self.ca_key.public_key(), ca=True)
        self.certified = self.certificate(self.ek.public_key(), ca=False)
        self.ak_attributes = FIXED | WITH_AUTH | RESTRICTED | SIGN
        self.key_attributes = FIXED | WITH_AUTH | SIGN
        self.hierarchy = 0x4000000B
        self.magic = b"\xff\x54\x43\x47"
        self.kind = b"\x80\x17"
        self.certified_name: bytes | None = None
        self.statement: dict[str, Any] = {}
        self.key_policy = b""

    def certificate(self, public: Public, *, ca: bool, usage: str = "2.23.133.8.1") -> x509.Certificate:
        """By the CA, of itself or of an endorsement key."""
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().serial_number(x509.random_serial_number()).public_key(public)
        builder = builder.issuer_name(self.ca_name).subject_name(self.ca_name if ca else x509.Name([]))
        builder = builder.not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if not ca:
            used = x509.ExtendedKeyUsage([x509.ObjectIdentifier(usage)])
            alternative = x509.SubjectAlternativeName([x509.DirectoryName(self.ca_name)])
            builder = builder.add_extension(used, critical=False).add_extension(alternative, critical=True)
        return builder.sign(self.ca_key, hashes.SHA256())

    def forge(self) -> bytes:
        """The document."""
        ak_public = public_area(self.ak, self.ak_attributes)
        ek_public = public_area(self.ek, FIXED | RESTRICTED | DECRYPT, cipher=True)
        key_public = public_area(self.key, self.key_attributes, self.key_policy)
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        said = {
            "format": FORMAT,
            "name": "keys/web/versions/1",
            "algorithm": "ecdsa-p256",
            "public_key": _text(spki),
            "nonce": "00" * 16,
            "time": "2026-11-23T00:00:00Z",
            "device": {"manufacturer": "forger"},
            "facts": {"pcrs": ""},
            "evidence": "tpm2-certify",
            "ak_public": _text(ak_public),
            "ek_public": _text(ek_public),
            "ek_certificate": _text(self.certified.public_bytes(Encoding.DER)),
            "ek_chain": [],
            "activated": "",
            **self.statement,
        }
        statement = canonical(said)
        signer = b"\x00\x0b" + hashlib.sha256(self.hierarchy.to_bytes(4, "big") + name_of(ak_public)).digest()
        attest = self.magic + self.kind + sized(signer) + sized(qualifying_data(statement)) + bytes(17) + bytes(8)
        attest += sized(self.certified_name or name_of(key_public)) + sized(bytes(34))
        r, s = decode_dss_signature(self.ak.sign(attest, ec.ECDSA(hashes.SHA256())))
        signature = b"\x00\x18\x00\x0b" + sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))
        return encode(Attestation(statement, attest, signature, key_public))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
