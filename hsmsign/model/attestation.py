"""What says where a key lives, as it crosses the walls: plain values, and the bytes that are signed.

A statement is JSON in one form only (`canonical`); its hash is the qualifying data of TPM2_Certify, so that the TPM's
signature covers all of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

FORMAT = "hsmsign-attestation-1"
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
