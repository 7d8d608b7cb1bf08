"""What a CA signs in its own name and within its limits: certificates, CRLs, OCSP answers, and requests for itself."""

from __future__ import annotations

import datetime as dt
import functools
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hsmsign.model.algorithms import Scheme
from hsmsign.model.purpose import Purpose, subtree
from hsmsign.purposes import constraints, signed, subtrees
from hsmsign.purposes.mismatch import Mismatch

T = TypeVar("T", bound=x509.ExtensionType)

_NETSCAPE_TYPE = x509.ObjectIdentifier("2.16.840.1.113730.1.1")
"""netscape-cert-type: where there are no basicConstraints, OpenSSL finds in it that a certificate is a CA's."""


def check(message: bytes, purpose: Purpose, scheme: Scheme, public_key: bytes) -> None:
    """Raise Mismatch unless a CA with this purpose and key (SPKI, DER) signs that."""
    name = _name(purpose.issuer)
    if (certificate := signed.certificate(message, scheme)) is not None:
        _check_certificate(certificate, name, purpose, public_key)
        if not signed.says(certificate, scheme):
            raise Mismatch("a certificate that says the algorithm which signs it")
    elif (crl := signed.crl(message, scheme)) is not None:
        _same_issuer(crl.issuer, name)
    elif (response := signed.response(message, scheme)) is not None:
        if response.responder_name != name and not _is_hash_of(response, public_key):
            raise Mismatch(f"an OCSP answer of {name.rfc4514_string()} or of this key's hash")
    elif (request := signed.request(message, scheme)) is not None:
        if request.subject != name or _spki(request) != public_key:
            raise Mismatch(f"a CertificationRequestInfo of {name.rfc4514_string()} for this very key")
    else:
        raise Mismatch(
            "a TBSCertificate, a TBSCertList (of this scheme), OCSP ResponseData, or a CertificationRequestInfo, in DER"
        )


def check_request(message: bytes, scheme: Scheme, public_key: bytes) -> None:
    """Raise Mismatch unless that is a CertificationRequestInfo for this key."""
    request = signed.request(message, scheme)
    if request is None:
        raise Mismatch("a CertificationRequestInfo (RFC 2986) in DER")
    if _spki(request) != public_key:
        raise Mismatch("a CertificationRequestInfo for this very key")


def check_response(message: bytes, scheme: Scheme, public_key: bytes) -> None:
    """Raise Mismatch unless that is OCSP ResponseData; where it names its signer by a hash, it is this key's."""
    response = signed.response(message, scheme)
    if response is None:
        raise Mismatch("OCSP ResponseData (RFC 6960) in DER")
    if response.responder_name is None and not _is_hash_of(response, public_key):
        raise Mismatch("OCSP ResponseData whose responder is this key")


def is_to_be_signed(message: bytes, scheme: Scheme) -> bool:
    """Whether it could be signed as a certificate, a request, a CRL or an OCSP answer."""
    readers = (signed.certificate, signed.crl, signed.request, signed.response)
    return any(read(message, scheme) is not None for read in readers)


def _check_certificate(found: x509.Certificate, name: x509.Name, purpose: Purpose, public_key: bytes) -> None:
    _same_issuer(found.issuer, name)
    if found.version is not x509.Version.v3:
        raise Mismatch("a certificate of version 3: older ones cannot say that they are no CA")
    if found.serial_number <= 0:
        raise Mismatch("a certificate with a serial number above 0")
    try:
        extensions = found.extensions
        subject = found.subject
        valid = found.not_valid_after_utc - found.not_valid_before_utc
    except signed.UNREADABLE:
        raise Mismatch("a certificate whose names and extensions can be read, each extension once") from None
    if purpose.max_validity_days and valid > dt.timedelta(days=purpose.max_validity_days):
        raise Mismatch(f"a certificate that is valid for at most {purpose.max_validity_days} days, not {valid.days}")
    own = subject == name and _spki(found) == public_key
    is_ca = _check_path(extensions, purpose, own=own)
    if purpose.permitted_names:
        trees = tuple(subtree(one) for one in purpose.permitted_names)
        names = list(_find(extensions, x509.SubjectAlternativeName) or ())
        nameless = is_ca or own or _is_responder(extensions)
        if not subtrees.all_inside(names, trees) or not (names or nameless):
            raise Mismatch(f"a certificate with a subjectAltName, all of it in {', '.join(purpose.permitted_names)}")
        if not own:
            _check_subject(subject, names)
        if is_ca and not own:
            _check_constraints(extensions, trees, purpose)


