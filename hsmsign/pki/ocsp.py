"""What an OCSP request asks (RFC 6960, in the small form of RFC 5019), and of whom.

Whoever can reach the responder may ask, and what is asked is hostile: everything that cannot be answered is an
OcspRequestError, for which the answer is malformedRequest (`ocsp_answers.error_response`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn, Self
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from hsmsign.model.errors import OcspRequestError
from hsmsign.pki.weakness import PublicKey
from hsmsign.purposes.signed import UNREADABLE

REQUEST_MAX = 4096
"""Bytes of a request, as DER and as base64."""
HASHES = ("sha1", "sha256", "sha384", "sha512")
"""With which a question can name the issuer. SHA-1 protects nothing here: it is a name (RFC 5019, section 2.1.1)."""
_NONCE_MAX = 128
"""RFC 9654, section 2.1."""
_SERIAL_BITS = 160
_PLAIN = "send an OCSPRequest (RFC 6960, section 4.1) about one certificate, as openssl ocsp -issuer ... -cert ... does"


@dataclass(frozen=True, slots=True)
class OcspQuestion:
    """How one certificate does."""

    serial: int
    issuer_name_hash: bytes
    """Of the issuer's distinguished name, DER."""
    issuer_key_hash: bytes
    """Of the issuer's subjectPublicKey, without tag, length and unused bits."""
    hash_name: str
    """One of HASHES."""
    nonce: bytes | None = None
    """1 to 128 bytes that the answer is to have in it (RFC 9654); such an answer is good for nobody else."""


@dataclass(frozen=True, slots=True)
class IssuerHashes:
    """How questions name a CA."""

    hashes: Mapping[str, tuple[bytes, bytes]]
    """By the name of the hash: of the CA's name and of its key."""

    @classmethod
    def of(cls, name: x509.Name, public_key: PublicKey) -> Self:
        """Those of the CA with this name, as it stands in the certificates that it issues, and this key."""
        encoded, bits = name.public_bytes(), _bits(public_key)
        return cls({hash: (hashlib.new(hash, encoded).digest(), hashlib.new(hash, bits).digest()) for hash in HASHES})

    def fits(self, question: OcspQuestion) -> bool:
        """Whether this CA is asked about; takes the same time whatever is asked."""
        name, key = self.hashes[question.hash_name]
        return hmac.compare_digest(name + key, question.issuer_name_hash + question.issuer_key_hash)


def read_request(der: bytes) -> OcspQuestion:
    """Read a request. Raises OcspRequestError.

    Signatures and the names of requestors are not looked at: who asks makes no difference to the answer.
    """
    if len(der) > REQUEST_MAX:
        _refuse(f"the OCSP request has {len(der)} bytes; at most {REQUEST_MAX} are read")
    try:
        request = ocsp.load_der_ocsp_request(der)
        question = OcspQuestion(
            request.serial_number,
            request.issuer_name_hash,
            request.issuer_key_hash,
            request.hash_algorithm.name,
            _nonce(request.extensions),
        )
    except NotImplementedError:
        _refuse("the OCSP request is not about one certificate")
    except UNREADABLE:
        _refuse("the OCSP request cannot be read")
    _check(question)
    return question


def read_get(path: str) -> bytes:
    """The DER of a request that came by GET (RFC 6960, appendix A.1). Raises OcspRequestError.

    `path` is what follows the responder's URL, percent-encoded or not.
    """
    # some put a slash too many before it; base64 of a SEQUENCE begins with none
    text = path.lstrip("/")
    if len(text) > 3 * REQUEST_MAX or not text.isascii():
        _refuse(f"what follows the OCSP responder's URL is longer than {REQUEST_MAX} characters, or not base64")
    encoded = unquote_to_bytes(text)
    try:
        der = base64.b64decode(encoded)
    except binascii.Error:
        der = b""
    # strict: what is read as the same may not be written in several ways, each a place of its own in caches
    if not der or len(encoded) > REQUEST_MAX or base64.b64encode(der) != encoded:
        _refuse(f"what follows the OCSP responder's URL is not base64 of 1 to {REQUEST_MAX} characters")
    return der


def _check(question: OcspQuestion) -> None:
    if question.hash_name not in HASHES:
        _refuse(f"the OCSP request names the issuer by {question.hash_name}; {', '.join(HASHES)} are understood")
    size = hashlib.new(question.hash_name).digest_size
    if len(question.issuer_name_hash) != size or len(question.issuer_key_hash) != size:
        _refuse(
            f"the OCSP request has hashes of the issuer that are none of {question.hash_name}: these have {size} bytes"
        )
    if question.serial <= 0 or question.serial.bit_length() > _SERIAL_BITS:
        _refuse("the OCSP request is about a serial number that no certificate has")
    if question.nonce is not None and not 1 <= len(question.nonce) <= _NONCE_MAX:
        _refuse(f"the OCSP request has a nonce of {len(question.nonce)} bytes; 1 to {_NONCE_MAX} may be (RFC 9654)")


def _nonce(extensions: x509.Extensions) -> bytes | None:
    """The nonce, if there is one. What else is asked for is ignored, unless it must not be."""
    nonce = None
    for one in extensions:
        if isinstance(one.value, x509.OCSPNonce):
            nonce = one.value.nonce
        elif one.critical:
            _refuse(f"the OCSP request has a critical extension that is not understood: {one.oid.dotted_string[:80]}")
    return nonce


def _bits(public_key: PublicKey) -> bytes:
    """The content of subjectPublicKey (RFC 5480, section 2.2; RFC 8017, appendix A.1.1; RFC 8410, section 4)."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if isinstance(public_key, rsa.RSAPublicKey):
        return public_key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return public_key.public_bytes_raw()


def _refuse(message: str) -> NoReturn:
    raise OcspRequestError(message, hint=_PLAIN) from None
