"""The frame around everything that X.509 signs: a SEQUENCE of the part, the algorithm and a BIT STRING.

Certificates (RFC 5280, section 4.1), CRLs (5.1), requests (RFC 2986) and basic OCSP answers (RFC 6960) all have it.
What is in the part is made and read by `cryptography`; here a tag and a length are written, and nothing is read.
"""

from __future__ import annotations

from hsmsign.model.algorithms import Scheme

SEQUENCE, OCTETS, BITS = 0x30, 0x04, 0x03
NOT_SIGNED = b""
"""The signature of what is read before it is signed."""


def header(tag: int, size: int) -> bytes:
    """Tag and length (X.690, section 8.1) of an element whose content has `size` bytes."""
    if size < 0x80:
        return bytes((tag, size))
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length


def element(tag: int, content: bytes) -> bytes:
    """A whole element."""
    return header(tag, len(content)) + content


def algorithm(scheme: Scheme) -> bytes:
    """The AlgorithmIdentifier, DER."""
    return _ALGORITHMS[scheme]


def ending(scheme: Scheme, signature: bytes) -> bytes:
    """What stands behind the part that is signed."""
    return _ALGORITHMS[scheme] + element(BITS, b"\x00" + signature)


def wrap(part: bytes, scheme: Scheme, signature: bytes) -> bytes:
    """The part, as it is when it is signed."""
    return element(SEQUENCE, part + ending(scheme, signature))


def _pss(hash: str, size: int) -> bytes:
    """RSASSA-PSS with its parameters (RFC 4055, section 3.1)."""
    same = f"300d0609{hash}0500"
    return bytes.fromhex(
        f"304106092a864886f70d01010a3034a00f{same}a11c301a06092a864886f70d010108{same}a2030201{size:02x}"
    )


_ALGORITHMS = {
    # RFC 5758, section 3.2
    Scheme.ECDSA_P256_SHA256: bytes.fromhex("300a06082a8648ce3d040302"),
    Scheme.ECDSA_P384_SHA384: bytes.fromhex("300a06082a8648ce3d040303"),
    Scheme.ECDSA_P521_SHA512: bytes.fromhex("300a06082a8648ce3d040304"),
    # RFC 4055, section 5
    Scheme.RSA_PKCS1_SHA256: bytes.fromhex("300d06092a864886f70d01010b0500"),
    Scheme.RSA_PKCS1_SHA384: bytes.fromhex("300d06092a864886f70d01010c0500"),
    Scheme.RSA_PKCS1_SHA512: bytes.fromhex("300d06092a864886f70d01010d0500"),
    Scheme.RSA_PSS_SHA256: _pss("608648016503040201", 32),
    Scheme.RSA_PSS_SHA384: _pss("608648016503040202", 48),
    Scheme.RSA_PSS_SHA512: _pss("608648016503040203", 64),
    # RFC 8410, section 3
    Scheme.ED25519: bytes.fromhex("300506032b6570"),
}
