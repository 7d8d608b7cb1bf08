"""Certification requests (PKCS #10, RFC 2986): read, and proved to come from who has the private key.

They come from strangers. Nothing but CsrError and WeakKeyError leaves `read`, and each says what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from hsmsign.model.errors import CsrError
from hsmsign.pki import names, weakness
from hsmsign.pki.weakness import PublicKey
from hsmsign.purposes.signed import UNREADABLE

SIZE_MAX = 64 * 1024
"""Bytes of a request."""
NAMES_MAX = 1000
"""Names in a request; a profile allows fewer."""
_ONE_BLOCK = re.compile(rb"\s*-----BEGIN ((?:NEW )?CERTIFICATE REQUEST)-----[^-]*-----END \1-----\s*")
_EXTENSION_REQUESTS = frozenset({"1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14"})
"""PKCS #9 (RFC 2985, section 5.4.2), and Microsoft's own."""
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512, hashes.SHA3_256, hashes.SHA3_384, hashes.SHA3_512)
_MAKE_ONE = "make one with: openssl req -new, or: hsmsign csr"


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose signature is good: who sent it, or who made it for them, has the private key."""

    der: bytes = field(repr=False)
    public_key: PublicKey = field(repr=False)
    spki: bytes = field(repr=False)
    """The public key as SubjectPublicKeyInfo, DER."""
    subject: x509.Name
    common_name: str
    """Of the subject; empty where it has none."""
    names: tuple[x509.GeneralName, ...]
    """Those of the subjectAltName that it asks for, as `hsmsign.pki.names` writes them."""
    extensions: tuple[x509.Extension[x509.ExtensionType], ...]
    """The others that it asks for."""


def read(data: bytes) -> Request:
    """Read a request, DER or one block of PEM, of at most SIZE_MAX bytes.

    Raises CsrError, `metadata["check"]` of which is one of size, encoding, version, key, hash, signature, subject,
    attributes, extensions, names; and WeakKeyError for a key of a kind or size that is not certified.
    """
    csr = _load(data)
    public_key = _checked_key(csr)
    _check_attributes(csr)
    subject, common_name = _subject(csr)
    extensions = _extensions(csr)
    return Request(
        der=csr.public_bytes(Encoding.DER),
        public_key=public_key,
        spki=public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        subject=subject,
        common_name=common_name,
        names=_names(extensions),
        extensions=tuple(one for one in extensions if not isinstance(one.value, x509.SubjectAlternativeName)),
    )


def _load(data: bytes) -> x509.CertificateSigningRequest:
    if not data or len(data) > SIZE_MAX:
        raise _wrong("size", f"a request has 1 to {SIZE_MAX} bytes, this one has {len(data)}")
    pem = data.lstrip().startswith(b"-----")
    if pem and not _ONE_BLOCK.fullmatch(data):
        raise _wrong("encoding", "the PEM is not one block CERTIFICATE REQUEST and nothing else")
    try:
        return x509.load_pem_x509_csr(data) if pem else x509.load_der_x509_csr(data)
    except x509.InvalidVersion:
        raise _wrong("version", "the request is of another version of PKCS #10 than 1") from None
    except UNREADABLE:
        raise _wrong("encoding", "this is no PKCS #10 request in DER or PEM, or there is more behind it") from None


def _checked_key(csr: x509.CertificateSigningRequest) -> PublicKey:
    """Its public key. Raises CsrError unless the private one signed the request."""
    try:
        found = csr.public_key()
    except UNREADABLE:
        hint = "use an EC key on a named curve (P-256, P-384, P-521), an RSA or an Ed25519 key"
        raise _wrong("key", "the public key in the request cannot be read", hint) from None
    public_key = weakness.check_kind(found)
    try:
        used = csr.signature_hash_algorithm
    except UNREADABLE:
        raise _old_hash() from None
    if not isinstance(used, _HASHES) and not (used is None and isinstance(public_key, ed25519.Ed25519PublicKey)):
        raise _old_hash()
    try:
        good = csr.is_signature_valid
    except UNREADABLE:
        good = False
    if not good:
        raise _wrong(
            "signature",
            "the request is not signed by the key that is in it, or was changed afterwards",
            "sign it with the private key that belongs to its public key",
        )
    return public_key


def _check_attributes(csr: x509.CertificateSigningRequest) -> None:
    try:
        asked = [one.oid.dotted_string for one in csr.attributes]
    except UNREADABLE:
        raise _wrong("attributes", "the attributes of the request cannot be read, or one has several values") from None
    if sum(oid in _EXTENSION_REQUESTS for oid in asked) > 1:
        raise _wrong("attributes", "the request has several extensionRequests where it may have one")


def _subject(csr: x509.CertificateSigningRequest) -> tuple[x509.Name, str]:
    try:
        subject = csr.subject
        found = [one.value for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except UNREADABLE:
        raise _wrong("subject", "the subject of the request cannot be read") from None
    if len(found) > 1 or not all(isinstance(one, str) for one in found):
        raise _wrong("subject", "the subject of the request has several common names, or one that is no text")
    return subject, str(found[0]) if found else ""


def _extensions(csr: x509.CertificateSigningRequest) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    try:
        return tuple(csr.extensions)
    except x509.DuplicateExtension as error:
        message = f"the request asks twice for the extension {error.oid.dotted_string}"
        raise _wrong("extensions", message) from None
    except UNREADABLE:
        raise _wrong(
            "extensions",
            "an extension that the request asks for cannot be read",
            "names are ASCII: a host's name that is not is written as an A-label (xn--…)",
        ) from None


def _names(asked: Iterable[x509.Extension[x509.ExtensionType]]) -> tuple[x509.GeneralName, ...]:
    found = next((one.value for one in asked if isinstance(one.value, x509.SubjectAlternativeName)), None)
    if found is None:
        return ()
    return names.check_all(tuple(found), NAMES_MAX)


def _wrong(check: str, message: str, hint: str = _MAKE_ONE) -> CsrError:
    return CsrError(message, hint=hint, metadata={"check": check})


def _old_hash() -> CsrError:
    return _wrong(
        "hash",
        "the request is signed with a hash that is not known here, or no longer good for signatures",
        "sign it with SHA-256, SHA-384 or SHA-512: openssl req -new -sha256",
    )
