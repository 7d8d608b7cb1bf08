"""Reads a token without believing it: its form (RFC 7519, RFC 7515 compact), the header, the claims."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt

from hsmsign.pki.identity.keysets import PublicKey
from hsmsign.pki.identity.refusals import refusal, shown

SIZE_MAX = 16 << 10
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPES = ("jwt", "jose")
"""A token that is made for something else has another type (RFC 8725, section 3.11): at+jwt, secevent+jwt."""
_HEADER = "the token's header has a kid that is no text, or extensions (crit, b64), of which none is known here"
_JWS = jwt.PyJWS()
_UNREADABLE = (jwt.PyJWTError, ValueError, TypeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Token:
    """A token that can be read. Nothing in it is true before `signed_by` says so."""

    text: str
    algorithm: str
    kid: str
    """Nothing: the header names no key."""
    claims: dict[str, Any]

    @property
    def signing_input(self) -> bytes:
        """What the signature is over (RFC 7515, section 5.2)."""
        return self.text.rpartition(".")[0].encode("ascii")

    def signed_by(self, key: PublicKey) -> bool:
        """Whether the signature is this key's; the caller has seen that the algorithm is one of such a key."""
        try:
            _JWS.decode_complete(self.text, key=key, algorithms=[self.algorithm])
        except _UNREADABLE:
            return False
        return True


def read(text: str) -> Token:
    """Read a token. Raises IdentityTokenError."""
    if len(text) > SIZE_MAX:
        raise refusal("size", f"the token has {len(text)} characters, more than {SIZE_MAX}")
    if not _FORM.fullmatch(text):
        raise refusal(
            "form",
            "the token is no JWT: three parts of base64url, with dots between",
            hint="send the token as the platform gives it, without spaces and newlines",
        )
    try:
        parts = _JWS.decode_complete(text, options={"verify_signature": False})
        claims = json.loads(
            parts["payload"].decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_refuse_constant
        )
    except _UNREADABLE as error:
        if isinstance(error, jwt.InvalidTokenError) and not isinstance(error, jwt.DecodeError):
            # it could be read: PyJWT does not like the header
            raise refusal("header", _HEADER) from None
        raise refusal("form", "the token cannot be read: it is no signed JWT (RFC 7519)") from None
    if not isinstance(claims, dict):
        raise refusal("form", "the token's claims are no JSON object")
    return _checked(text, parts["header"], claims)


def _checked(text: str, header: dict[str, Any], claims: dict[str, Any]) -> Token:
    if "crit" in header or "b64" in header:
        raise refusal("header", _HEADER)
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise refusal("type", f"the token is of type {shown(kind)}, not JWT: it was made for something else")
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str):
        raise refusal("algorithm", "the token's header names no algorithm")
    if not isinstance(kid, str):
        raise refusal("header", _HEADER)
    return Token(text, algorithm, kid, claims)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # others might take the first where we take the last (RFC 7519, section 4)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