def _check_path(extensions: x509.Extensions, purpose: Purpose, *, own: bool) -> bool:
    """Whether it is a CA's. Raises Mismatch where there may be none, or none that deep."""
    basic = _find(extensions, x509.BasicConstraints)
    usage = _find(extensions, x509.KeyUsage)
    if basic is None or not basic.ca:
        if usage is not None and (usage.key_cert_sign or usage.crl_sign):
            raise Mismatch("a certificate whose keyUsage has keyCertSign or cRLSign only where it is a CA's")
        if any(one.oid == _NETSCAPE_TYPE for one in extensions):
            raise Mismatch("a certificate without netscape-cert-type, in which some look whether it is a CA's")
        return False
    allowed = purpose.path_length if own else purpose.path_length - 1
    if allowed < 0:
        raise Mismatch("a certificate that is no CA's (CA:FALSE): the key's path length is 0")
    if basic.path_length is None or basic.path_length > allowed:
        raise Mismatch(f"a CA's certificate with a pathLenConstraint of at most {allowed}")
    return True


def _is_responder(extensions: x509.Extensions) -> bool:
    """Whether it is good for OCSP answers and nothing else: these are about certificates, and need no names."""
    usage = _find(extensions, x509.ExtendedKeyUsage)
    return usage is not None and list(usage) == [ExtendedKeyUsageOID.OCSP_SIGNING]


def _check_subject(subject: x509.Name, names: list[x509.GeneralName]) -> None:
    """Old programs look for a host's name in the common name, and for mailboxes in emailAddress (RFC 5280, sections
    4.2.1.6 and 4.2.1.10)."""
    hosts = {name.value.lower() for name in names if isinstance(name, x509.DNSName | x509.RFC822Name)}
    for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        text = str(one.value).lower()
        if _like_a_host(text) and text not in hosts:
            raise Mismatch("a certificate whose common name, where it is a host's, is in the subjectAltName too")
    mailboxes = {name.value.lower() for name in names if isinstance(name, x509.RFC822Name)}
    for one in subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
        if str(one.value).lower() not in mailboxes:
            raise Mismatch("a certificate whose emailAddress is in the subjectAltName too")


def _like_a_host(text: str) -> bool:
    """A host or a mailbox; not "example.org Issuing CA": no host has a space in it."""
    words = text.isprintable() and " " in text.strip() and "@" not in text
    return not words and ("." in text or "@" in text)


def _check_constraints(extensions: x509.Extensions, trees: subtrees.Subtrees, purpose: Purpose) -> None:
    try:
        found = extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        found = None
    if found is None or not found.critical or not constraints.hold(found.value, trees):
        raise Mismatch(
            f"a CA's certificate with critical nameConstraints that permit only {', '.join(purpose.permitted_names)}"
            " and leave no kind of names open: without subtrees of their own, DNS names are excluded by an empty one,"
            " IP addresses by 0.0.0.0/0 and ::/0, and of mailboxes and URIs only those in 'invalid' are permitted"
        )


def _find(extensions: x509.Extensions, kind: type[T]) -> T | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _same_issuer(issuer: x509.Name, name: x509.Name) -> None:
    if issuer != name:
        raise Mismatch(f"something issued by {name.rfc4514_string()}, which is the key's own name")


def _spki(found: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    try:
        return found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception:  # noqa: BLE001 - a key of a kind that is not known here: it is not this one
        return b""


def _is_hash_of(response: ocsp.OCSPResponse, public_key: bytes) -> bool:
    return response.responder_key_hash == _hash(public_key)


@functools.lru_cache(256)
def _hash(public_key: bytes) -> bytes:
    """SHA-1 of the subjectPublicKey (RFC 6960, section 4.2.1)."""
    return x509.SubjectKeyIdentifier.from_public_key(load_der_public_key(public_key)).digest  # type: ignore[arg-type]


@functools.lru_cache(256)
def _name(text: str) -> x509.Name:
    return x509.Name.from_rfc4514_string(text)
