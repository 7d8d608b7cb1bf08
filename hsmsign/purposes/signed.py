"""What is to be signed of X.509 and OCSP, read by the parsers of `cryptography`.

They read what is signed already. Around the part to be signed stands therefore what a signature would add (RFC 5280,
section 4.1: the algorithm and a BIT STRING, here an empty one), and what they read must be that part to the last byte.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import ocsp

from hsmsign.model.algorithms import Scheme

UNREADABLE = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
"""What the parsers raise for what they cannot read; not all of it is a ValueError."""
_EMPTY = b"\x03\x01\x00"
_BASIC_RESPONSE = bytes.fromhex("06092b0601050507300101")
_SUCCESSFUL = b"\x0a\x01\x00"
_SEQUENCE, _OCTETS, _BYTES = 0x30, 0x04, 0xA0


def certificate(tbs: bytes, scheme: Scheme) -> x509.Certificate | None:
    """The certificate whose TBSCertificate (RFC 5280, section 4.1) that is; None where it is none."""
    try:
        found = x509.load_der_x509_certificate(_signed(tbs, scheme))
        return found if found.tbs_certificate_bytes == tbs else None
    except UNREADABLE:
        return None


def crl(tbs: bytes, scheme: Scheme) -> x509.CertificateRevocationList | None:
    """The CRL whose TBSCertList (RFC 5280, section 5.1) that is, for a signature of that scheme."""
    try:
        found = x509.load_der_x509_crl(_signed(tbs, scheme))
        return found if found.tbs_certlist_bytes == tbs else None
    except UNREADABLE:
        return None


def request(info: bytes, scheme: Scheme) -> x509.CertificateSigningRequest | None:
    """The request whose CertificationRequestInfo (RFC 2986, section 4.1) that is."""
    try:
        found = x509.load_der_x509_csr(_signed(info, scheme))
        return found if found.tbs_certrequest_bytes == info else None
    except UNREADABLE:
        return None


def response(data: bytes, scheme: Scheme) -> ocsp.OCSPResponse | None:
    """The OCSP answer whose ResponseData (RFC 6960, section 4.2.1) that is."""
    basic = _BASIC_RESPONSE + _element(_OCTETS, _signed(data, scheme))
    whole = _element(_SEQUENCE, _SUCCESSFUL + _element(_BYTES, _element(_SEQUENCE, basic)))
    try:
        found = ocsp.load_der_ocsp_response(whole)
        return found if found.tbs_response_bytes == data else None
    except UNREADABLE:
        return None


def _signed(part: bytes, scheme: Scheme) -> bytes:
    return _element(_SEQUENCE, part + _ALGORITHMS[scheme] + _EMPTY)


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


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
