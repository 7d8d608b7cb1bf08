"""What says where a key lives, as it crosses the walls: plain values, and the bytes that are signed.

A statement is JSON in one form only (`canonical`); its hash is the qualifying data of TPM2_Certify, so that the TPM's
signature covers all of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hsmsign.model.errors import AttestationError

FORMAT = "hsmsign-attestation-1"
CHALLENGE_FORMAT = "hsmsign-challenge-1"
DOCUMENT_MAX = 64 << 10
_DOMAIN = b"hsmsign attestation\0"


@dataclass(frozen=True, slots=True)
class AttesterIdentity:
    """Who attests: an attestation key, and the TPM's endorsement key beside it."""

    ak_public: bytes
    """TPMT_PUBLIC of a restricted signing key."""
    ek_public: bytes
    """TPMT_PUBLIC."""
    ek_certificate: bytes
    """DER; empty where the TPM has none."""
    ek_chain: tuple[bytes, ...] = ()
    """DER: the certificates of its issuers that the TPM has."""


@dataclass(frozen=True, slots=True)
class Certified:
    """What TPM2_Certify gave (TPM 2.0 Part 3, section 18.2)."""

    key_public: bytes
    """TPMT_PUBLIC of the key that was certified."""
    attest: bytes
    """TPMS_ATTEST."""
    signature: bytes
    """TPMT_SIGNATURE by the attestation key."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What only the TPM with an endorsement key and a certain attestation key can open."""

    credential: bytes
    """TPM2B_ID_OBJECT."""
    encrypted_secret: bytes
    """TPM2B_ENCRYPTED_SECRET."""

    def encode(self) -> bytes:
        """As a document, of which nobody but that TPM learns anything."""
        parts = {"credential": text(self.credential), "encrypted_secret": text(self.encrypted_secret)}
        return canonical({"format": CHALLENGE_FORMAT, **parts}) + b"\n"

    @classmethod
    def decode(cls, document: bytes) -> Challenge:
        """Read a document. Raises AttestationError."""
        parts = parse(document)
        if parts.get("format") != CHALLENGE_FORMAT:
            raise AttestationError(f"the document is no challenge: its format is not {CHALLENGE_FORMAT}")
        return cls(untext(parts.get("credential")), untext(parts.get("encrypted_secret")))


@dataclass(frozen=True, slots=True)
class Attestation:
    """A statement about a key, and what stands behind it: the TPM's certification, or only the key's own signature."""

    statement: bytes
    attest: bytes = b""
    attest_signature: bytes = b""
    key_public: bytes = b""
    """TPMT_PUBLIC of the key: the TPM's statement has its Name, which is a hash of this."""
    possession: bytes = b""
    """A signature over `signed_bytes(statement)` by the key itself, where no device proves anything."""


def canonical(value: Mapping[str, object]) -> bytes:
    """JSON (RFC 8259) with sorted names and without spaces: the same value always has the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def signed_bytes(statement: bytes) -> bytes:
    """What a key signs to show that it is there."""
    return _DOMAIN + statement


def qualifying_data(statement: bytes) -> bytes:
    """What a TPM takes into its signature: SHA-256 of the statement behind our prefix."""
    return hashlib.sha256(signed_bytes(statement)).digest()


def text(value: bytes) -> str:
    """Base64, as bytes stand in a document."""
    return base64.b64encode(value).decode("ascii")


def untext(value: object) -> bytes:
    """From base64. Raises AttestationError unless it is the one way to write these bytes."""
    if not isinstance(value, str):
        raise AttestationError("its bytes are not written as text")
    try:
        data = base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise AttestationError("its bytes are not written in base64") from error
    if text(data) != value:
        raise AttestationError("its bytes are not written in the one way that base64 has for them")
    return data


def encode(said: Attestation) -> bytes:
    """The document that a relying party is given: one line of JSON, in one form only."""
    if said.possession:
        evidence: dict[str, object] = {"possession": text(said.possession)}
    else:
        parts = {"attest": said.attest, "signature": said.attest_signature, "public": said.key_public}
        evidence = {"tpm": {name: text(part) for name, part in parts.items()}}
    return canonical({"statement": json.loads(said.statement), **evidence}) + b"\n"


def decode(document: bytes) -> Attestation:
    """Read a document. Raises AttestationError for anything that `encode` would not have written."""
    outer = parse(document)
    statement = outer.get("statement")
    if not isinstance(statement, dict):
        raise AttestationError("the document has no statement")
    said = canonical(statement)
    if outer.keys() == {"statement", "possession"}:
        if not outer["possession"]:
            raise AttestationError("the document has no evidence")
        return Attestation(said, possession=untext(outer["possession"]))
    tpm = outer.get("tpm")
    if outer.keys() != {"statement", "tpm"} or not isinstance(tpm, dict):
        raise AttestationError("the document has no evidence, or more than one")
    if tpm.keys() != {"attest", "signature", "public"}:
        raise AttestationError("the document has not what a TPM says")
    return Attestation(said, untext(tpm["attest"]), untext(tpm["signature"]), untext(tpm["public"]))


def parse(document: bytes) -> dict[str, Any]:
    """One line of canonical JSON. Raises AttestationError."""
    if len(document) > DOCUMENT_MAX:
        raise AttestationError(f"the document has more than {DOCUMENT_MAX} bytes")
    try:
        value = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise AttestationError("the document is not JSON") from error
    if not isinstance(value, dict) or canonical(value) + b"\n" != document:
        raise AttestationError("the document is not written in its one form; something changed it")
    return value
