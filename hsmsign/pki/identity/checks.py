"""What a token's claims must say, whoever signed it. Each function raises IdentityTokenError where they do not."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hsmsign.pki.identity import claims as paths
from hsmsign.pki.identity import grammar
from hsmsign.pki.identity.issuers import KEY_FIELD, SPIFFE, IssuerRules, Kind
from hsmsign.pki.identity.refusals import refusal, shown

Claims = Mapping[str, Any]
Required = Sequence[tuple[str, Callable[[str], bool]]]
"""Paths of claims, and whether a text is one that the claim may have."""
_TEXT_MAX = 1024
_SUBJECT_MAX = 512
_TIME_MAX = 1 << 40
"""Unix seconds: far enough, and nothing overflows."""


def issuer(claims: Claims) -> str:
    """Who the claims say that issued them; nothing: they do not say. A JWT-SVID says it in `sub` (SPIFFE-ID)."""
    found = claims.get("iss")
    if found is None and str(claims.get("sub", "")).startswith(SPIFFE):
        return "/".join(str(claims["sub"]).split("/", 3)[:3])
    return found if isinstance(found, str) else ""


def audience(rules: IssuerRules, spki: bytes) -> str:
    """The audience that a token for this key must have; `{key}` is base64url of SHA-256 over its SPKI."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(spki).digest()).decode("ascii").rstrip("=")
    return rules.audience.replace(KEY_FIELD, digest)


def is_for(claims: Claims, wanted: str) -> bool:
    """Whether the token is for this audience, perhaps among others (RFC 7519, section 4.1.3)."""
    found = claims.get("aud")
    return found == wanted or (isinstance(found, list) and wanted in found)


def times(rules: IssuerRules, claims: Claims, now: float) -> int:
    """Until when the token is good, in Unix seconds, what clocks may differ by included."""
    leeway = rules.leeway_seconds
    expires = _time(rules, claims, "exp")
    if expires is None:
        raise refusal("expired", "the token does not say when it expires (exp)", issuer=rules.name)
    if now >= expires + leeway:
        raise refusal("expired", "the token has expired (exp)", issuer=rules.name, hint="get a new one")
    clocks = "the clock of this machine, or the issuer's, is wrong"
    if (begins := _time(rules, claims, "nbf")) is not None and begins > now + leeway:
        raise refusal("not-before", "the token is not good yet (nbf)", issuer=rules.name, hint=clocks)
    issued = _time(rules, claims, "iat")
    if issued is not None and issued > now + leeway:
        raise refusal("issued-at", "the token was issued in the future (iat)", issuer=rules.name, hint=clocks)
    if rules.max_age_seconds:
        if issued is None:
            raise refusal("age", "the token does not say when it was issued (iat)", issuer=rules.name)
        expires = min(expires, issued + rules.max_age_seconds)
        if now >= expires + leeway:
            words = f"the token was issued more than {rules.max_age_seconds} s ago (iat)"
            raise refusal("age", words, issuer=rules.name, hint="get a new one")
    return math.ceil(expires + leeway)


def subject(rules: IssuerRules, claims: Claims) -> str:
    """Whom the token is about: its `sub`, which becomes part of a principal."""
    found = claims.get("sub")
    if not isinstance(found, str) or not 0 < len(found) <= _SUBJECT_MAX or not found.isprintable():
        words = f"the token's sub is {shown(found)}, not printable text of 1 to {_SUBJECT_MAX} characters"
        raise refusal("subject", words, issuer=rules.name)
    if rules.kind is Kind.SPIFFE:
        try:
            grammar.spiffe_id(found)
        except ValueError as error:
            words = f"the token's sub is {shown(found)}: wanted is {error}"
            raise refusal("subject", words, issuer=rules.name) from None
        if rules.issuer.startswith(SPIFFE) and not found.startswith(rules.issuer + "/"):
            # the keys of one trust domain say nothing of another one's workloads
            words = f"the token's sub is {shown(found)}, in another trust domain than {rules.issuer}"
            raise refusal("subject", words, issuer=rules.name)
    return found


def required(rules: IssuerRules, wanted: Required, claims: Claims) -> None:
    """Each claim that is required is there, and is one of those that are allowed; of a list, one element is."""
    for path, fits in wanted:
        found = paths.find(claims, path)
        if not any(len(one) <= _TEXT_MAX and fits(one) for one in paths.texts(found)):
            words = f"the token's claim {path} is {shown(found)}" if found is not None else f"the token has no {path}"
            raise refusal(
                "claims",
                f"{words}, which is not what identity.{rules.name}.required wants",
                issuer=rules.name,
                hint="this platform vouches, but not for you; see `required` of the issuer",
            )


def token_id(rules: IssuerRules, claims: Claims) -> str:
    """The token's `jti`; nothing where it has none."""
    found = claims.get("jti")
    if found is not None and not isinstance(found, str):
        raise refusal("claims", f"the token's jti is {shown(found)}, which is no text", issuer=rules.name)
    return found or ""


def _time(rules: IssuerRules, claims: Claims, name: str) -> int | float | None:
    """A NumericDate (RFC 7519, section 2); None where there is none."""
    found = claims.get(name)
    if found is None:
        return None
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found <= _TIME_MAX:
        words = f"the token's {name} is {shown(found)}, which is no time in Unix seconds"
        raise refusal("claims", words, issuer=rules.name)
    return found
