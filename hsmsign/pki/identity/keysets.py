"""A JWK Set (RFC 7517, section 5) as the keys that can verify a token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWK

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_USABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""Key type and curve, and what such a key signs with: never what only the token says."""
_RSA_BITS = range(2048, 8192 + 1)
_KEYS_MAX = 256
_KID_MAX = 256


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A key that an issuer signs with."""

    kid: str
    """Nothing: it has none."""
    algorithms: tuple[str, ...]
    public: PublicKey


def parse(data: bytes, uses: tuple[str, ...]) -> tuple[IssuerKey, ...]:
    """The keys of a JWK Set that can verify tokens. Raises ValueError for what is no JWK Set.

    `uses` are the values of `use` that say that a key signs tokens; one that does not say is taken too. Keys of other
    kinds, symmetric and weak ones, and those whose private part stands there for all to see are left out.
    """
    try:
        values = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    keys = values.get("keys") if isinstance(values, dict) else None
    if not isinstance(keys, list):
        raise ValueError("it is no JWK Set: that has a list of keys")  # noqa: TRY004 - a wrong document, not a wrong call
    if len(keys) > _KEYS_MAX:
        raise ValueError(f"it has more than {_KEYS_MAX} keys")
    found = (_key(one, uses) for one in keys)
    return tuple(one for one in found if one is not None)


def _key(jwk: object, uses: tuple[str, ...]) -> IssuerKey | None:
    if not isinstance(jwk, dict) or not _for_tokens(jwk, uses):
        return None
    kid, kind, curve, algorithm = jwk.get("kid", ""), jwk.get("kty"), jwk.get("crv", ""), jwk.get("alg")
    if not isinstance(kid, str) or len(kid) > _KID_MAX or not isinstance(kind, str) or not isinstance(curve, str):
        return None
    usable = _USABLE.get((kind, "" if kind == "RSA" else curve), ())
    algorithms = usable if algorithm is None else tuple(one for one in usable if one == algorithm)
    public = _public(jwk, algorithms[0]) if algorithms else None
    return IssuerKey(kid, algorithms, public) if public is not None else None


def _for_tokens(jwk: Mapping[str, Any], uses: tuple[str, ...]) -> bool:
    operations = jwk.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return False
    return jwk.get("use") in (None, *uses)


def _public(jwk: dict[str, Any], algorithm: str) -> PublicKey | None:
    try:
        key = PyJWK(jwk, algorithm).key
    except Exception:  # noqa: BLE001 - a key that cannot be read, whatever is wrong with it: it is left out
        return None
    if isinstance(key, rsa.RSAPublicKey):
        return key if key.key_size in _RSA_BITS else None
    # a private key is none of these: what everybody can read proves nothing
    return key if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) else None
