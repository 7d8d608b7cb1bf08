"""Who vouches: plain values that cross to the worker as JSON (`model.hostwire`)."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures a token can have (RFC 7518, section 3.1; RFC 8037). `none` and the symmetric ones are not to be had."""
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
DEFAULT_ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "ES256")
KEY_FIELD = "{key}"
SPIFFE = "spiffe://"


class Kind(enum.StrEnum):
    """Whose tokens they are; some things are known of each (`presets`)."""

    GCE = "gce"
    """Instances of Google Compute Engine."""
    KUBERNETES = "kubernetes"
    """Service accounts of a Kubernetes cluster."""
    GITHUB = "github"
    """Workflows of GitHub Actions."""
    SPIFFE = "spiffe"
    """Workloads of a SPIFFE trust domain (JWT-SVID)."""
    OIDC = "oidc"
    """Any other issuer; nothing is known of it."""


@dataclass(frozen=True, slots=True)
class NameTemplates:
    """The names that a token vouches for: text with `{field}` in it (`templates`)."""

    dns: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    common_name: str = ""
    """Nothing: none."""


@dataclass(frozen=True, slots=True)
class IssuerRules:
    """One issuer of tokens, and what its tokens must say. Raises ValueError for what is never allowed."""

    name: str
    """What profiles, principals and errors call it."""
    kind: Kind
    issuer: str
    """The `iss` of its tokens, exactly. `spiffe://TRUST-DOMAIN` stands for the JWT-SVIDs that have none."""
    audience: str
    """An `aud` of its tokens, exactly. `{key}` in it stands for the hash of the key that the certificate is for."""
    jwks_url: str = ""
    """Where its keys are (RFC 7517, section 5): this, or `jwks_file`."""
    jwks_file: Path | None = None
    jwks_ca: Path | None = None
    """Certificates (PEM) that the host of `jwks_url` is known by; None: the system's."""
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    required: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Paths of claims, and patterns of which each must match one. `*` in them is any text."""
    claims: tuple[tuple[str, str], ...] = ()
    """Fields of templates, and the paths of their claims."""
    names: NameTemplates = field(default_factory=NameTemplates)
    max_age_seconds: int = 3600
    """Since `iat`; 0: as long as the token says."""
    leeway_seconds: int = 60
    """By so much may clocks differ."""
    once: bool = True
    """Whether a token vouches once only."""

    def __post_init__(self) -> None:
        if not self.algorithms or not set(self.algorithms) <= set(ALGORITHMS):
            raise ValueError(f"tokens are signed with one of {', '.join(ALGORITHMS)}")
        if bool(self.jwks_url) == (self.jwks_file is not None):
            raise ValueError("the keys of an issuer come from jwks_url or from jwks_file")
        if self.jwks_url:
            check_url(self.jwks_url)

    @property
    def bound(self) -> bool:
        """Whether its tokens are for one key."""
        return KEY_FIELD in self.audience


def check_url(url: str) -> None:
    """Raise ValueError unless keys may be fetched from there: by https, or by http from this very machine."""
    parts = urlsplit(url)
    if not url.isascii() or not url.isprintable() or " " in url or not parts.hostname:
        raise ValueError("it is no URL: say https://HOST/PATH")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("a URL of keys has no user, no password and no fragment")
    if parts.scheme == "https" or (parts.scheme == "http" and _loopback(parts.hostname)):
        parts.port  # noqa: B018 - it raises ValueError where it is no number of a port
        return
    raise ValueError("keys are fetched by https; by http from 127.0.0.1, [::1] or localhost only")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
