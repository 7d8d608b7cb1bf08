"""What is signed of a JSON Web Token: header and payload of a compact JWS (RFC 7515, section 5.1; RFC 7519)."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from hsmsign.model.algorithms import Scheme
from hsmsign.model.purpose import Purpose
from hsmsign.purposes.mismatch import Mismatch

ALGORITHMS = {
    Scheme.ECDSA_P256_SHA256: "ES256",
    Scheme.ECDSA_P384_SHA384: "ES384",
    Scheme.ECDSA_P521_SHA512: "ES512",
    Scheme.RSA_PKCS1_SHA256: "RS256",
    Scheme.RSA_PKCS1_SHA384: "RS384",
    Scheme.RSA_PKCS1_SHA512: "RS512",
    Scheme.RSA_PSS_SHA256: "PS256",
    Scheme.RSA_PSS_SHA384: "PS384",
    Scheme.RSA_PSS_SHA512: "PS512",
    Scheme.ED25519: "EdDSA",
}
"""`alg` of a scheme (RFC 7518, section 3.1; RFC 8037, section 3.1)."""
_LOOKED_AT = ("alg", "aud", "b64", "crit", "iss", "typ")


def check(message: bytes, purpose: Purpose, scheme: Scheme) -> None:
    """Raise Mismatch unless it is a token with the key's `alg`, and an `iss` and `aud` that it may have."""
    parts = message.split(b".")
    if len(parts) != 2:
        raise Mismatch("a token's header and payload (RFC 7515): BASE64URL.BASE64URL")
    header, payload = (_object(part) for part in parts)
    for name in (*header, *payload):
        # Go's encoding/json takes `Aud` for `aud`, and the last of them
        if name not in _LOOKED_AT and name.casefold() in _LOOKED_AT:
            raise Mismatch(f"a token in which {', '.join(_LOOKED_AT)} are written so and not otherwise")
    if header.get("alg") != ALGORITHMS[scheme]:
        raise Mismatch(f"a token whose header says alg {ALGORITHMS[scheme]}")
    if "crit" in header or "b64" in header:
        raise Mismatch("a token without critical extensions in its header")
    if purpose.jwt_issuers and payload.get("iss") not in purpose.jwt_issuers:
        raise Mismatch(f"a token whose iss is {_one_of(purpose.jwt_issuers)}")
    if purpose.jwt_audiences and not _known(payload.get("aud"), purpose.jwt_audiences):
        raise Mismatch(f"a token whose aud is {_one_of(purpose.jwt_audiences)}")


def _object(part: bytes) -> dict[str, Any]:
    try:
        # what decodes to the same but is written otherwise is not base64url without padding (RFC 7515, section 2)
        data = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
        if base64.urlsafe_b64encode(data).rstrip(b"=") != part:
            raise ValueError
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_never)
    except (ValueError, binascii.Error, RecursionError):
        raise Mismatch("a token's header and payload: JSON objects, each name once, in base64url") from None
    if not isinstance(value, dict):
        raise Mismatch("a token's header and payload: JSON objects")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError  # two parsers may see two tokens
    return found


def _never(_: str) -> Any:
    raise ValueError  # NaN and Infinity are no JSON


def _known(audience: Any, allowed: tuple[str, ...]) -> bool:
    wanted = audience if isinstance(audience, list) else [audience]
    return bool(wanted) and all(isinstance(one, str) and one in allowed for one in wanted)


def _one_of(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
