"""Verifying a signature with `cryptography`, by its scheme: the judge in tests."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from hsmsign.model.algorithms import InputKind, Scheme, SignatureFormat

_HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


def digest(scheme: Scheme, message: bytes) -> bytes:
    """The digest that `scheme` signs of `message`."""
    assert scheme.hash is not None
    return hashlib.new(scheme.hash.value, message).digest()


def inputs(scheme: Scheme, kind: InputKind, messages: list[bytes]) -> list[bytes]:
    """What to send so that `messages` are signed."""
    return messages if kind is InputKind.MESSAGE else [digest(scheme, message) for message in messages]


def verify(
    spki: bytes, scheme: Scheme, signature: bytes, message: bytes, form: SignatureFormat = SignatureFormat.DER
) -> None:
    """Raises InvalidSignature."""
    key = serialization.load_der_public_key(spki)
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, message)
        return
    assert scheme.hash is not None
    hash_ = _HASHES[scheme.hash.value]
    if isinstance(key, ec.EllipticCurvePublicKey):
        if form is SignatureFormat.RAW:
            size = (key.key_size + 7) // 8
            assert len(signature) == 2 * size
            r, s = signature[:size], signature[size:]
            signature = utils.encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        key.verify(signature, message, ec.ECDSA(hash_))
        return
    assert isinstance(key, rsa.RSAPublicKey)
    if "PSS" in scheme.name:
        key.verify(signature, message, padding.PSS(padding.MGF1(hash_), hash_.digest_size), hash_)
    else:
        key.verify(signature, message, padding.PKCS1v15(), hash_)
