"""A public key (SubjectPublicKeyInfo, DER) in other forms."""

from __future__ import annotations

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from hsmsign.model.errors import HsmsignError

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def pem(der: bytes) -> str:
    """PEM, label PUBLIC KEY (RFC 7468, section 13)."""
    text = base64.b64encode(der).decode("ascii")
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


def jwk(der: bytes) -> str:
    """JWK (RFC 7517) as JSON; `kid` is the SHA-256 thumbprint (RFC 7638)."""
    members = _members(der)
    # RFC 7638, section 3: exactly the required members, by name, without white space
    required = json.dumps(members, sort_keys=True, separators=(",", ":"))
    kid = _b64(hashlib.sha256(required.encode()).digest())
    return json.dumps({**members, "kid": kid, "use": "sig"}, sort_keys=True)


def _members(der: bytes) -> dict[str, str]:
    key = load_der_public_key(der)
    if isinstance(key, ec.EllipticCurvePublicKey):
        size = (key.curve.key_size + 7) // 8
        point = key.public_numbers()
        x, y = point.x.to_bytes(size, "big"), point.y.to_bytes(size, "big")
        return {"kty": "EC", "crv": _CURVES[key.curve.name], "x": _b64(x), "y": _b64(y)}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _b64(_number(numbers.n)), "e": _b64(_number(numbers.e))}
    if isinstance(key, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": _b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}
    raise HsmsignError(f"a public key of a kind that has no JWK here: {type(key).__name__}")


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode("ascii").rstrip("=")
