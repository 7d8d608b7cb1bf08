"""OCSP answers (RFC 6960, section 4.2), before they are signed and after, and how long caches may keep them.

`response_data` is what gets signed; `assemble` makes the answer of it. Both are made or read by `cryptography`, whose
builder takes the time of production from the clock. Between the two stands the signature of a device, so the second
puts a frame around the bytes of the first, and what comes out is read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from types import MappingProxyType
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.ocsp import OCSPCertStatus, OCSPResponderEncoding, OCSPResponseStatus

from hsmsign.model.algorithms import Family, Scheme
from hsmsign.model.errors import HsmsignError
from hsmsign.model.signed_der import OCTETS, SEQUENCE, element, ending
from hsmsign.pki.capturing import captured, hash_of
from hsmsign.pki.ocsp import OcspQuestion
from hsmsign.pki.weakness import PublicKey
from hsmsign.purposes.signed import UNREADABLE

NOT_CACHED: Mapping[str, str] = MappingProxyType({"Cache-Control": "no-store"})
"""The HTTP headers of an error, and of an answer with a nonce."""
_ENCODINGS = {"name": OCSPResponderEncoding.NAME, "key": OCSPResponderEncoding.HASH}
_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - names the issuer, protects nothing
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_FAMILIES: Mapping[Family, type[PublicKey]] = {
    Family.EC: ec.EllipticCurvePublicKey,
    Family.RSA: rsa.RSAPublicKey,
    Family.ED25519: ed25519.Ed25519PublicKey,
}
_BASIC_RESPONSE = bytes.fromhex("06092b0601050507300101")
"""id-pkix-ocsp-basic (RFC 6960, section 4.2.1), DER."""
_SUCCESSFUL = bytes.fromhex("0a0100")
_IN_0 = 0xA0
"""[0] EXPLICIT."""


@dataclass(frozen=True, slots=True)
class Responder:
    """Who signs answers: a delegate with id-kp-OCSPSigning (RFC 6960, section 4.2.2.2), or the CA itself.

    Raises TypeError where its key is of another family than the scheme.
    """

    certificate: x509.Certificate
    by: Literal["name", "key"]
    """How answers say who that is."""
    scheme: Scheme

    def __post_init__(self) -> None:
        _public_key(self)


@dataclass(frozen=True, slots=True)
class Status:
    """How a certificate does: GOOD, UNKNOWN (never issued by this CA), or `revoked(...)`."""

    state: OCSPCertStatus
    when: datetime | None = None
    reason: x509.ReasonFlags | None = None


GOOD = Status(OCSPCertStatus.GOOD)
UNKNOWN = Status(OCSPCertStatus.UNKNOWN)


def revoked(when: datetime, reason: x509.ReasonFlags | None = None) -> Status:
    """Revoked then. `unspecified` is the same as no reason (RFC 5280, section 5.3.1)."""
    return Status(OCSPCertStatus.REVOKED, when, None if reason is x509.ReasonFlags.unspecified else reason)


def response_data(
    question: OcspQuestion,
    status: Status,
    responder: Responder,
    *,
    this_update: datetime,
    next_update: datetime,
    nonce: bytes | None,
) -> bytes:
    """The ResponseData to be signed, DER. It was produced now.

    Times have a time zone; what is less than a second is cut off. `nonce` is the question's, or None where an answer
    is for everybody.
    """
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        question.issuer_name_hash,
        question.issuer_key_hash,
        question.serial,
        _HASHES[question.hash_name],
        status.state,
        this_update,
        next_update,
        status.when,
        status.reason,
    )
    builder = builder.responder_id(_ENCODINGS[responder.by], responder.certificate)
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    # the builder knows no PSS, and needs to know none: ResponseData does not name the scheme
    scheme = Scheme[responder.scheme.name.replace("RSA_PSS", "RSA_PKCS1")]
    return captured(lambda key: builder.sign(key, hash_of(scheme)), _public_key(responder), scheme)


def assemble(data: bytes, signature: bytes, responder: Responder) -> bytes:
    """The OCSPResponse of ResponseData and its signature, with the responder's certificate in it, DER.

    Raises HsmsignError where it does not read as it was meant; whether the signature is right is not looked at.
    """
    certificate = responder.certificate.public_bytes(Encoding.DER)
    certificates = element(_IN_0, element(SEQUENCE, certificate))
    basic = element(SEQUENCE, data + ending(responder.scheme, signature) + certificates)
    content = element(SEQUENCE, _BASIC_RESPONSE + element(OCTETS, basic))
    whole = element(SEQUENCE, _SUCCESSFUL + element(_IN_0, content))
    try:
        found = ocsp.load_der_ocsp_response(whole)
        meant = (
            found.response_status is OCSPResponseStatus.SUCCESSFUL
            and found.tbs_response_bytes == data
            and found.signature == signature
            and found.certificates == [responder.certificate]
        )
    except UNREADABLE:
        meant = False
    if not meant:
        raise HsmsignError(
            f"an OCSP answer of {len(data)} bytes does not read as it was meant",
            hint="give what response_data made and its signature; if that was so, report it as a defect",
        )
    return whole


def error_response(status: OCSPResponseStatus) -> bytes:
    """An answer that says only what went wrong, DER; it is not signed.

    MALFORMED_REQUEST for an OcspRequestError, UNAUTHORIZED for an issuer that is not ours (RFC 5019, section 2.2.3),
    TRY_LATER and INTERNAL_ERROR for what they say.
    """
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)


def cache_headers(der: bytes, *, this_update: datetime, next_update: datetime, now: datetime) -> dict[str, str]:
    """The HTTP headers of an answer that is for everybody (RFC 5019, section 6.2): caches keep it to its nextUpdate.

    Errors and answers with a nonce have NOT_CACHED instead. The ETag is SHA-256.
    """
    left = max(0, int((next_update - now).total_seconds()))
    return {
        "Last-Modified": _http_date(this_update),
        "Expires": _http_date(next_update),
        "ETag": f'"{hashlib.sha256(der).hexdigest()}"',
        "Cache-Control": f"max-age={left}, public, no-transform, must-revalidate",
    }


def _http_date(time: datetime) -> str:
    return format_datetime(time.astimezone(UTC), usegmt=True)


def _public_key(responder: Responder) -> PublicKey:
    key = responder.certificate.public_key()
    if not isinstance(key, _FAMILIES[responder.scheme.family]):
        raise TypeError(f"an OCSP responder cannot sign by {responder.scheme.name} with a key of another kind")
    return key
