"""What the configuration says of the certificate authority: plain values, which cross to the worker as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from hsmsign.pki.identity.issuers import IssuerRules
from hsmsign.pki.profiles import Profile


@dataclass(frozen=True, slots=True)
class CrlTimes:
    """When CRLs are made. All in seconds."""

    every: float = 86_400.0
    """A new full one at least so often."""
    lifetime: float = 7 * 86_400.0
    """From thisUpdate to nextUpdate: so long may the daemon be away."""
    delta_every: float = 0.0
    """A new delta so often; 0: none is made."""
    settle: float = 5.0
    """After a revocation, so long at least between two CRLs."""


@dataclass(frozen=True, slots=True)
class OcspTimes:
    """How long OCSP answers hold, in seconds."""

    lifetime: float = 4 * 3600.0
    refresh: float = 2 * 3600.0
    """An answer that is kept is made anew when it is so old."""
    responder_id: str = "key"
    """How answers say who signed them: "key" or "name" (RFC 6960, section 4.2.1)."""
    responder_lifetime: float = 30 * 86_400.0
    """Of the certificate of who signs them; a new one is made after half of it."""


@dataclass(frozen=True, slots=True)
class PkiConfig:
    """[ca] of hsmsign.toml, with the profiles and identity issuers that it names."""

    url: str = ""
    """Where relying parties find CRLs, OCSP and the CAs' certificates; nothing: certificates say nothing of it."""
    profiles: tuple[Profile, ...] = ()
    identity: tuple[IssuerRules, ...] = ()
    crl: CrlTimes = field(default_factory=CrlTimes)
    ocsp: OcspTimes = field(default_factory=OcspTimes)
