"""The few structures of TPM 2.0 Part 2 that an attestation is made of, read strictly: all of the bytes, or an error.

ValueError says that bytes are not what they should be.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

RH_ENDORSEMENT = 0x4000000B
"""TPM_RH_ENDORSEMENT (Part 2, section 7.4)."""
_GENERATED, _ATTEST_CERTIFY = 0xFF544347, 0x8017
_RSA, _ECC, _NULL, _ECDSA, _RSAES, _ECDAA = 0x0001, 0x0023, 0x0010, 0x0018, 0x0015, 0x001A
_CURVES: dict[int, type[ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1]] = {
    0x0003: ec.SECP256R1,
    0x0004: ec.SECP384R1,
    0x0005: ec.SECP521R1,
}
_HASHES: dict[int, type[hashes.HashAlgorithm]] = {0x000B: hashes.SHA256, 0x000C: hashes.SHA384, 0x000D: hashes.SHA512}
_DEFAULT_EXPONENT = 65537

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class Attributes(enum.IntFlag):
    """TPMA_OBJECT (Part 2, section 8.3)."""

    FIXED_TPM = 1 << 1
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


@dataclass(frozen=True, slots=True)
class Public:
    """TPMT_PUBLIC (Part 2, section 12.2.4)."""

    marshalled: bytes
    name_hash: hashes.HashAlgorithm
    attributes: int
    policy: bytes
    symmetric_bits: int
    """Of what it encrypts with, for a storage or endorsement key; 0 where it has none."""
    key: PublicKey

    def has(self, wanted: Attributes) -> bool:
        """Whether all of these are set."""
        return self.attributes & wanted == wanted

    @property
    def name(self) -> bytes:
        """TPM2B_NAME's content: the hash of the public area behind the hash's identifier (Part 1, section 16)."""
        return self.marshalled[2:4] + hashlib.new(self.name_hash.name, self.marshalled).digest()


@dataclass(frozen=True, slots=True)
class Attest:
    """TPMS_ATTEST of TPM2_Certify (Part 2, section 10.12.12)."""

    qualified_signer: bytes
    extra_data: bytes
    name: bytes
    firmware: int


@dataclass(frozen=True, slots=True)
class EcdsaSignature:
    """TPMT_SIGNATURE by an ECDSA key (Part 2, section 11.3.4)."""

    hash: hashes.HashAlgorithm
    r: int
    s: int


def qualified_name(name: bytes, hierarchy: int) -> bytes:
    """Of a primary key in a hierarchy (Part 1, section 16.5)."""
    algorithm = _hash(int.from_bytes(name[:2], "big"))
    return name[:2] + hashlib.new(algorithm.name, hierarchy.to_bytes(4, "big") + name).digest()


class _Reader:
    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at, self._what = data, 0, what

    def number(self, size: int) -> int:
        return int.from_bytes(self.exactly(size), "big")

    def exactly(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise ValueError(f"{self._what} is cut off")
        self._at += size
        return part

    def sized(self) -> bytes:
        return self.exactly(self.number(2))

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"{self._what} has bytes behind its end")


def _hash(identifier: int) -> hashes.HashAlgorithm:
    kind = _HASHES.get(identifier)
    if kind is None:
        raise ValueError(f"the hash algorithm 0x{identifier:04x} is none of SHA-256, SHA-384, SHA-512")
    return kind()


def public(data: bytes) -> Public:
    """Read a TPMT_PUBLIC of an RSA or ECC key."""
    reader = _Reader(data, "TPMT_PUBLIC")
    kind = reader.number(2)
    name_hash = _hash(reader.number(2))
    attributes = reader.number(4)
    policy = reader.sized()
    symmetric_bits = _symmetric(reader)
    scheme = reader.number(2)
    if scheme not in (_NULL, _RSAES):
        reader.exactly(4 if scheme == _ECDAA else 2)
    key: PublicKey
    if kind == _RSA:
        bits, exponent, modulus = reader.number(2), reader.number(4), reader.sized()
        if len(modulus) * 8 != bits:
            raise ValueError("TPMT_PUBLIC has a modulus of another size than it says")
        key = rsa.RSAPublicNumbers(exponent or _DEFAULT_EXPONENT, int.from_bytes(modulus, "big")).public_key()
    elif kind == _ECC:
        curve = _CURVES.get(reader.number(2))
        if reader.number(2) != _NULL:
            reader.exactly(2)
        x, y = reader.sized(), reader.sized()
        if curve is None:
            raise ValueError("TPMT_PUBLIC has a curve that is none of P-256, P-384, P-521")
        key = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve()).public_key()
    else:
        raise ValueError(f"TPMT_PUBLIC is of a kind of key (0x{kind:04x}) that is neither RSA nor ECC")
    reader.end()
    return Public(data, name_hash, attributes, policy, symmetric_bits, key)


def _symmetric(reader: _Reader) -> int:
    if reader.number(2) == _NULL:
        return 0
    bits = reader.number(2)
    reader.exactly(2)
    return bits


def attest(data: bytes) -> Attest:
    """Read a TPMS_ATTEST of TPM2_Certify."""
    reader = _Reader(data, "TPMS_ATTEST")
    if reader.number(4) != _GENERATED:
        raise ValueError("TPMS_ATTEST was not made by a TPM: its first bytes are not TPM_GENERATED_VALUE")
    if reader.number(2) != _ATTEST_CERTIFY:
        raise ValueError("TPMS_ATTEST is not of TPM2_Certify")
    signer, extra = reader.sized(), reader.sized()
    reader.exactly(17)  # TPMS_CLOCK_INFO
    firmware = reader.number(8)
    name = reader.sized()
    reader.sized()  # the qualified name
    reader.end()
    return Attest(signer, extra, name, firmware)


def ecdsa_signature(data: bytes) -> EcdsaSignature:
    """Read a TPMT_SIGNATURE of ECDSA."""
    reader = _Reader(data, "TPMT_SIGNATURE")
    if reader.number(2) != _ECDSA:
        raise ValueError("TPMT_SIGNATURE is not of ECDSA")
    algorithm = _hash(reader.number(2))
    r, s = reader.sized(), reader.sized()
    reader.end()
    return EcdsaSignature(algorithm, int.from_bytes(r, "big"), int.from_bytes(s, "big"))
