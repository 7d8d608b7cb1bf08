"""Says whether a token is good, for whom, and what names it vouches for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from cryptography import x509

from hsmsign.model.errors import IdentityTokenError
from hsmsign.model.patterns import matcher
from hsmsign.pki.identity import checks, templates, tokens
from hsmsign.pki.identity.issuers import IssuerRules
from hsmsign.pki.identity.jwks import KeySource
from hsmsign.pki.identity.keysets import IssuerKey
from hsmsign.pki.identity.refusals import refusal, shown
from hsmsign.pki.identity.tokens import Token


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a good token says."""

    issuer: str
    """The name of its configuration."""
    subject: str
    fingerprint: str
    """SHA-256 in hexadecimal, the same for every way to write the same token."""
    expires: int
    """Unix seconds, what clocks may differ by included: from then on the token is refused, and nobody needs to know
    its fingerprint any more."""
    once: bool
    """Whether the token must not have been used before."""
    bound: bool
    """Whether the token is for this very key."""
    names: tuple[x509.GeneralName, ...]
    common_name: str
    """Nothing: it vouches for none."""

    @property
    def principal(self) -> str:
        """Who asks, as the policy and the audit log call it."""
        return f"token:{self.issuer}:{self.subject}"


@dataclass(frozen=True, slots=True)
class _Issuer:
    rules: IssuerRules
    source: KeySource
    required: checks.Required


class Identities:
    """All issuers that are configured. An issuer's keys are fetched when the first token needs them."""

    def __init__(
        self,
        issuers: Sequence[IssuerRules],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` (Unix seconds) is for what tokens say of time, `monotonic` (seconds) for how old keys are."""
        self._clock = clock
        self._issuers = tuple(
            _Issuer(
                rules,
                KeySource(rules, monotonic),
                tuple((path, matcher(patterns)) for path, patterns in rules.required),
            )
            for rules in issuers
        )

    def failures(self) -> dict[str, str]:
        """The issuers whose keys could not be had when that was last tried, and why."""
        return {one.rules.name: one.source.failure for one in self._issuers if one.source.failure}

    async def verify(self, token: str, spki: bytes, allowed: Collection[str] = ()) -> Vouched:
        """What a token vouches for, where a certificate for the key `spki` (SubjectPublicKeyInfo, DER) is asked for.

        `allowed` are the names of the issuers that may vouch; nothing: all may. Raises IdentityTokenError for a token
        that does not vouch, IdentityUnavailableError where that cannot be told now. Whether the token was used before
        is for the caller to see, by its fingerprint.
        """
        read = tokens.read(token)
        meant = self._meant(read, spki, allowed)
        for one in meant[:-1]:
            try:
                return await self._vouched(one, read)
            except IdentityTokenError:
                # a token for several of our audiences vouches by the first whose conditions it meets
                continue
        return await self._vouched(meant[-1], read)

    def _meant(self, token: Token, spki: bytes, allowed: Collection[str]) -> list[_Issuer]:
        """Whose the token says that it is, and for us; at least one."""
        name = checks.issuer(token.claims)
        known = [
            one for one in self._issuers if one.rules.issuer == name and (not allowed or one.rules.name in allowed)
        ]
        if not known:
            raise refusal(
                "issuer",
                f"the token's issuer {shown(token.claims.get('iss'))} is none that may vouch for this",
                hint="the profile says which identity issuers may; `iss` is compared to the letter",
            )
        meant = [one for one in known if checks.is_for(token.claims, checks.audience(one.rules, spki))]
        if not meant:
            rules = known[0].rules
            bound = ", which has the hash of the request's own key in it" if rules.bound else ""
            raise refusal(
                "audience",
                f"the token's aud is {shown(token.claims.get('aud'))}, not {checks.audience(rules, spki)}{bound}",
                issuer=rules.name,
                hint="ask the platform for a token with that audience",
            )
        return meant

    async def _vouched(self, issuer: _Issuer, token: Token) -> Vouched:
        rules, claims = issuer.rules, token.claims
        if token.algorithm not in rules.algorithms:
            words = f"the token is signed with {shown(token.algorithm)}, not with {' or '.join(rules.algorithms)}"
            raise refusal("algorithm", words, issuer=rules.name)
        await _check_signature(issuer, token)
        expires = checks.times(rules, claims, self._clock())
        subject = checks.subject(rules, claims)
        checks.required(rules, issuer.required, claims)
        names, common_name = templates.render(rules, claims)
        return Vouched(
            issuer=rules.name,
            subject=subject,
            fingerprint=_fingerprint(rules, token),
            expires=expires,
            once=rules.once,
            bound=rules.bound,
            names=names,
            common_name=common_name,
        )


async def _check_signature(issuer: _Issuer, token: Token) -> None:
    keys = await issuer.source.keys()
    problem = _problem(issuer.rules, token, keys)
    if problem is None:
        return
    # a key that has a name and is known is not replaced under that name
    if token.kid and any(key.kid == token.kid for key in keys):
        raise problem
    if await issuer.source.renew():
        problem = _problem(issuer.rules, token, await issuer.source.keys())
    if problem is not None:
        raise issuer.source.unavailable() if issuer.source.failure else problem


def _problem(rules: IssuerRules, token: Token, keys: Sequence[IssuerKey]) -> IdentityTokenError | None:
    """Why none of these keys signed the token; None: one did."""
    named = [key for key in keys if not token.kid or key.kid == token.kid]
    fitting = [key for key in named if token.algorithm in key.algorithms]
    if not named:
        words = f"the issuer has no key {shown(token.kid)} to check the token with"
        return refusal("key", words, issuer=rules.name, hint="where it has a new one just now: try again in a minute")
    if not token.kid and len(fitting) != 1:
        words = f"the token names no key (kid), and {len(fitting)} keys of the issuer sign with {token.algorithm}"
        return refusal("key", words, issuer=rules.name)
    if not fitting:
        words = f"the issuer's key {shown(token.kid)} does not sign with {token.algorithm}"
        return refusal("algorithm", words, issuer=rules.name)
    if not any(token.signed_by(key.public) for key in fitting):
        return refusal("signature", "the token's signature is not the issuer's", issuer=rules.name)
    return None


def _fingerprint(rules: IssuerRules, token: Token) -> str:
    # not over the signature: one made by ECDSA can be changed into another one that is good
    own = checks.token_id(rules, token.claims).encode("utf-8", "surrogatepass") or token.signing_input
    return hashlib.sha256(rules.issuer.encode("utf-8") + b"\n" + own).hexdigest()
