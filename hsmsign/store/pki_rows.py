"""The rows of the certificate authority, as frozen values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class AuthorityState(enum.Enum):
    """What a version of an authority can do."""

    PENDING = "PENDING"
    """Its certificate is not there yet."""
    ACTIVE = "ACTIVE"
    RETIRED = "RETIRED"
    """It issues nothing more; its CRLs and OCSP go on."""


class CertificateState(enum.Enum):
    """How far the issuing of a certificate came."""

    PENDING = "PENDING"
    """Recorded; what is to be signed is `content`."""
    ISSUED = "ISSUED"
    """Signed; the certificate is `content`."""


@dataclass(frozen=True, slots=True)
class AuthorityRow:
    """An authority."""

    id: str
    primary_version: int | None
    """The version that issues."""
    created: int
    updated: int


@dataclass(frozen=True, slots=True)
class AuthorityVersionRow:
    """One key of an authority, with its certificate."""

    authority: str
    number: int
    state: AuthorityState
    key_version: str
    """keys/ID/versions/N"""
    scheme: str
    """The name of a Scheme: with what it signs."""
    subject: bytes
    """Name, DER."""
    public_key: bytes
    """SubjectPublicKeyInfo, DER."""
    wanted: dict[str, Any]
    """What was asked for when it was made: the next version is asked for the same."""
    created: int
    """Microseconds since 1970."""
    request: bytes | None = None
    """While it has no certificate: the request for an outside CA (PKCS #10), or the TBSCertificate that is to be signed
    by itself; DER."""
    certificate: bytes | None = None
    """DER."""
    chain: str = ""
    """PEM: those above it, the nearest first."""
    crosses: str = ""
    """PEM: certificates that others made for the same key."""
    shards: int = 1
    crl_number: int = 0
    """The last that was given to a CRL, of whatever kind and shard."""
    crl_claimed: int = 0
    """Until when somebody makes CRLs of it; seconds since 1970."""
    responder_key: str = ""
    """keys/ID/versions/N: who signs OCSP answers."""
    responder: bytes | None = None
    """Its certificate, DER."""
    latest: int = 0
    """The latest time that something was signed to be from; seconds since 1970."""


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A certificate that was issued, or is being."""

    serial: str
    """Hexadecimal."""
    authority: str
    version: int
    shard: int
    state: CertificateState
    profile: str
    requester: str
    identity: str
    """What vouched for it, `token:ISSUER:SUBJECT`, or nothing."""
    subject: str
    names: tuple[str, ...]
    not_before: int
    not_after: int
    public_key: str
    """SHA-256 of the SubjectPublicKeyInfo, hexadecimal."""
    fingerprint: str
    """Of everything that was asked for, and of who asked."""
    content: bytes = field(repr=False)
    """TBSCertificate while PENDING, then the certificate; DER."""
    created: int
    """Microseconds since 1970."""
    request_id: str | None = None
    revoked: int | None = None
    """Seconds since 1970."""
    reason: str | None = None
    """The name of a ReasonFlags."""
    invalidity: int | None = None
    revoked_by: str | None = None
    changed: int | None = None
    """When it was revoked, or the reason became another; seconds since 1970."""


@dataclass(frozen=True, slots=True)
class SpentToken:
    """An identity token that was used."""

    fingerprint: str
    serial: str
    """Of the certificate that was made of it."""
    expires: int
    """Seconds since 1970: from then on nobody takes it anyway."""


@dataclass(frozen=True, slots=True)
class CrlRow:
    """The newest CRL of its kind."""

    authority: str
    version: int
    shard: int
    delta: bool
    number: int
    this_update: int
    next_update: int
    size: int
    sha256: str
