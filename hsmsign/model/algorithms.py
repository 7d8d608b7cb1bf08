"""Key algorithms, hashes and signature schemes: what a key is, and how it may sign.

A key has one `KeyAlgorithm` for life. A request names a `Scheme` where the algorithm allows several
(RSA: PKCS #1 v1.5 or PSS, with one of three hashes); an EC or Ed25519 key has exactly one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hsmsign.model.errors import AlgorithmMismatchError, DigestLengthError, SchemeMissingError


class Hash(enum.Enum):
    """A SHA-2 hash (FIPS 180-4). The value is the name that `hashlib` knows."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"

    @property
    def size(self) -> int:
        """Length of a digest in bytes."""
        return {"sha256": 32, "sha384": 48, "sha512": 64}[self.value]


class Family(enum.Enum):
    """The mathematics under a key."""

    EC = "ec"
    RSA = "rsa"
    ED25519 = "ed25519"


class SignatureFormat(enum.Enum):
    """How an ECDSA signature is written. The numbers are those of the wire and of native/core/frame.h."""

    DER = 0
    """ASN.1 `ECDSA-Sig-Value` (RFC 3279, section 2.2.3)."""
    RAW = 1
    """r || s, each as long as the curve's order (JOSE, RFC 7518, section 3.4; PKCS #11, section 6.3.1)."""


class InputKind(enum.Enum):
    """What a request carries. The numbers are those of the wire and of native/core/frame.h."""

    DIGEST = 0
    MESSAGE = 1


class Scheme(enum.Enum):
    """A signature scheme. The numbers are those of the wire and of native/core/frame.h.

    RSA-PSS takes MGF1 with the same hash and a salt as long as the hash (RFC 8017, section 8.1).
    """

    ECDSA_P256_SHA256 = 1
    ECDSA_P384_SHA384 = 2
    ECDSA_P521_SHA512 = 3
    RSA_PKCS1_SHA256 = 4
    RSA_PKCS1_SHA384 = 5
    RSA_PKCS1_SHA512 = 6
    RSA_PSS_SHA256 = 7
    RSA_PSS_SHA384 = 8
    RSA_PSS_SHA512 = 9
    ED25519 = 10

    @property
    def family(self) -> Family:
        """The family of keys that can use this scheme."""
        if self is Scheme.ED25519:
            return Family.ED25519
        return Family.EC if self.name.startswith("ECDSA") else Family.RSA

    @property
    def hash(self) -> Hash | None:
        """The hash that is pinned by the scheme, or None for Ed25519, which signs messages only."""
        if self is Scheme.ED25519:
            return None
        return Hash[self.name.rsplit("_", 1)[1]]


class KeyAlgorithm(enum.Enum):
    """What kind of key it is. The value is the word of the command line; `number` that of the wire."""

    EC_P256 = "ecdsa-p256"
    EC_P384 = "ecdsa-p384"
    EC_P521 = "ecdsa-p521"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    ED25519 = "ed25519"

    @property
    def family(self) -> Family:
        """The mathematics under the key."""
        if self is KeyAlgorithm.ED25519:
            return Family.ED25519
        return Family.EC if self.name.startswith("EC_") else Family.RSA

    @property
    def number(self) -> int:
        """The number in `hsmsign.v1.KeyAlgorithm`: the place in this list, from 1."""
        return list(KeyAlgorithm).index(self) + 1

    @property
    def bits(self) -> int:
        """Size in bits: of the curve's field, or of the RSA modulus."""
        return 256 if self is KeyAlgorithm.ED25519 else int(self.name.rsplit("_", 1)[1].lstrip("P"))

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The schemes that a key of this algorithm can use, the default first."""
        return _SCHEMES[self]

    def scheme(self, wanted: Scheme | None) -> Scheme:
        """The scheme to use: `wanted` where this key can, the only one where nothing was named.

        Raises AlgorithmMismatchError where this kind of key cannot use `wanted`, and
        SchemeMissingError where the key has several schemes and none was named.
        """
        if wanted is None:
            if len(self.schemes) > 1:
                raise SchemeMissingError(self.value, tuple(s.name for s in self.schemes))
            return self.schemes[0]
        if wanted not in self.schemes:
            raise AlgorithmMismatchError(self.value, wanted.name, tuple(s.name for s in self.schemes))
        return wanted


_RSA = (
    Scheme.RSA_PKCS1_SHA256,
    Scheme.RSA_PKCS1_SHA384,
    Scheme.RSA_PKCS1_SHA512,
    Scheme.RSA_PSS_SHA256,
    Scheme.RSA_PSS_SHA384,
    Scheme.RSA_PSS_SHA512,
)
_SCHEMES: dict[KeyAlgorithm, tuple[Scheme, ...]] = {
    KeyAlgorithm.EC_P256: (Scheme.ECDSA_P256_SHA256,),
    KeyAlgorithm.EC_P384: (Scheme.ECDSA_P384_SHA384,),
    KeyAlgorithm.EC_P521: (Scheme.ECDSA_P521_SHA512,),
    KeyAlgorithm.RSA_2048: _RSA,
    KeyAlgorithm.RSA_3072: _RSA,
    KeyAlgorithm.RSA_4096: _RSA,
    KeyAlgorithm.ED25519: (Scheme.ED25519,),
}


@dataclass(frozen=True, slots=True)
class Digest:
    """A message digest ready to be signed. Raises DigestLengthError unless `value` fits `hash`."""

    hash: Hash
    value: bytes

    def __post_init__(self) -> None:
        if len(self.value) != self.hash.size:
            raise DigestLengthError(self.hash.value, self.hash.size, len(self.value))
