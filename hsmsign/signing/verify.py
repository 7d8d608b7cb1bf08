"""Checking signatures with public keys, in this process: no device is asked."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from hsmsign.model.algorithms import Hash, InputKind, Scheme, SignatureFormat
from hsmsign.model.limits import Limits
from hsmsign.signing.values import SignGroup

_HASHES: dict[Hash, type[hashes.HashAlgorithm]] = {
    Hash.SHA256: hashes.SHA256,
    Hash.SHA384: hashes.SHA384,
    Hash.SHA512: hashes.SHA512,
}
_LONG = 64 << 10
_SLOW = frozenset({Scheme.ECDSA_P384_SHA384, Scheme.ECDSA_P521_SHA512})
"""Those take about a millisecond; all others much less."""


class Verifier:
    """Checks signatures. Remembers the public keys that were used last."""

    def __init__(self, limits: Limits, size: int = 256) -> None:
        self._limits = limits
        self._size = size
        self._keys: OrderedDict[bytes, PublicKeyTypes] = OrderedDict()

    async def verify(self, public_key: bytes, scheme: Scheme, group: SignGroup, signature: bytes) -> bool:
        """Whether `signature` is one of the group's input by this key (SPKI, DER)."""
        key = self._load(public_key)
        if scheme in _SLOW or len(group.inputs[0]) > _LONG:
            return await asyncio.to_thread(_good, key, scheme, group, signature)
        return _good(key, scheme, group, signature)

    def _load(self, der: bytes) -> PublicKeyTypes:
        key = self._keys.pop(der, None) or serialization.load_der_public_key(der)
        self._keys[der] = key
        if len(self._keys) > self._size:
            self._keys.popitem(last=False)
        return key


def _good(key: PublicKeyTypes, scheme: Scheme, group: SignGroup, signature: bytes) -> bool:
    data = group.inputs[0]
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
            return True
        assert scheme.hash is not None  # noqa: S101 - only Ed25519 has none; for the type checker
        algorithm = _HASHES[scheme.hash]()
        prepared = utils.Prehashed(algorithm) if group.kind is InputKind.DIGEST else algorithm
        if isinstance(key, ec.EllipticCurvePublicKey):
            der = _der(key, signature) if group.format is SignatureFormat.RAW else signature
            key.verify(der, data, ec.ECDSA(prepared))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, _padding(scheme, algorithm), prepared)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _der(key: ec.EllipticCurvePublicKey, raw: bytes) -> bytes:
    size = (key.curve.key_size + 7) // 8
    if len(raw) != 2 * size:
        raise InvalidSignature
    return utils.encode_dss_signature(int.from_bytes(raw[:size], "big"), int.from_bytes(raw[size:], "big"))


def _padding(scheme: Scheme, algorithm: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if scheme.name.startswith("RSA_PSS"):
        return padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    return padding.PKCS1v15()
