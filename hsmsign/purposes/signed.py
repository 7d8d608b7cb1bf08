"""What is to be signed of X.509 and OCSP, read by the parsers of `cryptography`.

They read what is signed already. Around the part to be signed stands therefore what a signature would add (RFC 5280,
section 4.1: the algorithm and a BIT STRING, here an empty one), and what they read must be that part to the last byte.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import ocsp

from hsmsign.model.algorithms import Scheme
from hsmsign.model.signed_der import NOT_SIGNED, OCTETS, SEQUENCE, algorithm, element, header, wrap

UNREADABLE = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
"""What the parsers raise for what they cannot read; not all of it is a ValueError."""
_BASIC_RESPONSE = bytes.fromhex("06092b0601050507300101")
_SUCCESSFUL = b"\x0a\x01\x00"
_BYTES, _INTEGER = 0xA0, 0x02
_VERSION_3 = bytes.fromhex("a003020102")


def certificate(tbs: bytes, scheme: Scheme) -> x509.Certificate | None:
    """The certificate whose TBSCertificate (RFC 5280, section 4.1) that is; None where it is none."""
    try:
        found = x509.load_der_x509_certificate(wrap(tbs, scheme, NOT_SIGNED))
        return found if found.tbs_certificate_bytes == tbs else None
    except UNREADABLE:
        return None


def says(found: x509.Certificate, scheme: Scheme) -> bool:
    """Whether a certificate of version 3 says itself, too, what signs it: the algorithm in the TBSCertificate, behind
    version and serial number (RFC 5280, section 4.1.2.3), which the parser does not hold against the one around it."""
    tbs, serial = found.tbs_certificate_bytes, found.serial_number
    number = element(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, signed=True))
    start = _VERSION_3 + number + algorithm(scheme)
    return any(tbs.startswith(header(SEQUENCE, len(tbs) - size) + start) for size in (2, 3, 4, 5))


def crl(tbs: bytes, scheme: Scheme) -> x509.CertificateRevocationList | None:
    """The CRL whose TBSCertList (RFC 5280, section 5.1) that is, for a signature of that scheme."""
    try:
        found = x509.load_der_x509_crl(wrap(tbs, scheme, NOT_SIGNED))
        return found if found.tbs_certlist_bytes == tbs else None
    except UNREADABLE:
        return None


def request(info: bytes, scheme: Scheme) -> x509.CertificateSigningRequest | None:
    """The request whose CertificationRequestInfo (RFC 2986, section 4.1) that is."""
    try:
        found = x509.load_der_x509_csr(wrap(info, scheme, NOT_SIGNED))
        return found if found.tbs_certrequest_bytes == info else None
    except UNREADABLE:
        return None


def response(data: bytes, scheme: Scheme) -> ocsp.OCSPResponse | None:
    """The OCSP answer whose ResponseData (RFC 6960, section 4.2.1) that is."""
    basic = _BASIC_RESPONSE + element(OCTETS, wrap(data, scheme, NOT_SIGNED))
    whole = element(SEQUENCE, _SUCCESSFUL + element(_BYTES, element(SEQUENCE, basic)))
    try:
        found = ocsp.load_der_ocsp_response(whole)
        return found if found.tbs_response_bytes == data else None
    except UNREADABLE:
        return None
