"""What the daemon tells about certificate authorities: frozen values."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass, field

from cryptography import x509


class AuthorityState(enum.Enum):
    """What a version of an authority can do. The numbers are those of the wire."""

    PENDING = 1
    """Its certificate is not there yet."""
    ACTIVE = 2
    RETIRED = 3
    """It issues nothing more; its CRLs and OCSP go on."""


class CertificateState(enum.Enum):
    """How far a certificate came. The numbers are those of the wire."""

    PENDING = 1
    """Recorded and not signed: it waits for approvals, or its signing was interrupted."""
    ISSUED = 2
    REVOKED = 3


@dataclass(frozen=True, slots=True)
class CrlInfo:
    """The newest CRL of a kind."""

    shard: int
    delta: bool
    number: int
    this_update: dt.datetime | None
    next_update: dt.datetime | None
    size: int
    """Bytes, DER."""


@dataclass(frozen=True, slots=True)
class AuthorityVersionInfo:
    """One key of an authority, with its certificate."""

    name: str
    """`cas/ID/versions/N`"""
    state: AuthorityState
    key_version: str
    subject: str
    """RFC 4514."""
    certificate: str = field(repr=False)
    """PEM; nothing while it is PENDING."""
    chain: str = field(repr=False)
    """PEM: those above it, the nearest first."""
    cross_certificates: str = field(repr=False)
    """PEM: certificates that others made for its key."""
    csr: str = field(repr=False)
    """PEM: the request for an outside CA, while it is PENDING."""
    not_before: dt.datetime | None
    not_after: dt.datetime | None
    crls: tuple[CrlInfo, ...]
    shards: int


@dataclass(frozen=True, slots=True)
class AuthorityInfo:
    """A certificate authority."""

    name: str
    """`cas/ID`"""
    versions: tuple[AuthorityVersionInfo, ...]
    """The oldest first."""
    primary_version: str
    """The one that issues; empty where none can."""
    created: dt.datetime | None
    updated: dt.datetime | None

    @property
    def primary(self) -> AuthorityVersionInfo | None:
        """The version that issues."""
        return next((one for one in self.versions if one.name == self.primary_version), None)


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """A certificate that was issued."""

    name: str
    """`certificates/SERIAL`"""
    authority_version: str
    state: CertificateState
    der: bytes = field(repr=False)
    """Nothing while it is PENDING, and of a dry run."""
    chain: str = field(repr=False)
    """PEM: itself and those above it, without the root, as servers send it."""
    profile: str
    requester: str
    identity: str
    """What vouched for it, `token:ISSUER:SUBJECT`, or nothing."""
    subject: str
    names: tuple[str, ...]
    """`dns:…`, `ip:…`, `email:…`, `uri:…`"""
    not_before: dt.datetime | None
    not_after: dt.datetime | None
    issued: dt.datetime | None
    revoked: dt.datetime | None
    reason: str
    """Why it was revoked, as RFC 5280 has it: `keyCompromise`."""
    invalidity: dt.datetime | None

    @property
    def serial(self) -> str:
        """The serial number in hexadecimal."""
        return self.name.removeprefix("certificates/")

    @property
    def certificate(self) -> x509.Certificate:
        """As `cryptography` has it. Raises ValueError while there is none."""
        return x509.load_der_x509_certificate(self.der)


@dataclass(frozen=True, slots=True)
class ProfileInfo:
    """A profile that the caller may use."""

    name: str
    authorities: tuple[str, ...]
    """`cas/ID` of those that issue by it; none: all."""
    identity: tuple[str, ...]
    """Issuers of identity tokens of which one must vouch; none: none is wanted."""
    default_validity: dt.timedelta
    max_validity: dt.timedelta
    summary: str


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The certificates to trust."""

    sequence: int
    """Grows with every change."""
    roots: str = field(repr=False)
    """PEM: self-signed certificates."""
    intermediates: str = field(repr=False)
    """PEM: all others, cross-signed ones too."""
