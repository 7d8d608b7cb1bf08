"""What the builders of `cryptography` would sign, taken from them by keys that sign nothing.

The builders want a private key, and the private keys here are on devices. A stand-in of the same kind is given to them
instead: it raises with the bytes that it is to sign, and they come out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from hsmsign.model.algorithms import Family, Scheme
from hsmsign.pki.weakness import PublicKey

SigningHash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class _Captured(Exception):
    def __init__(self, data: bytes) -> None:
        super().__init__("to be signed")
        self.data = data


def captured(sign: Callable[[PrivateKey], object], public_key: PublicKey, scheme: Scheme) -> bytes:
    """What `sign` would have signed with the private key that belongs to a public key.

    `sign` is given a stand-in for the private key and hands it to a builder of `cryptography`, with `hash_of(scheme)`
    and, where it takes one, `rsa_padding=padding_of(scheme)`. Raises UnsupportedAlgorithm where it uses another scheme,
    or a key of another family than the scheme's; ValueError where it signs nothing.
    """
    try:
        sign(_stand_in(public_key, scheme))
    except _Captured as found:
        return found.data
    raise ValueError("nothing was to be signed")


def hash_of(scheme: Scheme) -> SigningHash | None:
    """The hash that a builder is told; None for Ed25519."""
    return None if scheme.hash is None else _HASHES[scheme.hash.value]


def padding_of(scheme: Scheme) -> padding.PSS | padding.PKCS1v15 | None:
    """The padding that a builder is told for an RSA scheme; None for others."""
    used = hash_of(scheme)
    if scheme.family is not Family.RSA or used is None:
        return None
    if scheme.name.startswith("RSA_PSS"):
        return padding.PSS(padding.MGF1(used), padding.PSS.DIGEST_LENGTH)
    return padding.PKCS1v15()


_HASHES: dict[str, SigningHash] = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


class _StandIn:
    """What the three have in common: a public key and a scheme."""

    def __init__(self, public_key: Any, scheme: Scheme) -> None:
        self._public = public_key
        self._scheme = scheme

    def public_key(self) -> Any:
        return self._public

    def private_bytes(self, encoding: object = None, format: object = None, encryption_algorithm: object = None) -> Any:
        _refuse()

    def private_bytes_raw(self) -> bytes:
        _refuse()

    def private_numbers(self) -> Any:
        _refuse()

    def _capture(self, data: Any, algorithm: Any, pads: Any = None) -> NoReturn:
        wanted = hash_of(self._scheme)
        pss = isinstance(pads, padding.PSS)
        if getattr(algorithm, "name", None) != getattr(wanted, "name", None) or pss != ("_PSS_" in self._scheme.name):
            raise UnsupportedAlgorithm(f"a builder was told another hash or padding than {self._scheme.name} has")
        raise _Captured(bytes(data))


class _StandInEc(_StandIn, ec.EllipticCurvePrivateKey):
    @property
    def curve(self) -> ec.EllipticCurve:
        curve: ec.EllipticCurve = self._public.curve
        return curve

    @property
    def key_size(self) -> int:
        return self.curve.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        _refuse()

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        self._capture(data, signature_algorithm.algorithm)

    def __copy__(self) -> _StandInEc:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _StandInEc:
        return self


class _StandInRsa(_StandIn, rsa.RSAPrivateKey):
    @property
    def key_size(self) -> int:
        size: int = self._public.key_size
        return size

    def decrypt(self, ciphertext: bytes, padding: Any) -> bytes:
        _refuse()

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        self._capture(data, algorithm, padding)

    def __copy__(self) -> _StandInRsa:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _StandInRsa:
        return self


class _StandInEd25519(_StandIn, ed25519.Ed25519PrivateKey):
    def sign(self, data: Any) -> bytes:
        self._capture(data, None)

    def __copy__(self) -> _StandInEd25519:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _StandInEd25519:
        return self


def _stand_in(public_key: PublicKey, scheme: Scheme) -> PrivateKey:
    kinds: dict[Family, tuple[type, type]] = {
        Family.EC: (ec.EllipticCurvePublicKey, _StandInEc),
        Family.RSA: (rsa.RSAPublicKey, _StandInRsa),
        Family.ED25519: (ed25519.Ed25519PublicKey, _StandInEd25519),
    }
    public, private = kinds[scheme.family]
    if not isinstance(public_key, public):
        raise UnsupportedAlgorithm(f"{scheme.name} is no scheme of this kind of key")
    made: PrivateKey = private(public_key, scheme)
    return made


def _refuse() -> NoReturn:
    raise UnsupportedAlgorithm("this stands in for a private key and has none")
