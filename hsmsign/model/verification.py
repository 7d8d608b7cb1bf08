"""Whether a signature is good, by a public key in this process: no device is asked."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from hsmsign.model.algorithms import Family, Hash, InputKind, KeyAlgorithm, Scheme, SignatureFormat

_HASHES: dict[Hash, type[hashes.HashAlgorithm]] = {
    Hash.SHA256: hashes.SHA256,
    Hash.SHA384: hashes.SHA384,
    Hash.SHA512: hashes.SHA512,
}
_CURVES = {"secp256r1": KeyAlgorithm.EC_P256, "secp384r1": KeyAlgorithm.EC_P384, "secp521r1": KeyAlgorithm.EC_P521}
_RSA = {algorithm.bits: algorithm for algorithm in KeyAlgorithm if algorithm.family is Family.RSA}


def algorithm_of(key: PublicKeyTypes) -> KeyAlgorithm | None:
    """What kind of key it is, of those that we know."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeyAlgorithm.ED25519
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES.get(key.curve.name)
    if isinstance(key, rsa.RSAPublicKey):
        return _RSA.get(key.key_size)
    return None


def is_good(
    key: PublicKeyTypes,
    scheme: Scheme,
    signature: bytes,
    data: bytes,
    kind: InputKind = InputKind.MESSAGE,
    form: SignatureFormat = SignatureFormat.DER,
) -> bool:
    """Whether `signature` is one of `data`, a message or its digest, by this key."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, data)
            return True
        assert scheme.hash is not None  # noqa: S101 - only Ed25519 has none; for the type checker
        algorithm = _HASHES[scheme.hash]()
        prepared = utils.Prehashed(algorithm) if kind is InputKind.DIGEST else algorithm
        if isinstance(key, ec.EllipticCurvePublicKey):
            der = _der(key, signature) if form is SignatureFormat.RAW else signature
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
